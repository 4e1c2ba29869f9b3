"""README's file tree and commands do not drift from the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from fedft.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tree() -> dict[str, set[str]]:
    """Files of each room, as the tree lists them; "" holds fedft's own."""
    block = README.split("```\nfedft/\n")[1].split("\nscenarios/")[0]
    rooms: dict[str, set[str]] = {"": set()}
    room = ""
    for line in block.splitlines():
        name = line.split()[0]
        if line.startswith("    "):
            rooms[room].add(name)
        elif name.endswith("/"):
            room = name[:-1]
            rooms[room] = set()
        else:
            rooms[""].add(name)
    return rooms


def test_the_tree_lists_every_module_and_no_other() -> None:
    found: dict[str, set[str]] = {"": set()}
    for file in (ROOT / "fedft").rglob("*.py"):
        parts = file.relative_to(ROOT / "fedft").parts
        if parts[-1] != "__init__.py":
            found.setdefault("/".join(parts[:-1]), set()).add(parts[-1])
    assert tree() == found


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^ {4}\.venv/bin/(fedft .+)$", README, re.MULTILINE))))
def test_a_command_of_the_readme_is_one(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command = get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    for word in words:
        if word.startswith("scenarios/") and "real" not in word:
            assert (ROOT / word).is_file()


def test_every_test_file_that_a_promise_names_is_there() -> None:
    table = README.split("| promise |")[1].split("\n\n")[0]
    for name in re.findall(r"(?:tests/contracts/)?(test_\w+\.py)", table):
        assert (ROOT / "tests" / "contracts" / name).is_file()
