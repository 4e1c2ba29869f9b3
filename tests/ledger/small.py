"""A small ledger and hands to damage it with."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fedft.ledger import Intent, Ledger
from fedft.privacy.events import DpSgdRound

PLAN = "1" * 64
EVENT = DpSgdRound(noise_multiplier=1.1, sampling_rate=0.25, steps=4)


def intent(ledger: Ledger, round: int = 1, **changes: Any) -> Intent:
    fields: dict[str, Any] = {
        "run": "run-1",
        "round": round,
        "purpose": "update",
        "dataset": "triage-notes",
        "plan_digest": PLAN,
        "event": EVENT,
        "evidence": {"units": 640, "dataset_digest": "d" * 64, "delta": 1e-5},
    }
    return ledger.record_intent(**{**fields, **changes})


def payload(round: int) -> bytes:
    return bytes([round]) * 3000


def play(ledger: Ledger, rounds: int = 4) -> None:
    """``rounds`` rounds of an intent and a release, and a refusal: 2 * rounds + 2 entries with the first."""
    for number in range(1, rounds + 1):
        ledger.record_release(intent(ledger, number), payload(number))
    ledger.record_refusal(run="run-1", round=rounds + 1, dataset="triage-notes", reason="budget-exhausted")


def files_of(folder: Path) -> dict[str, bytes]:
    """All that is stored; -shm is SQLite's index of the write-ahead log, rebuilt at will."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if not file.name.endswith("-shm")}


@contextmanager
def without_triggers(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody who knows SQLite: the triggers are away, and back again when the block ends."""
    with closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.commit()
        yield connection
        for _, statement in triggers:
            connection.execute(statement)
        connection.commit()


def read_everything(path: Path) -> tuple[object, ...]:
    with Ledger.open(path, read_only=True) as ledger:
        return ledger.entries(), [ledger.stored_release("run-1", number, "update") for number in (3, 4)]


def crashed_copy(path: Path) -> Path:
    """The ledger with two entries more, as a crash leaves it: they are in the write-ahead log alone."""
    copy = path.parent / "crashed" / path.name
    copy.parent.mkdir()
    with Ledger.open(path) as ledger:
        ledger.record_release(intent(ledger, 5), payload(5))
        for suffix in ("", "-wal", ".head", ".lock"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy
