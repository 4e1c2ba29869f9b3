"""A run's events from one process to another: lines of JSON in RUN/events.jsonl.

Guarantee: a line that a kill or a full disk cut off is not taken for an event, and takes no other along.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fedft.errors import StorageError
from fedft.rounds.progress import Observer
from fedft.strict_json import dumps

FILE = "events.jsonl"


class EventWriter(Observer):
    """Hears what rounds/progress.py allows, and appends it. What it hears is public, and so is the file.

    Raises StorageError when that cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def run_started(self, name: str, rounds: int, institutions: Sequence[str]) -> None:
        self._write("run_started", name, rounds, list(institutions))

    def round_started(self, round: int, rounds: int, cohort: Sequence[str]) -> None:
        self._write("round_started", round, rounds, list(cohort))

    def answered(self, institution: str, outcome: str) -> None:
        self._write("answered", institution, outcome)

    def evaluated(self, round: int, metrics: Mapping[str, float]) -> None:
        self._write("evaluated", round, dict(metrics))

    def spent(self, institution: str, epsilon: float | None, cap: float | None) -> None:
        self._write("spent", institution, epsilon, cap)

    def round_finished(self, record: Mapping[str, Any]) -> None:
        self._write("round_finished", dict(record))

    def run_finished(self, summary: Mapping[str, Any]) -> None:
        self._write("run_finished", dict(summary))

    def failed(self, text: str) -> None:
        """The run ended with an error of fedft, whose words are public."""
        self._write("failed", text)

    def _write(self, event: str, *values: Any) -> None:
        line = dumps([event, *values]).encode() + b"\n"
        try:
            with self._path.open("ab+") as file:
                file.write(line if _is_whole(file) else b"\n" + line)
        except OSError as error:
            raise StorageError(
                f"expected to write {self._path}, found {error.strerror}: make room, then resume; what was finished "
                "before is intact"
            ) from error


def _is_whole(file: BinaryIO) -> bool:
    """Whether its last line is not cut off."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def last_beginning(folder: Path) -> int:
    """Where the events of the newest ServerApp begin, in bytes: what an earlier one ended with is over."""
    found = position = 0
    if (folder / FILE).exists():
        with (folder / FILE).open("rb") as file:
            for line in file:
                if line.startswith(b'["run_started"'):
                    found = position
                position += len(line)
    return found


def follow(
    folder: Path, observer: Observer, *, start: int, alive: Callable[[], bool], poll_s: float = 0.2
) -> Iterator[tuple[str, list[Any]]]:
    """Tell ``observer`` each event from byte ``start`` on, and yield it; ends with the last, or when not alive.

    The event after which nothing comes is run_finished or failed.
    """
    path, position, rest = folder / FILE, start, b""
    while True:
        living = alive()
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                new = file.read()
            position += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                try:
                    event, *values = json.loads(line)
                except ValueError:
                    continue  # cut off
                if event != "failed":
                    getattr(observer, event)(*values)
                yield event, values
                if event in ("run_finished", "failed"):
                    return
        if not living:
            return
        time.sleep(poll_s)
