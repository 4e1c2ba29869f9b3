"""What runs on this machine, as /proc tells it."""

from __future__ import annotations

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


def in_sessions(sessions: Collection[int]) -> list[int]:
    """Processes that run in one of these sessions."""
    return sorted(pid for pid, state, _, session in _stats() if session in sessions and state != "Z")


def children(process: int) -> list[int]:
    return sorted(pid for pid, state, parent, _ in _stats() if parent == process and state != "Z")


def command_of(process: int) -> list[str]:
    """Its words; none for one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []
