"""A disk that is full when a test says so: a small one of its own as root, else a limit on what this process writes."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MIB = 64


class SmallDisk:
    """A file system of MIB MiB, mounted at ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._filler = folder, folder / "filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            for block in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(block))

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


class LimitedWriting:
    """No file of this process grows while it is full. The system says EFBIG where a disk says ENOSPC."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def free(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


Disk = SmallDisk | LimitedWriting


@contextmanager
def disk_at(folder: Path) -> Iterator[Disk]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MIB}m,mode=0700", "fedft-test", str(folder)],
        capture_output=True,
        check=False,
    )
    disk: Disk = SmallDisk(folder) if mounted.returncode == 0 else LimitedWriting(folder)
    try:
        yield disk
    finally:
        disk.free()
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)
