"""A writer that is killed: at the nth step inside fedft/ledger, after so many microseconds, or around the nth commit.

    python killed_writer.py step FOLDER N...
    python killed_writer.py time FOLDER MICROSECONDS...
    python killed_writer.py before-commit FOLDER N...   what is to be committed is written
    python killed_writer.py after-commit FOLDER N...    the head is not yet written, the caller not yet told

Each number has a folder of its own below FOLDER, with the ledger and a file of what was acknowledged to the caller. A
step is a call or a return, of Python or C: so it dies between any two things that it does, a write and its commit too.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from fedft.ledger import Ledger, database, files
from fedft.ledger.chain import Head, Signer
from fedft.privacy.events import DpSgdRound

ROUNDS = 2
INSIDE = f"{os.sep}fedft{os.sep}ledger{os.sep}"


def write(folder: Path) -> None:
    """What an institution does, every payload fresh, as a private update is."""
    acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledge(*what: Any) -> None:
        os.write(acknowledged, (json.dumps(what) + "\n").encode())

    with Ledger.open(folder / "ledger.sqlite") as ledger:
        for number in range(1, ROUNDS + 1):
            intent = ledger.record_intent(
                run="run-1",
                round=number,
                purpose="update",
                dataset="notes",
                plan_digest=f"{number:064x}",
                event=DpSgdRound(1.0, 0.5, number),
                evidence={"units": 10},
            )
            acknowledge("intent", number)
            stored = ledger.record_release(intent, os.urandom(5000))
            acknowledge("release", number, hashlib.sha256(stored).hexdigest())
        ledger.record_refusal(run="run-1", round=ROUNDS + 1, dataset="notes", reason="storage")
        acknowledge("refusal", ROUNDS + 1)
    acknowledge("closed")


def _die_at_step(step: int) -> None:
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal steps
        if INSIDE in frame.f_code.co_filename:
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def _die_before_commit(number: int) -> None:
    connect = database.connect_for_writing
    commits = 0

    def count(statement: str) -> None:
        nonlocal commits
        commits += statement == "COMMIT"
        if commits == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect_traced(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.set_trace_callback(count)
        return connection

    database.connect_for_writing = connect_traced


def _die_after_commit(number: int) -> None:
    write_head = files.write_head

    def die_or_write(path: Path, head: Head, signer: Signer | None = None) -> None:
        if head.count == number + 1:  # the first entry comes with the file
            os.kill(os.getpid(), signal.SIGKILL)
        write_head(path, head, signer)

    files.write_head = die_or_write


_DEATHS: dict[str, Callable[[int], None]] = {
    "step": _die_at_step,
    "before-commit": _die_before_commit,
    "after-commit": _die_after_commit,
}


def main(how: str, folder: Path, *numbers: int) -> None:
    for number in numbers:
        place = folder / str(number)
        place.mkdir(parents=True)
        child = os.fork()
        if child == 0:
            if how in _DEATHS:
                _DEATHS[how](number)
            write(place)
            os._exit(0)
        if how == "time":
            time.sleep(number / 1e6)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
