"""One change at a time in a coordinator's folder, and each file old or new."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedft.durable import write_whole
from fedft.errors import ConfigError
from fedft.model.checkpoint import storage_errors


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raises ConfigError while another changes the coordinator's folder."""
    with storage_errors(folder), (folder / "coordinator.json").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"expected to change {folder} alone, found another fedft provision at work on it: wait for it"
            ) from None
        yield


def replace_file(path: Path, content: bytes) -> None:
    """The old content or the new, nothing between, and the new to stay. Raises StorageError."""
    with storage_errors(path):
        write_whole(path, content)
