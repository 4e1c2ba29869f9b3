"""The ledger's entries: typed in memory, canonical JSON on disk. Form: docs/SPEC.md, "Privacy ledger".

Guarantee: parse_entry(body) returns an entry whose body is ``body``, or raises LedgerCorrupt; no two different byte
strings stand for the same entry.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

from fedft.errors import IdentityError, LedgerCorrupt, LedgerError, RecordError
from fedft.identity.withdrawal import Withdrawal
from fedft.privacy.events import PrivacyEvent, event_as_json, event_from_json
from fedft.records.heads import LogHead
from fedft.types import Digest

ENTRY_LABEL = "fedft/v1/ledger-entry"
MAX_INTEGER = 2**53 - 1
MAX_EVIDENCE = 64
SALT = "salt"
"""Among an intent's evidence: 128 random bits, 32 hexadecimal digits. Evidence holds digests of private rows."""
_MAX_EVIDENCE_CHARACTERS = 1024

Kind = Literal["start", "intent", "release", "refusal", "receipt", "withdrawal"]
Key = tuple[str, int, str]
"""Run, round and purpose: what names an intent and its release."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_DIGEST = r"[0-9a-f]{64}"
_PATTERNS = {
    "time_utc": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"),
    "previous": re.compile(_DIGEST),
    "ledger": re.compile(r"[0-9a-f]{32}"),
    "run": re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}"),
    "purpose": re.compile(r"[a-z][a-z0-9-]{0,63}"),
    "dataset": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
    "plan_digest": re.compile(_DIGEST),
    "sha256": re.compile(_DIGEST),
    "reason": re.compile(r"[a-z][a-z-]{0,31}"),
}
_LEAST = {"sequence": 1, "round": 0, "intent": 1, "bytes": 0}
_EVIDENCE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_COMMON = frozenset({"label", "kind", "sequence", "previous", "time_utc"})
_OWN: dict[Kind, frozenset[str]] = {
    "start": frozenset({"ledger"}),
    "intent": frozenset({"run", "round", "purpose", "dataset", "plan_digest", "event", "evidence"}),
    "release": frozenset({"run", "round", "purpose", "intent", "bytes", "sha256"}),
    "refusal": frozenset({"run", "round", "dataset", "reason"}),
    "receipt": frozenset({"run", "head"}),
    "withdrawal": frozenset({"statement"}),
}


@dataclass(frozen=True)
class Entry:
    """One line of the ledger. fields: those of its kind, without label, kind, sequence, previous and time_utc."""

    sequence: int
    time_utc: str
    kind: Kind
    fields: Mapping[str, Any] = field(hash=False)
    previous: Digest
    body: bytes = field(repr=False)

    @property
    def hash(self) -> Digest:
        return Digest(hashlib.sha256(self.body).hexdigest())


@dataclass(frozen=True)
class Intent:
    """A spend, synced before it is made. It counts whether or not a release follows."""

    run: str
    round: int
    purpose: str
    dataset: str
    plan_digest: str
    event: PrivacyEvent
    evidence: Mapping[str, str | int | float] = field(hash=False)
    sequence: int
    time_utc: str

    @property
    def key(self) -> Key:
        return self.run, self.round, self.purpose


@dataclass(frozen=True)
class Release:
    """What left under an intent: length and SHA-256 of its bytes. intent: the sequence number of the intent."""

    run: str
    round: int
    purpose: str
    intent: int
    bytes: int
    sha256: Digest
    sequence: int

    @property
    def key(self) -> Key:
        return self.run, self.round, self.purpose


def make_entry(kind: Kind, *, sequence: int, previous: Digest, time_utc: str, fields: Mapping[str, Any]) -> Entry:
    """Raises LedgerError for a field outside the specification."""
    own = {"sequence": sequence, "previous": previous, "time_utc": time_utc, **fields}
    _require_fields(kind, own)
    body = _canonical({"label": ENTRY_LABEL, "kind": kind, **own})
    return Entry(sequence, time_utc, kind, dict(fields), previous, body)


def parse_entry(body: bytes) -> Entry:
    """Inverse of Entry.body. Raises LedgerCorrupt for any other bytes."""
    try:
        raw = json.loads(body)
        canonical = isinstance(raw, dict) and _canonical(raw) == body
    except (ValueError, RecursionError, LedgerError):
        canonical = False
    if not canonical:
        raise LedgerCorrupt("expected canonical JSON, found something else") from None
    if raw.get("label") != ENTRY_LABEL or raw.get("kind") not in get_args(Kind):
        raise LedgerCorrupt(
            f"expected label {ENTRY_LABEL} and a kind among {', '.join(get_args(Kind))}, found others: "
            "a newer version of fedft wrote it, or it was altered"
        )
    kind: Kind = raw["kind"]
    own = {name: value for name, value in raw.items() if name not in ("label", "kind")}
    try:
        _require_fields(kind, own)
    except LedgerError as error:
        raise LedgerCorrupt(str(error)) from None
    fields = {name: value for name, value in own.items() if name not in _COMMON}
    return Entry(own["sequence"], own["time_utc"], kind, fields, Digest(own["previous"]), body)


def intent_fields(
    *,
    run: str,
    round: int,
    purpose: str,
    dataset: str,
    plan_digest: str,
    event: PrivacyEvent,
    evidence: Mapping[str, str | int | float],
) -> dict[str, Any]:
    """The fields of an intent's entry; numbers of other libraries become plain ones."""
    plain = json.loads(_canonical({"event": event_as_json(event), "evidence": dict(evidence)}))
    return {"run": run, "round": round, "purpose": purpose, "dataset": dataset, "plan_digest": plan_digest, **plain}


def as_intent(entry: Entry) -> Intent:
    fields = dict(entry.fields)
    event = _event_of(fields.pop("event"))
    evidence = {name: value for name, value in fields.pop("evidence").items() if name != SALT}
    return Intent(event=event, evidence=evidence, sequence=entry.sequence, time_utc=entry.time_utc, **fields)


def as_release(entry: Entry) -> Release:
    return Release(sequence=entry.sequence, **entry.fields)


def as_receipt(entry: Entry) -> LogHead:
    """The head that the coordinator of the entry's run had signed; by whose key is for others to check."""
    return LogHead.claimed(entry.fields["head"])


def as_withdrawal(entry: Entry) -> Withdrawal:
    """Raises IdentityError for one that is not of the specification's form; no entry holds such a one."""
    return Withdrawal.open(entry.fields["statement"])


def _canonical(fields: Mapping[str, Any]) -> bytes:
    try:
        text = _ENCODER.encode(fields)
    except (TypeError, ValueError):
        # Without `from`: the encoder's error can quote a value.
        raise LedgerError("expected text and finite numbers in an entry, found something else: correct it") from None
    return text.encode()


def _require_fields(kind: Kind, fields: Mapping[str, Any]) -> None:
    expected = (_COMMON - {"label", "kind"}) | _OWN[kind]
    if fields.keys() != expected:
        raise LedgerError(f"expected exactly the fields {sorted(expected)} in an entry of kind {kind}, found others")
    for name, value in fields.items():
        if name in _PATTERNS:
            _require_text(name, value)
        elif name in _LEAST:
            _require_integer(name, value)
        elif name == "event":
            _require_event(value)
        elif name == "head":
            _require_head(value, fields["run"])
        elif name == "statement":
            _require_statement(value)
        else:
            _require_evidence(value)


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not _PATTERNS[name].fullmatch(value):
        raise LedgerError(f"expected {name} to match {_PATTERNS[name].pattern}, found something else")


def _require_integer(name: str, value: object) -> None:
    if type(value) is not int or not _LEAST[name] <= value <= MAX_INTEGER:
        raise LedgerError(f"expected {name} to be a whole number from {_LEAST[name]}, found something else")


def _require_event(value: object) -> None:
    try:
        if isinstance(value, dict):
            _event_of(value)
            return
    except (LedgerCorrupt, TypeError):
        pass
    raise LedgerError("expected a known privacy event with values in range, found something else") from None


def _event_of(value: Mapping[str, Any]) -> PrivacyEvent:
    """Raises LedgerCorrupt for an event that is none, and TypeError for a field that is a list or an object."""
    return _event(tuple((name, type(item), item) for name, item in sorted(value.items())))


@lru_cache(maxsize=1024)
def _event(fields: tuple[tuple[str, type, Any], ...]) -> PrivacyEvent:
    """Most entries have one of a few events. Types are part of the key: 1 and 1.0 are equal, and two texts."""
    value = {name: item for name, _, item in fields}
    event = event_from_json(value)
    if event_as_json(event) != value:
        raise LedgerCorrupt("expected a privacy event as fedft writes it, found another form")
    return event


def _require_head(value: object, run: object) -> None:
    try:
        if isinstance(value, str) and LogHead.claimed(value).run == run:
            return
    except RecordError:
        pass
    raise LedgerError("expected the signed head of the run's log in a receipt, found something else")


def _require_statement(value: object) -> None:
    try:
        Withdrawal.open(value if isinstance(value, str) else "")
    except IdentityError as error:
        raise LedgerError(str(error)) from None


def _require_evidence(value: object) -> None:
    if not isinstance(value, dict) or len(value) > MAX_EVIDENCE:
        raise LedgerError(f"expected at most {MAX_EVIDENCE} pieces of evidence by name, found something else")
    for name, item in value.items():
        number = type(item) in (int, float) and math.isfinite(item) and abs(item) <= MAX_INTEGER
        text = isinstance(item, str) and len(item) <= _MAX_EVIDENCE_CHARACTERS
        if not _EVIDENCE_NAME.fullmatch(name) or not (number or text):
            raise LedgerError(
                f"expected evidence named {_EVIDENCE_NAME.pattern}, each a finite number or text of at most "
                f"{_MAX_EVIDENCE_CHARACTERS} characters, found something else"
            )
