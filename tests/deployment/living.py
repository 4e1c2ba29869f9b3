"""What runs on this machine, as /proc tells it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path


def _stats() -> Iterator[tuple[int, str, int, int]]:
    """Process, state, parent, session."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        yield int(path.parent.name), words[0], int(words[1]), int(words[3])


def living(processes: Collection[int]) -> list[int]:
    """Those that run. A zombie does not."""
    return sorted(pid for pid, state, _, _ in _stats() if pid in processes and state != "Z")


def in_sessions(sessions: Collection[int], folder: Path) -> list[int]:
    """Processes that run in one of these sessions, at home in ``folder``: a session's number may be another's by now.

    What was killed a moment ago is given ten seconds to be gone.
    """
    end = time.monotonic() + 10
    while True:
        found = sorted(
            pid for pid, state, _, session in _stats() if session in sessions and state != "Z" and _at(pid, folder)
        )
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)


def _at(process: int, folder: Path) -> bool:
    try:
        return (Path("/proc") / str(process) / "cwd").resolve().is_relative_to(folder.resolve())
    except OSError:
        return False  # it has ended meanwhile


def children(process: int) -> list[int]:
    return sorted(pid for pid, state, parent, _ in _stats() if parent == process and state != "Z")


def command_of(process: int) -> list[str]:
    """Its words; none for one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []
