"""docs/audit.md explains every word that recompute can say, and its commands are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from fedft.audit.recompute import recompute
from fedft.cli import app
from tests.audit.audited import Audited

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
SOURCES = ("checks", "recompute", "records", "accounts")


def test_every_word_of_a_finding_is_explained() -> None:
    said = {
        word
        for name in SOURCES
        for word in re.findall(
            r'(?:claim|bad_input|note)\(\s*"([a-z-]+)"', (ROOT / "fedft" / "audit" / f"{name}.py").read_text()
        )
    }
    said |= {"batch-size", "clip-norm", "delta", "cap"}
    assert len(said) > 30
    assert {word for word in said if f"`{word}`" not in DOCUMENT} == set()


def test_the_specification_names_every_field_of_the_json(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "SPEC.md").read_text(encoding="utf-8").split("## Recomputed figures")[1].split("\n## ")[0]
    body = recompute(Audited().write(tmp_path / "run"), delta=1e-4).as_json()
    known = {*body, *body["accounts"][0], *body["ledgers"]["north"]}
    assert {key for key in known if f"`{key}`" not in text} == set()
    assert f"`{body['label']}`" in text


@pytest.mark.parametrize("line", re.findall(r"^ {4}\.venv/bin/(fedft (?:.+\\\n)*.+)$", DOCUMENT, re.MULTILINE))
def test_a_command_of_the_tutorial_is_one(line: str) -> None:
    words = shlex.split(line.replace("\\\n", " "))[1:]
    command = get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
