"""Which adapters an institution's updates are in: by hand, and against runs that were played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedft.audit.contributions import Contribution, contributions_of
from fedft.errors import StorageError
from fedft.model.checkpoint import write_checkpoint
from fedft.simulation.run import play
from tests.federation import NAMES, OFF, federation


def folder_of(path: Path, rounds: list[dict[str, Any]], *, best: int, kept: tuple[int, ...] = ()) -> Path:
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"run": "tiny/1"}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rounds))
    for name, number in (("best", best), *((f"round-{one:04d}", one) for one in kept)):
        tensors = {"adapter": np.zeros(3, np.float32)}
        write_checkpoint(path / "checkpoints" / name, tensors=tensors, manifest={"round": number})
    return path


def record(number: int, *updates: str, quorum: bool = True, **other: Any) -> dict[str, Any]:
    return {"round": number, "updates": list(updates), "refused": {}, "missing": [], "quorum": quorum, **other}


def test_one_is_in_every_state_from_its_first_sum_on_and_in_none_before(tmp_path: Path) -> None:
    rounds = [
        record(1, "north"),
        record(2, "north", "west", quorum=False),  # moved nothing
        record(3, "north", "west"),
        record(4, "north", refused={"west": "withdrawn"}),
        record(5, "north", "late", missing=["west"]),
    ]
    found = contributions_of(folder_of(tmp_path / "run", rounds, best=4, kept=(2, 4, 5)))
    assert (found.run, found.rounds, found.best_round) == ("tiny/1", 5, 4)
    assert found.institutions == (
        Contribution("late", (5,), best=False, final=True, free=4, again=1),
        Contribution("north", (1, 3, 4, 5), best=True, final=True, free=0, again=5),
        Contribution("west", (3,), best=True, final=True, free=2, again=3),
    )
    assert found.of("nobody") == Contribution("nobody", (), best=False, final=False, free=5, again=0)
    assert (found.of("west").first, found.of("nobody").first) == (3, None)


def test_without_the_state_before_its_first_sum_an_older_one_has_to_do(tmp_path: Path) -> None:
    rounds = [record(1, "north"), record(2, "north"), record(3, "north", "west"), record(4, "north")]
    assert contributions_of(folder_of(tmp_path / "a", rounds, best=1, kept=(1, 3, 4))).of("west").free == 1
    assert contributions_of(folder_of(tmp_path / "b", rounds, best=1, kept=(3, 4))).of("west").free == 0


def test_of_a_run_that_was_played(tmp_path: Path) -> None:
    play(federation(tmp_path / "data", *OFF), folder=tmp_path / "run")
    found = contributions_of(tmp_path / "run")
    assert [one.institution for one in found.institutions] == list(NAMES)
    assert {(one.rounds, one.final, one.free, one.again) for one in found.institutions} == {((1, 2), True, 0, 2)}


def test_a_folder_that_is_no_runs_or_was_altered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        contributions_of(tmp_path)
    wrong: list[dict[str, Any]] = [
        {"updates": ["a"], "quorum": True}, {"round": 1, "updates": 3, "quorum": True},
        {"updates": ["a"], "refused": {}, "missing": [], "quorum": True},
    ]  # fmt: skip
    for number, line in enumerate(wrong):
        run = folder_of(tmp_path / str(number), [line], best=0)
        with pytest.raises(StorageError):
            contributions_of(run)
    run = folder_of(tmp_path / "best", [record(1, "north")], best=1)
    (run / "checkpoints" / "best" / "manifest.json").write_text("{")
    with pytest.raises(StorageError):
        contributions_of(run)
