"""The files around the database: the lock of the one writer, and the head that outlives a lost write-ahead log."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedft.errors import LedgerCorrupt, LedgerLocked, StorageError
from fedft.identity.notes import MAX_NOTE
from fedft.ledger.chain import Head, Signer

LOCK_WAIT_S = 2.0
_POLL_S = 0.02
_OWNER_ONLY = 0o600


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def head_path(path: Path) -> Path:
    return path.with_name(path.name + ".head")


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says into StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"expected to read and write {path} and the files beside it, found {error.strerror}: "
            "free space, or correct the folder's permissions"
        ) from error


def lock_for_writing(path: Path) -> int:
    """The descriptor that holds the lock until it is closed. Raises LedgerLocked after LOCK_WAIT_S.

    The lock belongs to the open file, so the system releases it when the process dies, by kill -9 too.
    """
    descriptor = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY)
    deadline = time.monotonic() + LOCK_WAIT_S
    while not _try_lock(descriptor, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise LedgerLocked(
                f"expected to be the only writer of {path}, found another that holds {lock_path(path).name}: "
                "wait until it ends, or give each institution a ledger of its own"
            )
        time.sleep(_POLL_S)
    return descriptor


@contextmanager
def no_writer(path: Path) -> Iterator[bool]:
    """Whether nobody writes; if so, nobody begins to before the block ends. Creates nothing."""
    try:
        descriptor = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        yield _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def write_head(path: Path, head: Head, signer: Signer | None = None) -> None:
    """Replace the head's file as a whole. After a power cut it may be an older one, which the ledger goes on from."""
    fresh = path.with_name(path.name + ".head.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _OWNER_ONLY)
    with open(descriptor, "wb", buffering=0) as file:
        file.write((head.as_text() if signer is None else signer.signed(head.as_text())).encode())
        os.fsync(descriptor)
    os.replace(fresh, head_path(path))


def read_head(path: Path) -> Head | None:
    """What the head's file says, its signature not checked. Raises LedgerCorrupt."""
    content = read_head_file(path)
    if content is None:
        return None
    try:
        return Head.from_file(content)
    except LedgerCorrupt:
        raise LedgerCorrupt(f"expected a head in {head_path(path).name}, found something else") from None


def read_head_file(path: Path) -> str | None:
    """The content of the head's file; None where there is none. Raises LedgerCorrupt for what is no text."""
    try:
        with head_path(path).open("rb") as file:
            return file.read(MAX_NOTE + 1).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise LedgerCorrupt(f"expected a head in {head_path(path).name}, found something else") from None


def _try_lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
