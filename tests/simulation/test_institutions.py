"""What of a simulated institution is in its own folder, and nowhere else in the run's."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import fedft.training.local
from fedft.assembly.institution import lines_into
from fedft.cli.frame import log_into
from fedft.data.formats import Batch
from fedft.simulation.run import play
from fedft.training.losses import per_example_loss
from tests.federation import federation, records_of, rows_of

UNKNOWN = 1
"""The token of every word outside the tiny vocabulary."""


def with_nan(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The loss of a row with an unknown word is not a number."""
    return per_example_loss(logits, batch) * torch.where((batch.input_ids == UNKNOWN).any(dim=1), torch.nan, 1.0)


def test_how_many_gradients_were_not_finite_stays_with_the_institution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of north's units have such a row; the log of the run is there and says other things, at every level."""
    rows = [row | {"text": "word outside"} if int(row["patient"][1:]) % 2 else row for row in rows_of(0)]
    config = federation(tmp_path / "data", "institutions.south.epsilon=0.1", rows={"north": rows})
    monkeypatch.setattr(fedft.training.local, "per_example_loss", with_nan)
    run = tmp_path / "run"
    with caplog.at_level(logging.DEBUG, logger="fedft"), log_into(run):
        play(config, folder=run)
    assert [record["updates"] for record in records_of(run)] == [["north", "west"]] * 2
    assert sum(counts_in(run / "institutions" / "north" / "log.txt")) > 0
    assert counts_in(run / "institutions" / "west" / "log.txt") == [0, 0]
    assert not (run / "institutions" / "south" / "log.txt").exists()
    said = (run / "log.txt").read_text()
    assert "south refuses round 1" in said
    assert "left out" not in said + caplog.text
    elsewhere = [file for file in run.rglob("*") if file.is_file() and "institutions" not in file.parts]
    assert not [file for file in elsewhere if b"left out" in file.read_bytes()]


def counts_in(file: Path) -> list[int]:
    """Of each round, in order."""
    line = re.compile(r"\S+Z tiny/[0-9a-f]{16}, round (\d): left out (\d+) unit gradients, not finite")
    found = [line.fullmatch(text) for text in file.read_text().splitlines()]
    assert [match and match[1] for match in found] == ["1", "2"]
    return [int(match[2]) for match in found if match]


def test_lines_are_added_each_with_its_time(tmp_path: Path) -> None:
    for words in ("one", "two"):
        lines_into(tmp_path / "new" / "log.txt")(words)
    lines: list[Any] = (tmp_path / "new" / "log.txt").read_text().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", "", line) for line in lines] == ["one", "two"]
