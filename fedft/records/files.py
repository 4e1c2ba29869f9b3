"""Digests of a run folder's files, for the log's last entry and for whoever checks it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from fedft.records.log import HEAD, LOG

REPORTS = ("report.html", "report.json", "report.pdf")
"""Made from the folder, whenever someone asks: what they say can be computed again."""
KEY = "identity.key"
"""A private key of a simulated coordinator or institution; it is deleted when the run has ended."""
GROWING = frozenset({"log.txt", "events.jsonl"})
"""Names of files that may be appended to after the run has ended."""
_LEFT_OUT = frozenset({LOG, HEAD, *REPORTS})


def coverable(folder: Path) -> Iterator[Path]:
    """Every regular file whose digest the last entry holds."""
    left_out = {folder / name for name in _LEFT_OUT}
    return (path for path in all_files(folder) if path.name != KEY and path not in left_out)


def all_files(folder: Path) -> Iterator[Path]:
    """Every regular file that is not hidden, in the order of paths; links are not followed."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where) / name
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path


def digest_of(path: Path, length: int | None = None) -> tuple[int, str]:
    """Number of bytes and SHA-256 of a file, or of its first ``length`` bytes, read in blocks. Raises OSError."""
    total, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(2**20 if length is None else min(2**20, length - size)):
            total.update(block)
            size += len(block)
    return size, total.hexdigest()


def files_of(folder: Path) -> dict[str, dict[str, int | str]]:
    """By path in the folder, bytes and sha256 of what the last entry covers. Raises OSError."""
    found: dict[str, dict[str, int | str]] = {}
    for path in coverable(folder):
        size, digest = digest_of(path)
        found[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
    return found
