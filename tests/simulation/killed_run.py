"""A federation played in a process of its own, which dies by SIGKILL: where it is told to, or when its parent likes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fedft.assembly.coordinator
import fedft.assembly.planning
import fedft.model.checkpoint
import fedft.records.log
import fedft.rounds.institution
import fedft.simulation.run
import fedft.training.local
from fedft.config import FederationConfig, parse_config
from fedft.flower.local_grid import LocalGrid
from fedft.ledger.store import Ledger
from fedft.records.log import AuditLog
from fedft.rounds.coordinator import Coordinator
from fedft.rounds.open_round import OpenRound
from fedft.rounds.run_folder import RunFolder
from tests.dying import die, dying, processes


def play_in_child(
    config: FederationConfig,
    run: Path,
    *,
    noise: float | None = None,
    point: str | None = None,
    after_s: float | None = None,
) -> int:
    """Begin the run, or go on with it; the exit code, negative when killed: at ``point``, or ``after_s`` seconds.

    ``noise``: what calibration comes to, known already.
    """
    arguments = (json.dumps(config.model_dump(mode="json")), str(run), noise, point)
    process = processes.Process(target=_play, args=arguments)
    process.start()
    if after_s is not None:
        time.sleep(after_s)
        process.kill()
    process.join(300)
    code = process.exitcode
    process.close()
    assert code is not None
    return code


def _play(config_json: str, run: str, noise: float | None, point: str | None) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    config = parse_config(json.loads(config_json), folder=Path())
    if noise is not None:
        setattr(fedft.assembly.planning, "calibrate", lambda **_: noise)  # noqa: B010 - not exported there
    if point is not None:
        POINTS[point]()
    begun = (Path(run) / "config.json").exists()
    fedft.simulation.run.play(config, folder=Path(run), resume=begun)


def half_a_line() -> None:
    def append(self: RunFolder, record: dict[str, Any]) -> None:
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record)[:40])
        die()

    RunFolder._append = append  # type: ignore[method-assign,assignment]


def half_cleared() -> None:
    original = shutil.rmtree

    def remove(path: Path, **options: Any) -> None:
        if path.name.startswith("round-"):
            next(path.iterdir()).unlink()
            die()
        original(path, **options)

    shutil.rmtree = remove  # type: ignore[assignment]


def to(start: str) -> Callable[..., bool]:
    """A move to a file or folder whose path, from its parent on, begins so."""
    return lambda _, target: f"{Path(target).parent.name}/{Path(target).name}".startswith(start)


def of_kind(kind: str) -> Callable[..., bool]:
    """An entry of the audit log."""
    return lambda _, given, *rest, **named: given == kind


POINTS: dict[str, Callable[[], None]] = {
    "before-the-first-state": dying(Coordinator, "request"),
    "asked": dying(LocalGrid, "push_messages", after=True, nth=2),
    "before-a-charge": dying(Ledger, "record_intent", nth=2),
    "after-a-charge": dying(Ledger, "record_intent", after=True, nth=2),
    "at-the-first-private-row": dying(fedft.training.local, "per_example_loss"),
    "in-training": dying(fedft.training.local, "per_example_loss", nth=4),
    "trained": dying(fedft.rounds.institution, "train_locally", after=True, nth=3),
    "before-a-release": dying(Ledger, "record_release"),
    "after-a-release": dying(Ledger, "record_release", after=True),
    "after-the-last-release": dying(Ledger, "record_release", after=True, nth=2),
    "heard-all": dying(OpenRound, "receive", after=True, nth=3),
    "before-the-evaluation": dying(fedft.assembly.coordinator, "evaluate"),
    "in-a-checkpoint": dying(fedft.model.checkpoint, "write_whole", after=True, nth=3),
    "before-a-rename": dying(Path, "rename", only=to("checkpoints/round-")),
    "after-a-rename": dying(Path, "rename", only=to("checkpoints/round-"), after=True),
    "before-an-entry": dying(AuditLog, "append", only=of_kind("round")),
    "an-entry-not-counted": dying(fedft.records.log, "write_whole"),
    "after-an-entry": dying(AuditLog, "append", only=of_kind("round"), after=True),
    "before-a-line": dying(RunFolder, "_append"),
    "half-a-line": half_a_line,
    "after-a-line": dying(RunFolder, "_append", after=True),
    "before-room-is-made": dying(shutil, "rmtree", only=lambda path, **_: path.name.startswith("round-")),
    "half-cleared": half_cleared,
    "before-the-best": dying(RunFolder, "write_best", nth=2),
    "in-the-best": dying(Path, "replace", only=to("best/manifest"), nth=2),
    "after-the-best": dying(RunFolder, "write_best", after=True, nth=2),
    "resuming": dying(RunFolder, "latest", after=True),
    "before-the-export": dying(fedft.simulation.run, "export_adapter"),
    "in-the-export": dying(Path, "rename", only=to("run/adapter")),
    "after-the-export": dying(Path, "rename", only=to("run/adapter"), after=True),
    "before-the-summary": dying(RunFolder, "write_summary"),
    "after-the-summary": dying(RunFolder, "write_summary", after=True),
    "before-the-last-entry": dying(AuditLog, "append", only=of_kind("end")),
    "the-last-entry-not-counted": dying(fedft.records.log, "write_whole"),
    "before-the-keys-are-deleted": dying(fedft.simulation.run, "delete_keys"),
}
"""In an order in which one run can die at all of them: the last eight when every round is over."""
