"""fedft plan where nobody's rows are at hand: a coordinator's file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import federation_file, fedft
from tests.federation import NAMES


def coordinators_file(folder: Path) -> Path:
    """Without institutions, as docs/deploy.md has it; their rows are gone."""
    file = federation_file(folder, extra="")
    file.write_text(file.read_text().partition("[[institutions]]")[0])
    for name in NAMES:
        (folder / f"{name}.jsonl").unlink()
    return file


def test_a_coordinator_sees_what_is_asked_for_data_sets_of_several_sizes(tmp_path: Path) -> None:
    file = coordinators_file(tmp_path)
    shown = fedft("plan", file, "--units", "20,400")
    assert shown.exit_code == 0, shown.output
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["units", "sampling", "noise", "after", "1", "after", "2"] in rows
    assert [row[0] for row in rows if row and row[0] in ("20", "400")] == ["20", "400"]
    assert "epsilon 8 at delta 0.001" in " ".join(shown.stdout.split())
    plan = json.loads(fedft("plan", file, "--json", "--set", "privacy.epsilon=3.0").stdout)
    assert (plan["institutions"], plan["asked"]["epsilon"]) == ({}, 3.0)
    assert [found["units"] for found in plan["assumed"]] == [20, 50, 100, 200, 500]
    assert all(found["epsilon_after"][-1][1] <= 3.0 for found in plan["assumed"])


@pytest.mark.parametrize("sizes", ["", "0", "-5", "many", "500;1000", "500,,1000", "1.5"])
def test_sizes_are_whole_numbers(tmp_path: Path, sizes: str) -> None:
    result = fedft("plan", tmp_path / "federation.toml", "--units", sizes)
    assert result.exit_code == 2
    assert "whole numbers" in result.stderr
