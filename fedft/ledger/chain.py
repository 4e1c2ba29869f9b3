"""The ledger's history: entries that follow one another, and what they say together. Knows no file.

Guarantee: add takes only the one entry that follows: its number is the next, it names the hash of the last, an intent
is new, a release belongs to an intent that has none yet, a receipt counts more than the run's last, a withdrawal is of
this ledger. Anything else is LedgerCorrupt and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedft.errors import IdentityError, LedgerCorrupt
from fedft.identity.keys import PrivateKey
from fedft.identity.notes import claimed, sign_note
from fedft.identity.withdrawal import Withdrawal
from fedft.ledger.entries import (
    Entry,
    Intent,
    Key,
    Kind,
    Release,
    as_intent,
    as_receipt,
    as_release,
    as_withdrawal,
    make_entry,
)
from fedft.privacy.events import PrivacyEvent
from fedft.records.heads import LogHead
from fedft.types import Digest

HEAD_LABEL = "fedft/v1/ledger-head"
BEFORE_THE_FIRST = Digest("0" * 64)
"""What the first entry names as the previous hash."""
KEPT_ROUNDS = 2
KEPT_RUNS = 8
"""The bytes of the newest KEPT_ROUNDS rounds of the newest KEPT_RUNS runs stay in the ledger; digests stay for ever."""


@dataclass(frozen=True)
class Head:
    """How far a ledger has come: its id, the number of its entries, the hash of the last."""

    ledger: str
    count: int
    hash: Digest

    def as_text(self) -> str:
        return f"{HEAD_LABEL}\n{self.ledger}\n{self.count}\n{self.hash}\n"

    @classmethod
    def from_text(cls, text: str) -> Head:
        """Inverse of as_text. Raises LedgerCorrupt for any other text."""
        lines = text.split("\n")
        if len(lines) == 5 and lines[2].isascii() and lines[2].isdigit() and len(lines[2]) < 17:
            head = cls(lines[1], int(lines[2]), Digest(lines[3]))
            if head.as_text() == text:
                return head
        raise LedgerCorrupt(f"expected a head of {HEAD_LABEL}, found something else")

    @classmethod
    def from_file(cls, content: str) -> Head:
        """Of a signed note or the text alone; whose signature it is, is not checked. Raises LedgerCorrupt."""
        try:
            return cls.from_text(claimed(content)[0] if "\n\n" in content else content)
        except IdentityError:
            raise LedgerCorrupt(f"expected a head of {HEAD_LABEL}, found something else") from None


@dataclass(frozen=True)
class Signer:
    """Who signs a ledger's heads: its institution."""

    name: str
    key: PrivateKey

    def signed(self, text: str) -> str:
        return sign_note(text, self.name, self.key)


class Chain:
    """Entries from the first to the last, and indexes over them."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._intents: dict[Key, Intent] = {}
        self._releases: dict[Key, Release] = {}
        self._refusals: set[tuple[Any, ...]] = set()
        self._receipts: dict[str, list[LogHead]] = {}
        self._withdrawals: dict[tuple[str, str], Withdrawal] = {}

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    @property
    def count(self) -> int:
        return len(self._entries)

    @property
    def head(self) -> Head:
        first, last = self._entries[0], self._entries[-1]
        return Head(first.fields["ledger"], last.sequence, last.hash)

    def make(self, kind: Kind, time_utc: str, fields: Mapping[str, Any]) -> Entry:
        """The entry that would follow; add it when it is stored."""
        return make_entry(kind, sequence=self.count + 1, previous=self._last_hash(), time_utc=time_utc, fields=fields)

    def add(self, entry: Entry) -> None:
        """Raises LedgerCorrupt unless ``entry`` follows."""
        self._require_place(entry)
        if entry.kind == "intent":
            self._add_intent(as_intent(entry))
        elif entry.kind == "release":
            self._add_release(as_release(entry))
        elif entry.kind == "refusal":
            self._refusals.add(_refusal(entry.fields))
        elif entry.kind == "receipt":
            self._add_receipt(as_receipt(entry))
        elif entry.kind == "withdrawal":
            self._add_withdrawal(as_withdrawal(entry))
        self._entries.append(entry)

    def intent(self, key: Key) -> Intent | None:
        return self._intents.get(key)

    def release(self, key: Key) -> Release | None:
        return self._releases.get(key)

    def releases(self) -> dict[int, Release]:
        """By the sequence number of their entries."""
        return {release.sequence: release for release in self._releases.values()}

    def is_refused(self, fields: Mapping[str, Any]) -> bool:
        return _refusal(fields) in self._refusals

    def receipts(self, run: str) -> tuple[LogHead, ...]:
        """Heads of the run's log that were kept, in their order."""
        return tuple(self._receipts.get(run, ()))

    def withdrawal(self, federation: str, key: str) -> Withdrawal | None:
        """From a federation, of the institution with this public key."""
        return self._withdrawals.get((federation, key))

    def events(self, dataset: str) -> tuple[PrivacyEvent, ...]:
        return tuple(intent.event for intent in self._intents.values() if intent.dataset == dataset)

    def datasets(self) -> tuple[str, ...]:
        return tuple(sorted({intent.dataset for intent in self._intents.values()}))

    def last_round(self, run: str) -> int:
        return max((intent.round for intent in self._intents.values() if intent.run == run), default=0)

    def kept_releases(self) -> frozenset[int]:
        """Sequence numbers of the releases whose bytes must be there: newest by when they were recorded."""
        rounds: dict[str, set[int]] = {}
        kept = set()
        for release in reversed(self._releases.values()):
            if release.run not in rounds and len(rounds) == KEPT_RUNS:
                continue
            seen = rounds.setdefault(release.run, set())
            if release.round in seen or len(seen) < KEPT_ROUNDS:
                seen.add(release.round)
                kept.add(release.sequence)
        return frozenset(kept)

    def require_holds(self, head: Head) -> None:
        """Raise LedgerCorrupt unless this history is the one of ``head``, or goes on from there."""
        if self.count < head.count:
            raise LedgerCorrupt(
                f"entry {self.count + 1}: expected {head.count} entries as the head says, found {self.count}"
            )
        found = self._entries[head.count - 1] if head.count else None
        if found is None or found.hash != head.hash or self.head.ledger != head.ledger:
            raise LedgerCorrupt(f"entry {head.count}: expected the entry that the head names, found another")

    def _last_hash(self) -> Digest:
        return self._entries[-1].hash if self._entries else BEFORE_THE_FIRST

    def _require_place(self, entry: Entry) -> None:
        if entry.sequence != self.count + 1:
            raise LedgerCorrupt(f"expected sequence number {self.count + 1}, found {entry.sequence}")
        if entry.previous != self._last_hash():
            raise LedgerCorrupt(
                f"expected {self._last_hash()[:12]} as the hash of the entry before, found {entry.previous[:12]}"
            )
        if (entry.kind == "start") != (entry.sequence == 1):
            raise LedgerCorrupt('expected kind "start" for the first entry and no other, found it otherwise')

    def _add_intent(self, intent: Intent) -> None:
        if intent.key in self._intents:
            raise LedgerCorrupt("expected one intent for a run, round and purpose, found a second")
        self._intents[intent.key] = intent

    def _add_release(self, release: Release) -> None:
        intent = self._intents.get(release.key)
        if intent is None or intent.sequence != release.intent:
            raise LedgerCorrupt("expected a release of an intent recorded before, found none such")
        if release.key in self._releases:
            raise LedgerCorrupt("expected one release of an intent, found a second")
        self._releases[release.key] = release

    def _add_receipt(self, head: LogHead) -> None:
        kept = self._receipts.setdefault(head.run, [])
        if kept and head.count <= kept[-1].count:
            raise LedgerCorrupt(f"expected a receipt of more than {kept[-1].count} entries, found one of {head.count}")
        kept.append(head)

    def _add_withdrawal(self, withdrawal: Withdrawal) -> None:
        named = (withdrawal.federation, withdrawal.key)
        if named in self._withdrawals:
            raise LedgerCorrupt("expected one withdrawal from a federation under a key, found a second")
        self.require_holds(Head(withdrawal.ledger, withdrawal.entries, Digest(withdrawal.head)))
        self._withdrawals[named] = withdrawal


def _refusal(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    return fields["run"], fields["round"], fields["dataset"], fields["reason"]
