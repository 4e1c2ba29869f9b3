"""Files with private keys: readable by their owner alone, from the first byte on.

Guarantee: write_secret makes a new file of mode 0600 and never one of another mode, whatever the umask; read_secret
reads a file only if it is a regular one, belongs to this process's user and gives nobody else anything.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fedft.durable import sync
from fedft.errors import ConfigError, StorageError

MAX_SECRET_BYTES = 64 * 1024


def read_secret(path: Path) -> bytes:
    """The content of a file of mode 0600 or 0400. Raises ConfigError for any other, a link among them."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"expected a file with a private key at {path}, found {error.strerror}: give the file itself, not a link"
        ) from None
    try:
        _require_mode(path, os.fstat(handle))
        _require_own(path, os.fstat(handle))
    except ConfigError:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as file:
        return file.read(MAX_SECRET_BYTES)


def require_secret(path: Path) -> None:
    """Raise ConfigError unless ``path`` is a file of mode 0600 or 0400, whoever owns it: for other programs' keys."""
    try:
        _require_mode(path, path.lstat())
    except OSError as error:
        raise ConfigError(f"expected a file with a private key at {path}, found {error.strerror}: restore it") from None


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600 and make it durable.

    Raises
    ------
    ConfigError
        Something is there already: a key is never overwritten.
    StorageError
        The disk refuses; nothing is left behind.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600)
    except FileExistsError:
        raise ConfigError(f"expected no file at {path}, found one: a key is never overwritten; move it away") from None
    except OSError as error:
        raise StorageError(f"expected to write {path}, found {error.strerror}: correct the path") from None
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageError(
            f"expected to write {path}, found {error.strerror}: free space or correct the path"
        ) from None


def _require_own(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"expected {path} to belong to the user that runs this (id {os.geteuid()}), found id {found.st_uid}: "
            "change its owner, or run as that user"
        )


def _require_mode(path: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"expected a file with a private key at {path}, found none: give the file itself")
    if mode not in (0o600, 0o400):
        raise ConfigError(
            f"expected mode 0600 on {path}, found {mode:04o}: others could read this private key; "
            f"run chmod 600 on it, and make a new key if others had access"
        )
