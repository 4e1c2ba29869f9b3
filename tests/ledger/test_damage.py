"""Damage, loss and edits: what does not fit is refused by the number of its first bad entry, and never repaired."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fedft.errors import LedgerCorrupt
from fedft.ledger import Ledger, files
from tests.ledger.small import crashed_copy, files_of, intent, play, read_everything, without_triggers


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed ledger of ten entries: start, four rounds of an intent and a release, a refusal."""
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        play(ledger)
    return tmp_path / "ledger.sqlite"


def refused(path: Path) -> str:
    """What both a reader and a writer say; neither may touch what it refuses."""
    before = files_of(path.parent)
    with pytest.raises(LedgerCorrupt) as by_reader:
        Ledger.open(path, read_only=True)
    with pytest.raises(LedgerCorrupt) as by_writer:
        Ledger.open(path)
    assert files_of(path.parent) == before
    assert str(by_reader.value) == str(by_writer.value)
    return str(by_reader.value)


# "verifies every entry, every stored payload, and the head": changed bytes


@contextmanager
def flip(file: Path, position: int) -> Iterator[None]:
    good = file.read_bytes()
    changed = bytearray(good)
    changed[position] ^= 1 << position % 8
    file.write_bytes(changed)
    try:
        yield
    finally:
        file.write_bytes(good)


def stored_pieces(path: Path) -> list[tuple[int, bytes]]:
    """The entry's number and its bytes in the file: every body, every hash, every payload that is kept."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT sequence, body, hash FROM entry").fetchall()
        kept = connection.execute("SELECT sequence, bytes FROM payload").fetchall()
    bodies = [(number, text.encode()) for number, body, digest in rows for text in (body, digest)]
    return bodies + [(number, content[:1000]) for number, content in kept]


def test_every_changed_byte_of_an_entry_or_payload_is_found_and_named(path: Path) -> None:
    content = path.read_bytes()
    for number, piece in stored_pieces(path):
        start = content.rindex(piece)
        for position in range(start, start + len(piece), 61):
            with flip(path, position), pytest.raises(LedgerCorrupt, match=f"entry {number}:"):
                Ledger.open(path, read_only=True)
    assert read_everything(path)


def test_any_changed_byte_of_the_file_is_found_or_changes_nothing(path: Path) -> None:
    expected = read_everything(path)
    found = 0
    for position in [*range(200), *range(200, path.stat().st_size, 97)]:
        with flip(path, position):
            try:
                assert read_everything(path) == expected
            except LedgerCorrupt:
                found += 1
    assert found > 50


def test_every_changed_byte_of_the_write_ahead_log_is_found(path: Path) -> None:
    """SQLite itself drops what follows a bad frame without a word: the head is what remembers."""
    left = crashed_copy(path)
    log = Path(f"{left}-wal")
    for position in range(0, log.stat().st_size, 487):
        with flip(log, position), pytest.raises(LedgerCorrupt, match="entry 11:|entry 12:"):
            Ledger.open(left, read_only=True)
    log.unlink()
    assert "entry 11: expected 12 entries" in refused(left)


def test_every_changed_byte_of_the_head_is_found(path: Path) -> None:
    head = files.head_path(path)
    for position in range(head.stat().st_size):
        with flip(head, position), pytest.raises(LedgerCorrupt):
            Ledger.open(path, read_only=True)


@pytest.mark.parametrize("size", [0, 1, 100, 16384, 20000, 32768])
def test_a_truncated_ledger_is_refused_and_left_as_it_was(path: Path, size: int) -> None:
    os.truncate(path, size)
    refused(path)


# Changed rows, by somebody who knows SQLite and lifts the triggers.

REORDER = """
UPDATE entry SET sequence = 100 WHERE sequence = 4;
UPDATE entry SET sequence = 4 WHERE sequence = 5;
UPDATE entry SET sequence = 5 WHERE sequence = 100;
"""


def renumber(connection: sqlite3.Connection) -> None:
    """Takes entry 6 out and closes the gap, as far as that goes without making hashes anew."""
    connection.execute("DELETE FROM entry WHERE sequence = 6")
    for number in range(7, 11):
        connection.execute("UPDATE entry SET sequence = sequence - 1 WHERE sequence = ?", (number,))


def rewrite(connection: sqlite3.Connection) -> None:
    """A smaller charge in entry 4, with a hash made for it: the next entry still names the old one."""
    (body,) = connection.execute("SELECT body FROM entry WHERE sequence = 4").fetchone()
    fresh = body.replace('"steps":4', '"steps":1')
    assert fresh != body
    digest = hashlib.sha256(fresh.encode()).hexdigest()
    connection.execute("UPDATE entry SET body = ?, hash = ? WHERE sequence = 4", (fresh, digest))


def copy_last(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO entry SELECT 11, body, hash FROM entry WHERE sequence = 10")


EDITS: dict[str, tuple[Callable[[sqlite3.Connection], object], str]] = {
    "deleted": (lambda c: c.execute("DELETE FROM entry WHERE sequence = 6"), "entry 6: expected"),
    "deleted and renumbered": (renumber, "entry 6: expected"),
    "the last deleted": (lambda c: c.execute("DELETE FROM entry WHERE sequence = 10"), "entry 10: expected 10 entries"),
    "all deleted": (lambda c: c.execute("DELETE FROM entry"), "entry 1: expected"),
    "reordered": (lambda c: c.executescript(REORDER), "entry 4: expected"),
    "rewritten": (rewrite, "entry 5: expected"),
    "duplicated": (copy_last, "entry 11: expected"),
    "bytes deleted": (lambda c: c.execute("DELETE FROM payload WHERE sequence = 9"), "entry 9: expected the bytes"),
    "bytes replaced": (
        lambda c: c.execute("UPDATE payload SET bytes = zeroblob(3000) WHERE sequence = 9"),
        "entry 9: expected the 3000 bytes",
    ),
    "bytes without a release": (
        lambda c: c.execute("INSERT INTO payload VALUES (8, zeroblob(3))"),
        "entry 8: expected a release",
    ),
    "no text": (
        lambda c: c.execute("UPDATE entry SET body = zeroblob(9) WHERE sequence = 3"),
        "entry 3: expected canonical JSON",
    ),
    "a newer format": (lambda c: c.execute("PRAGMA user_version = 2"), "expected format version 1, found 2"),
    "another application": (lambda c: c.execute("PRAGMA application_id = 7"), "expected a ledger of fedft"),
    "another table": (lambda c: c.execute("CREATE TABLE note (text)"), "expected the tables and triggers"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_changed_rows_are_refused_by_the_number_of_the_first_bad_entry(path: Path, edit: str) -> None:
    change, message = EDITS[edit]
    with without_triggers(path) as connection:
        change(connection)
        connection.commit()
    assert message in refused(path)


@pytest.mark.parametrize("trigger", ["entry_not_changed", "entry_not_deleted", "entry_in_order", "payload_not_changed"])
def test_a_missing_trigger_is_refused(path: Path, trigger: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"DROP TRIGGER {trigger}")
    assert "expected the tables and triggers" in refused(path)


def test_other_programs_cannot_change_entries_by_accident(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in (
            "UPDATE entry SET body = '{}'",
            "DELETE FROM entry WHERE sequence = 10",
            "INSERT INTO entry VALUES (20, '{}', '')",
            "INSERT OR REPLACE INTO entry VALUES (3, '{}', '')",
            "UPDATE payload SET bytes = x''",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(statement)


def test_a_change_under_the_writers_feet_is_found_before_anything_is_added(path: Path) -> None:
    with Ledger.open(path) as ledger:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM payload WHERE sequence = 9")
            connection.commit()
        with pytest.raises(LedgerCorrupt, match="another program changed"):
            intent(ledger, 9)


def test_a_ledger_whose_file_is_gone_is_not_begun_anew(path: Path) -> None:
    path.unlink()
    assert "entry 1: expected 10 entries as the head says, found no file" in refused(path)


def test_a_head_that_is_gone_or_another_ledgers_is_refused(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = files.head_path(path).read_bytes()
    files.head_path(path).unlink()
    assert "expected a head beside the 10 entries" in refused(path)
    other = tmp_path_factory.mktemp("other") / "ledger.sqlite"
    Ledger.open(other).close()
    shutil.copy(files.head_path(other), files.head_path(path))
    assert "entry 1: expected the entry that the head names" in refused(path)
    files.head_path(path).write_bytes(own)
    assert read_everything(path)


@pytest.mark.parametrize("content", [b"", b"not a ledger", b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_was(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "ledger.sqlite"
    place.write_bytes(content)
    files.lock_path(place).touch()
    refused(place)
