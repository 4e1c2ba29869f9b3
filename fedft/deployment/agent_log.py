"""The agent's log: one JSON line an event, and what fedft says in words. Names, words and seconds; no row's content.

Guarantee: a file that its owner alone can read, also one made anew, and nothing of it on standard output. What fedft
says of a refusal may hold a row's number or how many units there are; the relay, which runs as another
user and speaks to the coordinator, hears one word.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from fedft.errors import StorageError

OFTEN_SECONDS = 1.0
"""Events that anyone at the socket can cause make one line in this time."""
_EVENT = "fedft_event"

log = logging.getLogger(__name__)


class Events:
    """Writes lines. Not for several threads at once."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}
        self._held_back: dict[tuple[str, str], int] = {}

    def note(
        self,
        event: str,
        *,
        run: str | None = None,
        round: int | None = None,
        outcome: str | None = None,
        seconds: float | None = None,
        **more: int,
    ) -> None:
        fields = {"event": event, "run": run, "round": round, "outcome": outcome, "seconds": seconds, **more}
        log.info("%s", event, extra={_EVENT: fields})

    def note_often(self, event: str, outcome: str) -> None:
        """A line now if there was none of these for a while; it says how many were held back since."""
        key, now = (event, outcome), time.monotonic()
        if now - self._last.get(key, -OFTEN_SECONDS) < OFTEN_SECONDS:
            self._held_back[key] = self._held_back.get(key, 0) + 1
            return
        self._last[key] = now
        self.note(event, outcome=outcome, times=1 + self._held_back.pop(key, 0))


@contextmanager
def agent_log(path: Path) -> Iterator[Events]:
    """While it lasts, events and what fedft logs go to ``path``; a file moved away is made anew.

    Raises StorageError when the file cannot be written.
    """
    try:
        handler = _OwnersFile(path, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"expected to write {path}, found {error.strerror}: correct agent.log") from None
    handler.setFormatter(_JsonLines())
    ours = logging.getLogger("fedft")
    level, propagate = ours.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield Events()
    finally:
        ours.setLevel(level)
        ours.propagate = propagate
        ours.removeHandler(handler)
        handler.close()


class _OwnersFile(WatchedFileHandler):
    """Mode 0600 from its first byte, and again where it lay there with another."""

    def _open(self) -> TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.fchmod(handle, 0o600)
        return os.fdopen(handle, "a", encoding=self.encoding)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, _EVENT, None) or {"event": "note", "text": record.getMessage()}
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return json.dumps({"time": when, **{key: value for key, value in fields.items() if value is not None}})
