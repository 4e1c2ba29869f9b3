"""The audit log of a run, checked entry by entry: chain, head, institutions' signatures. docs/SPEC.md, "Audit log".

Memory holds one entry at a time, and of each round its digests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedft.audit.mismatch import Broken, signer
from fedft.errors import ConfigError, IdentityError, RecordError
from fedft.identity.keys import PublicKey
from fedft.identity.withdrawal import Withdrawal
from fedft.ledger.attestation import Attestation, open_attestation
from fedft.ledger.chain import Head
from fedft.records.entries import LogEntry
from fedft.records.heads import LogHead
from fedft.records.lineage import PARENT, Parent
from fedft.records.log import HEAD, LOG, Chain, read_entries, read_head
from fedft.types import Digest


@dataclass(frozen=True)
class RoundFacts:
    """Of one round's entry, what other files are checked against. released: by institution, as its ledger names it."""

    sequence: int
    plan: str
    adapter: str
    checkpoint: str
    record: str
    released: dict[str, str]


@dataclass
class LogStory:
    """What a log that holds says.

    hashes: of its entries. keys: as they stand at its end. heads: of each ledger, with the number of the entry that
    keeps it. left: who withdrew, and how far its ledger had come then, likewise.
    parent: the run whose state this one goes on from.
    """

    start: dict[str, Any]
    coordinator: PublicKey
    note: str
    hashes: list[str] = field(default_factory=list)
    rounds: list[RoundFacts] = field(default_factory=list)
    keys: dict[str, PublicKey] = field(default_factory=dict)
    heads: dict[str, list[tuple[int, Head]]] = field(default_factory=dict)
    left: dict[str, tuple[int, Head]] = field(default_factory=dict)
    parent: Parent | None = None
    end: dict[str, Any] | None = None

    @property
    def run(self) -> str:
        return str(self.start["run"])

    @property
    def signer(self) -> str:
        return signer("coordinator", self.coordinator)

    @property
    def base(self) -> int:
        """The round before the first of the log."""
        return 0 if self.parent is None else self.parent.round

    @property
    def newest(self) -> int:
        return self.base + len(self.rounds)

    def require_holds(self, head: LogHead, where: str) -> None:
        """Raise Broken unless this log is the one of a head that its coordinator signed, or goes on from there."""
        if head.run != self.run:
            raise Broken(where, f"a head of run {self.run}", f"one of {head.run}")
        if head.count > len(self.hashes):
            found = f"a log of {len(self.hashes)}: it was cut off, or an older copy was put back"
            raise Broken(f"{LOG}, entry {head.count}", f"{head.count} entries, as {where} says", found, self.signer)
        mine = self.hashes[head.count - 1]
        if mine != head.hash:
            found = f"hash {mine[:16]}: the coordinator signed two histories"
            expected = f"hash {head.hash[:16]}, as {where} says"
            raise Broken(f"{LOG}, entry {head.count}", expected, found, self.signer)


def read_log(folder: Path) -> LogStory:
    """Raises Broken at the first entry that does not hold, and OSError."""
    note = _note(folder)
    if not (folder / LOG).is_file():
        raise Broken(LOG, "the coordinator's audit log", "no file")
    chain, last, story, head = Chain(), None, None, None
    try:
        for entry in read_entries(folder / LOG):
            _require_linked(chain, entry, last)
            chain.add(entry)
            if story is None:
                story = _begin(entry, note)
            else:
                head = head or _head(story)  # now that entry 2 has named the hash of entry 1, whose key is believed
                _require_counted(entry, head, story)
            _take(story, entry)
            last = entry
    except RecordError as error:
        text = str(error)
        place = text.split(":")[0] if text.startswith("entry ") else f"entry {chain.count + 1}"
        words = text.removeprefix(f"{place}: ")
        signed = "" if story is None else story.signer
        expected, _, found = words.removeprefix("expected ").partition(", found ")
        raise Broken(f"{LOG}, {place}", expected, found, signed) from None
    if story is None or last is None:
        raise Broken(f"{LOG}, entry 1", 'an entry of kind "start"', "an empty file")
    head = head or _head(story)
    _require_counted(last, head, story)
    if chain.count < head.count:
        expected = f"{head.count} entries, as {HEAD} says"
        raise Broken(f"{LOG}, entry {chain.count + 1}", expected, f"{chain.count}: it was cut off", story.signer)
    return story


def _note(folder: Path) -> str:
    try:
        note = read_head(folder)
    except RecordError:
        note = ""
    if note is None:
        raise Broken(HEAD, "the signed head of the log", "no file")
    try:
        LogHead.claimed(note)
    except RecordError:
        raise Broken(HEAD, "the signed head of the log", "something else") from None
    return note


def _begin(entry: LogEntry, note: str) -> LogStory:
    try:
        return LogStory(dict(entry.fields), PublicKey(entry.fields["coordinator"]), note)
    except ConfigError:
        raise Broken(f"{LOG}, entry 1", "a coordinator's public key", "one for which anyone can sign") from None


def _head(story: LogStory) -> LogHead:
    try:
        head = LogHead.open(story.note, story.coordinator)
    except (IdentityError, RecordError):
        raise Broken(HEAD, "the signature of the coordinator that entry 1 names", "another", story.signer) from None
    if head.run != story.run:
        raise Broken(HEAD, f"run {story.run}, as entry 1 says", f"run {head.run}", story.signer)
    return head


def _require_linked(chain: Chain, entry: LogEntry, last: LogEntry | None) -> None:
    """Name the entry that was altered, not the one after it."""
    if last is not None and entry.sequence == last.sequence + 1 and entry.previous != last.hash:
        raise Broken(
            f"{LOG}, entry {last.sequence}",
            f"hash {entry.previous[:16]}, which entry {entry.sequence} names",
            f"hash {last.hash[:16]}: one of the two was altered",
            "the coordinator",
        )


def _require_counted(entry: LogEntry, head: LogHead, story: LogStory) -> None:
    if entry.sequence > head.count:
        found = "one more: it is being written, or was added without a signature"
        raise Broken(f"{LOG}, entry {entry.sequence}", f"{head.count} entries, as {HEAD} says", found, story.signer)
    if entry.sequence == head.count and entry.hash != head.hash:
        expected = f"hash {head.hash[:16]}, which {HEAD} names"
        raise Broken(f"{LOG}, entry {entry.sequence}", expected, f"hash {entry.hash[:16]}", story.signer)


def _take(story: LogStory, entry: LogEntry) -> None:
    fields, where = entry.fields, f"{LOG}, entry {entry.sequence}"
    story.hashes.append(entry.hash)
    if entry.kind == "roster":
        try:
            story.keys = {name: PublicKey(text) for name, text in fields["keys"].items()}
        except ConfigError:
            raise Broken(where, "public keys", "one for which anyone can sign", story.signer) from None
    elif entry.kind == "parent":
        story.parent = Parent.of_config({PARENT: fields})
    elif entry.kind == "withdrawal":
        told = Withdrawal.open(fields["statement"])
        story.left[told.name] = (entry.sequence, Head(told.ledger, told.entries, Digest(told.head)))
    elif entry.kind == "round":
        _take_round(story, entry, where)
    elif entry.kind == "end":
        if fields["rounds"] != story.newest:
            raise Broken(where, f"{story.newest} rounds", f"{fields['rounds']}", story.signer)
        for name, note in fields["heads"].items():
            _keep(story, entry.sequence, name, _attestation(story, name, note, where, round=0))
        story.end = dict(fields)


def _take_round(story: LogStory, entry: LogEntry, where: str) -> None:
    fields = entry.fields
    updates, heads, number = fields["updates"], fields["heads"], fields["round"]
    for name in (*updates, *fields["refused"], *fields["missing"]):
        if name not in fields["cohort"]:
            raise Broken(where, "institutions of the round's cohort", f"{name} beside them", story.signer)
    for name, note in heads.items():
        attestation = _attestation(story, name, note, where, round=number)
        if name in updates and attestation.sha256 != updates[name]["sha256"]:
            raise Broken(
                where,
                f"the update of {name} with digest {attestation.sha256[:16]}",
                f"digest {updates[name]['sha256'][:16]}",
                signer(name, story.keys[name]),
            )
        _keep(story, entry.sequence, name, attestation)
    unsigned = sorted(updates.keys() - heads.keys())
    if unsigned:
        raise Broken(where, f"what {unsigned[0]} signed beside its update", "nothing", story.signer)
    released = {name: update["released"] for name, update in updates.items()}
    story.rounds.append(
        RoundFacts(entry.sequence, fields["plan"], fields["adapter"], fields["checkpoint"], fields["record"], released)
    )


def _attestation(story: LogStory, name: str, note: str, where: str, *, round: int) -> Attestation:
    key = story.keys.get(name)
    if key is None:
        raise Broken(where, "signatures of keys in the roster", f"one of {name}, which it does not have", story.signer)
    try:
        found = open_attestation(note, name, key)
    except IdentityError:
        raise Broken(where, f"a head signed by {name}", "a note that its key did not sign", signer(name, key)) from None
    if (found.run, found.round) != (story.run, round):
        said = f"one of round {found.round} of {found.run}"
        raise Broken(where, f"a head that {name} signed for round {round} of this run", said, signer(name, key))
    return found


def _keep(story: LogStory, sequence: int, name: str, attestation: Attestation) -> None:
    """A ledger's heads go on from one another."""
    kept, head = story.heads.setdefault(name, []), attestation.head
    if kept:
        number, before = kept[-1]
        same = head.count == before.count and head.hash == before.hash
        if head.ledger != before.ledger or (head.count <= before.count and not same):
            raise Broken(
                f"{LOG}, entry {sequence}",
                f"a ledger of {name} that goes on from the {before.count} entries in entry {number}",
                f"a head of {head.count} entries: {name} signed two histories, or went back",
                signer(name, story.keys[name]),
            )
    kept.append((sequence, head))
