"""An institution's ledger against a run's audit log: each keeps what the other signed. docs/SPEC.md, "Audit log"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedft.audit.mismatch import Broken, signer
from fedft.audit.verify_log import LogStory
from fedft.errors import IdentityError, LedgerCorrupt, LedgerError, RecordError, StorageError
from fedft.identity.notes import open_note
from fedft.ledger.chain import Head
from fedft.ledger.entries import Entry
from fedft.ledger.files import head_path, read_head_file
from fedft.ledger.store import Ledger
from fedft.records.heads import LogHead
from fedft.records.log import LOG

UPDATE = "update"


@dataclass(frozen=True)
class _Opened:
    """A ledger that passed its own checks. shown: its path as it is told."""

    shown: str
    path: Path
    name: str
    entries: tuple[Entry, ...]
    head: Head


class LedgerCheck:
    """Checks ledgers against one log; a receipt that many keep is verified once."""

    def __init__(self, story: LogStory) -> None:
        self._story = story
        self._verified: dict[str, LogHead] = {}

    def check(self, path: Path, shown: str, name: str | None = None) -> tuple[str, list[str]]:
        """The institution whose ledger it is, and in words what is not covered. name: whose it must be.

        Raises Broken at the first entry that does not hold.
        """
        opened = self._open(path, shown, name)
        words = self._check_signature(opened)
        self._check_heads(opened)
        self._check_releases(opened)
        self._check_receipts(opened)
        return opened.name, words

    def _open(self, path: Path, shown: str, name: str | None) -> _Opened:
        try:
            with Ledger.open(path, read_only=True) as ledger:
                entries, head = ledger.entries(), ledger.head
        except (LedgerError, StorageError) as error:
            text = str(error).replace(f"{path.resolve()}: ", "").replace(str(path.resolve()), shown).split("; ")[0]
            place, _, rest = text.partition(": ") if text.startswith("entry ") else ("", "", text)
            expected, _, found = rest.removeprefix("expected ").partition(", found ")
            where = f"{shown}, {place}" if place else shown
            raise Broken(where, expected, found, self._signer(name)) from None
        owner = self._owner(head)
        if owner is None and name in self._story.keys and not self._story.heads.get(name or ""):
            owner = name  # it never answered, so the log has no head of it
        if owner is None or (name is not None and owner != name):
            whose = "an institution of this run" if name is None else name
            raise Broken(shown, f"the ledger of {whose}", "another ledger, whose heads the log does not have of it")
        return _Opened(shown, path, owner, entries, head)

    def _owner(self, head: Head) -> str | None:
        kept = self._story.heads
        return next((name for name in kept if kept[name][0][1].ledger == head.ledger), None)

    def _check_signature(self, opened: _Opened) -> list[str]:
        """Of the head's file. A ledger that went on to other runs may have one signed with another key."""
        name, key = opened.name, self._story.keys.get(opened.name)
        where = f"{opened.shown}{head_path(Path('x')).name[1:]}"
        if key is None:
            return [f"{where}: the roster has no key of {name} any more"]
        try:
            open_note(read_head_file(opened.path) or "", name, key)
        except (IdentityError, LedgerCorrupt):
            if any(entry.fields.get("run") not in (None, self._story.run) for entry in opened.entries):
                return [f"{where}: signed with a key that {name} did not have in this run"]
            raise Broken(where, f"a head signed by {name}", "another signature, or none", signer(name, key)) from None
        return []

    def _check_heads(self, opened: _Opened) -> None:
        """What the institution signed in each round is in its ledger."""
        said = self._story.left.get(opened.name)
        for sequence, head in (*self._story.heads.get(opened.name, ()), *(() if said is None else (said,))):
            there = len(opened.entries) >= head.count and opened.entries[head.count - 1].hash == head.hash
            if head.ledger != opened.head.ledger or not there:
                raise Broken(
                    f"{opened.shown}, entry {head.count}",
                    f"the entry with hash {head.hash[:16]} that entry {sequence} of {LOG} keeps a signed head of",
                    "another, or none: the ledger was rewritten, or an older copy was put back",
                    self._signer(opened.name),
                )

    def _check_releases(self, opened: _Opened) -> None:
        """Each update in the log is a release in the ledger, under an intent for the same plan, and after a receipt."""
        story, run = self._story, self._story.run
        plans: dict[int, Entry] = {}
        released: dict[int, tuple[Entry, int]] = {}
        told = 0
        for entry in opened.entries:
            if entry.fields.get("run") != run:
                continue
            if entry.kind == "receipt":
                told = LogHead.claimed(entry.fields["head"]).count
            elif entry.fields.get("purpose") == UPDATE:
                if entry.kind == "intent":
                    plans[entry.fields["round"]] = entry
                else:
                    released[entry.fields["round"]] = (entry, told)
        for place, facts in enumerate(story.rounds):
            number = story.base + place + 1
            if opened.name not in facts.released:
                continue
            where = f"{LOG}, entry {facts.sequence}"
            if number not in released:
                said = f"the release of round {number} that {where} names"
                raise Broken(opened.shown, said, "none", story.signer)
            release, told = released[number]
            shown = f"{opened.shown}, entry {release.sequence}"
            if release.fields["sha256"] != facts.released[opened.name]:
                said = f"bytes with SHA-256 {facts.released[opened.name][:16]}, as {where} says"
                raise Broken(shown, said, str(release.fields["sha256"])[:16], story.signer)
            intent = plans[number]
            if intent.fields["plan_digest"] != facts.plan:
                said = f"the plan {facts.plan[:16]}, as {where} says"
                found = str(intent.fields["plan_digest"])[:16]
                raise Broken(f"{opened.shown}, entry {intent.sequence}", said, found, story.signer)
            least = story.rounds[place - 1].sequence if place else 1
            if told < least:
                said = f"a receipt of {least} entries or more of {LOG} before it"
                raise Broken(shown, said, f"one of {told}" if told else "none", self._signer(opened.name))

    def _check_receipts(self, opened: _Opened) -> None:
        for entry in opened.entries:
            if entry.kind == "receipt" and entry.fields["run"] == self._story.run:
                where = f"{opened.shown}, entry {entry.sequence}"
                self._story.require_holds(self._head(entry.fields["head"], where), f"the receipt in {where}")

    def _head(self, note: str, where: str) -> LogHead:
        if note not in self._verified:
            try:
                self._verified[note] = LogHead.open(note, self._story.coordinator)
            except (IdentityError, RecordError):
                raise Broken(
                    where, "a head signed by the coordinator", "another signature", self._story.signer
                ) from None
        return self._verified[note]

    def _signer(self, name: str | None) -> str:
        key = self._story.keys.get(name or "")
        return "" if key is None or name is None else signer(name, key)
