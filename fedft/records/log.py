"""The coordinator's audit log in a run's folder: appended to, synced, under a signed head. Form: docs/SPEC.md.

Guarantees:
- When append returns, the entry and the head that counts it are on disk, synced.
- After kill -9 at any moment open finds every entry that append returned for; what the head does not count is cut off,
  and was never told to anyone.
- open raises for a log whose chain or head does not hold, and for another run's or another key's; nothing is repaired.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedft.durable import sync, write_whole
from fedft.errors import FederationError, RecordError, StorageError
from fedft.identity.keys import PrivateKey
from fedft.identity.notes import MAX_NOTE
from fedft.identity.withdrawal import Withdrawal
from fedft.records.entries import BEFORE_THE_FIRST, MAX_ENTRY, Kind, LogEntry, make_entry, parse_entry
from fedft.records.heads import LogHead
from fedft.records.lineage import is_summed

LOG = "audit.jsonl"
HEAD = "audit.head"


class Chain:
    """Checks one entry after the other for its place. Holds the last one, and who belongs, has left, or is left out.

    round: the newest. base: the round of another run's state that the first one follows. contributed: by institution,
    the newest round whose sum has an update of it.
    """

    def __init__(self) -> None:
        self.last: LogEntry | None = None
        self.round = self.base = 0
        self.contributed: dict[str, int] = {}
        self._coordinator = ""
        self._keys: Mapping[str, str] = {}
        self._left: set[str] = set()
        self._without: frozenset[str] = frozenset()

    @property
    def count(self) -> int:
        return 0 if self.last is None else self.last.sequence

    @property
    def hash(self) -> str:
        return BEFORE_THE_FIRST if self.last is None else self.last.hash

    def add(self, entry: LogEntry) -> None:
        """Raises RecordError unless ``entry`` follows."""
        self.require_follows(entry)
        self.round += entry.kind == "round"
        self.last = entry
        if entry.kind == "start":
            self._coordinator = entry.fields["coordinator"]
        elif entry.kind == "parent":
            self.round = self.base = entry.fields["round"]
            self._without = frozenset(entry.fields["without"])
            self.contributed = {name: rounds[-1] for name, rounds in entry.fields["contributed"].items()}
        elif entry.kind == "roster":
            self._keys = entry.fields["keys"]
        elif entry.kind == "withdrawal":
            self._left.add(self._keys[entry.fields["institution"]])
        elif entry.kind == "round" and is_summed(entry.fields):
            self.contributed |= dict.fromkeys(entry.fields["updates"], self.round)

    def is_news(self, left: Withdrawal) -> bool:
        """Whether it is of one who belongs, as its key says, to this coordinator's federation, and has not left yet."""
        member = self._keys.get(left.name) == left.key and left.coordinator == self._coordinator
        return member and left.key not in self._left

    def require_follows(self, entry: LogEntry) -> None:
        """Raise RecordError unless ``entry`` is the next."""
        if entry.sequence != self.count + 1:
            raise RecordError(f"expected sequence number {self.count + 1}, found {entry.sequence}")
        if entry.previous != self.hash:
            raise RecordError(
                f"expected it to follow the entry with hash {self.hash[:16]}, found that it names {entry.previous[:16]}"
            )
        if (entry.kind == "start") != (self.last is None):
            raise RecordError('expected kind "start" for the first entry and no other, found it otherwise')
        if self.last is not None and self.last.kind == "end":
            raise RecordError('expected nothing after the entry of kind "end", found one more')
        if entry.kind == "parent":
            self._require_parent(entry)
        elif entry.kind == "round":
            self._require_round(entry)
        elif entry.kind == "withdrawal":
            self._require_withdrawal(entry)

    def _require_round(self, entry: LogEntry) -> None:
        if entry.fields["round"] != self.round + 1:
            raise RecordError(f"expected round {self.round + 1}, found round {entry.fields['round']}")
        updates = entry.fields["updates"]
        gone = [name for name in updates if self._keys.get(name) in self._left or name in self._without]
        if gone:
            raise RecordError(f"expected no update of one who has left or is left out, found one of {gone[0]}")

    def _require_parent(self, entry: LogEntry) -> None:
        if self.count != 1:
            raise RecordError("expected the entry of another run's state right after the first, found it elsewhere")
        without, contributed = entry.fields["without"], entry.fields["contributed"]
        newest = entry.fields["round"]
        if not without or contributed.keys() & set(without):
            raise RecordError("expected a state without any update of those who are left out, found one with")
        if any(rounds != sorted(set(rounds)) or not rounds or rounds[-1] > newest for rounds in contributed.values()):
            raise RecordError(f"expected rounds up to {newest} in their order, found others")

    def _require_withdrawal(self, entry: LogEntry) -> None:
        left, fields = Withdrawal.open(entry.fields["statement"]), entry.fields
        if not self.is_news(left) or left.name != fields["institution"]:
            raise RecordError(f"expected the first withdrawal of a member, {fields['institution']}, found another's")
        newest = self.contributed.get(left.name, 0)
        if fields["last_round"] != newest:
            raise RecordError(
                f"expected round {newest} as the last with an update of {left.name}, found {fields['last_round']}"
            )


class AuditLog:
    """The log of one run, open to append. Use AuditLog.open. last: the newest entry of each kind."""

    def __init__(self, folder: Path, run: str, key: PrivateKey) -> None:
        self.folder, self.run, self._key = folder, run, key
        self._chain = Chain()
        self.last: dict[Kind, LogEntry] = {}
        self.note = ""

    @classmethod
    def open(cls, folder: Path, *, run: str, key: PrivateKey) -> AuditLog:
        """The log as its head counts it; empty where the run has none yet.

        Raises
        ------
        RecordError, IdentityError
            The chain or the head does not hold, or another key signed it.
        FederationError
            It is another run's.
        StorageError
            It cannot be read or written.
        """
        log = cls(folder, run, key)
        try:
            log._load()
        except OSError as error:
            raise _storage(folder, error) from error
        return log

    @property
    def count(self) -> int:
        return self._chain.count

    @property
    def rounds(self) -> int:
        """The newest in it, or of the state that it begins with."""
        return self._chain.round

    def append_withdrawal(self, statement: str) -> None:
        """Note who has left, once, and the last round with its update; of a stranger nothing. Raises as ``append``."""
        left = Withdrawal.open(statement)
        if self._chain.is_news(left):
            newest = self._chain.contributed.get(left.name, 0)
            fields = {"institution": left.name, "last_round": newest, "statement": statement}
            self.append("withdrawal", fields)

    @property
    def ended(self) -> bool:
        return "end" in self.last

    def append(self, kind: Kind, fields: Mapping[str, Any], *, time_utc: str | None = None) -> LogEntry:
        """Durable when it returns. Raises StorageError, RecordError: nothing was appended that counts."""
        entry = make_entry(
            kind,
            sequence=self.count + 1,
            previous=BEFORE_THE_FIRST if self._chain.last is None else self._chain.last.hash,
            time_utc=time_utc or now(),
            fields=fields,
        )
        self._chain.require_follows(entry)
        head = LogHead(self.run, entry.sequence, entry.hash)
        note = head.signed(self._key)
        try:
            self._cut_to_what_counts()
            with (self.folder / LOG).open("ab") as file:
                file.write(entry.body + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if entry.sequence == 1:
                sync(self.folder)
            write_whole(self.folder / HEAD, note.encode())
        except OSError as error:
            raise _storage(self.folder, error) from error
        self._chain.add(entry)
        self.last[kind], self.note, self._bytes = entry, note, self._bytes + len(entry.body) + 1
        return entry

    _bytes = 0

    def _load(self) -> None:
        note = read_head(self.folder)
        if note is None:
            self._require_none_told()
            return
        head = LogHead.open(note, self._key.public)
        if head.run != self.run:
            raise FederationError(f"expected the log of run {self.run}, found another's: choose its own folder")
        for entry in read_entries(self.folder / LOG):
            self._chain.add(entry)
            self.last[entry.kind] = entry
            self._bytes += len(entry.body) + 1
            if entry.sequence == head.count:
                break
        if (self.count, self._chain.hash) != (head.count, head.hash):
            raise RecordError(
                f"expected {head.count} entries in {LOG} as its head says, found another history of {self.count}: "
                "restore the run's folder"
            )
        self.note = note

    def _require_none_told(self) -> None:
        """Without a head at most the first entry was being written."""
        if (self.folder / LOG).exists() and (self.folder / LOG).read_bytes().count(b"\n") > 1:
            raise RecordError(f"expected {HEAD} beside {LOG}, found none: restore the run's folder")

    def _cut_to_what_counts(self) -> None:
        path = self.folder / LOG
        if path.exists() and path.stat().st_size != self._bytes:
            os.truncate(path, self._bytes)


def read_head(folder: Path) -> str | None:
    """The text of the head's file, not verified; None where there is none. Raises RecordError for what is no text."""
    try:
        with (folder / HEAD).open("rb") as file:
            return file.read(MAX_NOTE + 1).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise RecordError(f"expected a signed head in {HEAD}, found something else: restore it") from None


def read_entries(path: Path) -> Iterator[LogEntry]:
    """One after the other, in bounded memory, each in its form; their order is for Chain.

    Raises RecordError, which names the entry, and OSError.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_ENTRY + 2):
            number += 1
            if not line.endswith(b"\n"):
                raise RecordError(f"entry {number}: expected a whole line, found it cut off or too long")
            try:
                yield parse_entry(line[:-1])
            except RecordError as error:
                raise RecordError(f"entry {number}: {error}") from None


def has_ended(folder: Path) -> bool:
    """Whether the log under its head has its last entry. Verifies nothing. Raises RecordError for a damaged log."""
    note = read_head(folder)
    if note is None or not (folder / LOG).exists():
        return False
    count = LogHead.claimed(note).count
    return any(entry.sequence == count and entry.kind == "end" for entry in read_entries(folder / LOG))


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _storage(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"expected to read and write the audit log in {folder}, found {error.strerror}: make room or correct the "
        "folder's permissions; what was finished before is intact"
    )
