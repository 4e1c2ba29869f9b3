"""The SQLite file of a ledger: created whole, verified whole, appended to.

Guarantees:
- create leaves a complete ledger of one entry at the path, or nothing.
- read verifies every entry and every stored payload, or raises LedgerCorrupt with the number of the first bad entry.
- read_only connections change neither the database nor its write-ahead log, and recover nothing.
- append commits an entry and its payload together and synced, or not at all.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from fedft.durable import sync
from fedft.errors import FedftError, LedgerCorrupt, LedgerError, LedgerLocked, StorageError
from fedft.ledger.chain import Chain, Head
from fedft.ledger.entries import Entry, parse_entry

APPLICATION_ID = int.from_bytes(b"FEDF")
FORMAT_VERSION = 1
_PAGE_BYTES = 16384  # a 4 MB payload is written in a third of the time it takes with 4096
_BUSY_WAIT_S = 2.0
_FULL_SYNC = 2

_SCHEMA = {
    "entry": "CREATE TABLE entry (sequence INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL)",
    "payload": "CREATE TABLE payload (sequence INTEGER PRIMARY KEY, bytes BLOB NOT NULL)",
    "entry_in_order": """CREATE TRIGGER entry_in_order BEFORE INSERT ON entry
        WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM entry)
        BEGIN SELECT RAISE(ABORT, 'entries are numbered without a gap'); END""",
    "entry_not_changed": """CREATE TRIGGER entry_not_changed BEFORE UPDATE ON entry
        BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END""",
    "entry_not_deleted": """CREATE TRIGGER entry_not_deleted BEFORE DELETE ON entry
        BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END""",
    "payload_not_changed": """CREATE TRIGGER payload_not_changed BEFORE UPDATE ON payload
        BEGIN SELECT RAISE(ABORT, 'payloads are never changed'); END""",
}
# SQLITE_ERROR: our statements are constant, so it is the file that does not fit them.
_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_ERROR,
}
_STORAGE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_NOMEM,
}


def create(path: Path, first: Entry) -> None:
    """A ledger that holds ``first`` alone. The caller holds the lock and ``path`` is free.

    Built beside the path and renamed: a kill in between leaves no half ledger that could be taken for a truncated one.
    """
    fresh = path.with_name(path.name + ".new")
    for leftover in (fresh, Path(f"{fresh}-journal"), Path(f"{fresh}-wal"), Path(f"{fresh}-shm")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with sqlite_errors(), closing(_connect(fresh, "mode=rw")) as connection:
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        with transaction(connection):
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
            for statement in _SCHEMA.values():
                connection.execute(statement)
            _insert(connection, first)
        connection.execute("PRAGMA journal_mode=WAL")
    with open(fresh, "rb") as file:
        os.fsync(file.fileno())
    fresh.rename(path)
    sync(path.parent)


def connect_for_writing(path: Path) -> sqlite3.Connection:
    """A connection whose commits are durable when they return. Raises StorageError where SQLite will not promise it."""
    with sqlite_errors():
        connection = _connect(path, "mode=rw")
        try:
            connection.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone does not reach the disk
            connection.execute("PRAGMA checkpoint_fullfsync=ON")
            _require_setting(connection, "journal_mode", "WAL", "wal")
            _require_setting(connection, "synchronous", "FULL", _FULL_SYNC)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def read_only(path: Path, *, no_writer: bool) -> Iterator[sqlite3.Connection]:
    """One state of the file, for the length of the block. no_writer: nobody writes before the block ends.

    A database without a write-ahead log is opened as immutable: SQLite would create files beside it otherwise.
    """
    log = Path(f"{path}-wal")
    whole = no_writer and not (log.exists() and log.stat().st_size)
    with sqlite_errors(), closing(_connect(path, "mode=ro&immutable=1" if whole else "mode=ro")) as connection:
        connection.execute("BEGIN")
        yield connection


def read(connection: sqlite3.Connection) -> Chain:
    """The verified history. Raises LedgerCorrupt for anything but a ledger of this version, complete and unaltered."""
    _require_format(connection)
    chain = _read_entries(connection)
    _check_payloads(connection, chain)
    problems = [row[0].decode() for row in connection.execute("PRAGMA integrity_check(1)")]
    if problems != ["ok"]:
        raise LedgerCorrupt("expected a sound SQLite file, found damage outside the entries")
    return chain


def read_verified(connection: sqlite3.Connection, head: Head | None) -> Chain:
    """The same, of which ``head``, kept beside it, holds. Raises LedgerCorrupt."""
    chain = read(connection)
    if head is not None:
        chain.require_holds(head)
    elif chain.count > 1:  # alone, the first entry is a ledger whose creation was interrupted before its head
        raise LedgerCorrupt(f"expected a head beside the {chain.count} entries, found none")
    return chain


def append(connection: sqlite3.Connection, entry: Entry, payload: bytes | None, kept: frozenset[int]) -> None:
    """Commit ``entry``, its payload if it has one, and the removal of all payloads but those in ``kept``."""
    with sqlite_errors(), _space_given_back(connection), transaction(connection):
        _insert(connection, entry)
        if payload is not None:
            connection.execute("INSERT INTO payload VALUES (?, ?)", (entry.sequence, payload))
            stored = {row[0] for row in connection.execute("SELECT sequence FROM payload")}
            connection.executemany("DELETE FROM payload WHERE sequence = ?", [(old,) for old in stored - kept])


def payload_of(connection: sqlite3.Connection, sequence: int) -> bytes | None:
    with sqlite_errors():
        row = connection.execute("SELECT CAST(bytes AS BLOB) FROM payload WHERE sequence = ?", (sequence,)).fetchone()
    return None if row is None else row[0]


def data_version(connection: sqlite3.Connection) -> int:
    """Changes when another connection has committed."""
    with sqlite_errors():
        return int(connection.execute("PRAGMA data_version").fetchone()[0])


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself after some errors
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _space_given_back(connection: sqlite3.Connection) -> Iterator[None]:
    """On failure cut the write-ahead log back: what was rolled back would go on to fill the disk."""
    try:
        yield
    except sqlite3.Error:
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raise


@contextmanager
def sqlite_errors() -> Iterator[None]:
    """Turn SQLite's errors into ours by their primary code."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(error) from error
    except UnicodeDecodeError:  # an error message of SQLite's that quotes an altered schema
        raise LedgerCorrupt("expected a sound ledger file, found tables or triggers that are no text") from None


def _translated(error: sqlite3.Error) -> FedftError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in _DAMAGE:
        return LedgerCorrupt(f"expected a sound ledger file that no other program changes, found {name}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerLocked("expected to be the only writer, found that another program locks the database: end it")
    if code in _STORAGE:
        return StorageError(f"expected to read and write the ledger, found {name}: free space, or check the disk")
    return LedgerError(f"expected SQLite to read and write the ledger, found {name}: report it")


def _connect(path: Path, options: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?{options}",
        uri=True,
        timeout=_BUSY_WAIT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = bytes  # text that is no UTF-8 is for our checks to refuse
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    return connection


def _require_setting(connection: sqlite3.Connection, name: str, wanted: str, expected: str | int) -> None:
    connection.execute(f"PRAGMA {name}={wanted}")
    found = connection.execute(f"PRAGMA {name}").fetchone()[0]
    found = found.decode() if isinstance(found, bytes) else found
    if found != expected:
        raise StorageError(
            f"expected SQLite to keep {name} {wanted}, found {found}: "
            "keep the ledger on a local disk, not a network drive"
        )


def _insert(connection: sqlite3.Connection, entry: Entry) -> None:
    connection.execute("INSERT INTO entry VALUES (?, ?, ?)", (entry.sequence, entry.body.decode(), entry.hash))


def _require_format(connection: sqlite3.Connection) -> None:
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application != APPLICATION_ID:
        raise LedgerCorrupt("expected a ledger of fedft, found another file")
    if version != FORMAT_VERSION:
        raise LedgerCorrupt(f"expected format version {FORMAT_VERSION}, found {version}: use the version that wrote it")
    found = {bytes(row[0]): row[1] for row in connection.execute("SELECT name, sql FROM sqlite_master")}
    if found != {name.encode(): statement.encode() for name, statement in _SCHEMA.items()}:
        raise LedgerCorrupt("expected the tables and triggers of a ledger, found others")


def _read_entries(connection: sqlite3.Connection) -> Chain:
    chain = Chain()
    rows = connection.execute("SELECT sequence, CAST(body AS BLOB), CAST(hash AS BLOB) FROM entry ORDER BY sequence")
    try:
        for sequence, body, stored_hash in rows:
            if not isinstance(body, bytes):
                raise LedgerCorrupt("expected text, found none")
            entry = parse_entry(body)
            if hashlib.sha256(body).hexdigest().encode() != stored_hash:
                raise LedgerCorrupt("expected the entry that its hash was made from, found another")
            if sequence != entry.sequence:
                raise LedgerCorrupt(f"expected the row's own number {sequence} in the entry, found {entry.sequence}")
            chain.add(entry)
    except LedgerCorrupt as error:
        raise LedgerCorrupt(f"entry {chain.count + 1}: {error}") from None
    except sqlite3.Error as error:
        found = _translated(error)
        raise (type(found)(f"entry {chain.count + 1}: {found}")) from error
    if not chain.count:
        raise LedgerCorrupt("entry 1: expected at least the first entry, found none")
    return chain


def _check_payloads(connection: sqlite3.Connection, chain: Chain) -> None:
    releases, missing = chain.releases(), set(chain.kept_releases())
    for sequence, payload in connection.execute("SELECT sequence, CAST(bytes AS BLOB) FROM payload ORDER BY sequence"):
        release = releases.get(sequence)
        if release is None:
            raise LedgerCorrupt(f"entry {sequence}: expected a release beside these stored bytes, found none")
        require_payload(payload, release.bytes, release.sha256, sequence)
        missing.discard(sequence)
    if missing:
        raise LedgerCorrupt(f"entry {min(missing)}: expected the bytes of this release in the ledger, found none")


def require_payload(payload: object, length: int, sha256: str, sequence: int) -> None:
    """Raise LedgerCorrupt unless these are the bytes that the release's entry names."""
    if not isinstance(payload, bytes) or len(payload) != length or hashlib.sha256(payload).hexdigest() != sha256:
        raise LedgerCorrupt(f"entry {sequence}: expected the {length} bytes that the release names, found others")
