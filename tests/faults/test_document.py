"""docs/reliability.md names only tests and results that are there, and every file of tests/faults."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
PLACES = ("tests/faults", "tests/deployment")


def test_every_test_and_result_it_names_is_there() -> None:
    for name in re.findall(r"`((?:tests|bench|docs)/[\w/.-]+)", TEXT):
        found = list(ROOT.glob(f"{name}*"))
        assert found, f"{name} is not there"
    for name in re.findall(r"`(test_\w+\.py)`", TEXT):
        assert any((ROOT / place / name).is_file() for place in PLACES), f"{name} is not there"


def test_every_fault_that_is_tested_is_in_it() -> None:
    own = {"test_document.py"}
    assert {path.name for path in (ROOT / "tests" / "faults").glob("test_*.py")} - own <= set(
        re.findall(r"test_\w+\.py", TEXT)
    )
