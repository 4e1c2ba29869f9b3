"""Which clause of which framework the report is evidence for: controls.toml, which counsel may change."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from fedft.config.files import read_toml
from fedft.report.form import Control, Document
from fedft.report.page import cell, paragraph, section, table

TITLE = "Control mapping"
FILE = Path(__file__).with_name("controls.toml")
_ADVICE = "This is evidence, not legal advice: whether a clause applies, and is satisfied, is for counsel to say."


def read_controls(path: Path = FILE) -> list[Control]:
    """Raises ConfigError for a file that is none, and pydantic's ValidationError for one of another form."""
    body = read_toml(path, kind="the control mapping", otherwise="install fedft anew")
    return TypeAdapter(list[Control]).validate_python(body.get("controls"))


def view(document: Document) -> str:
    rows = [
        [
            cell(control["framework"]),
            cell(control["clause"]),
            cell(control["asks"]),
            ", ".join(f'<a href="#part-{number}">part {number}</a>' for number in control["evidence"]),
            cell(control["how"]),
            cell(control["source"]),
        ]
        for control in document["controls"]
    ]
    head = ("Framework", "Clause", "What it asks for", "Evidence", "How to check", "Source")
    return section(TITLE, paragraph(_ADVICE, "lead"), table(head, rows))
