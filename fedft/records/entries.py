"""The entries of a coordinator's audit log, canonical JSON. Form: docs/SPEC.md, "Audit log".

Guarantee: parse_entry(body) returns an entry whose body is ``body``, or raises RecordError; no two different byte
strings stand for the same entry.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fedft.errors import IdentityError, RecordError
from fedft.identity.documents import canonical
from fedft.identity.withdrawal import Withdrawal
from fedft.types import Digest

ENTRY_LABEL = "fedft/v1/audit-entry"
BEFORE_THE_FIRST = Digest("0" * 64)
MAX_ENTRY = 16 * 2**20
"""Bytes of an entry."""
MAX_INTEGER = 2**53 - 1

Kind = Literal["start", "parent", "roster", "withdrawal", "round", "end"]
Check = Callable[[Any], bool]

_COMMON = frozenset({"label", "kind", "sequence", "previous", "time_utc"})


@dataclass(frozen=True)
class LogEntry:
    """One line of the log. fields: those of its kind. hash: of ``body``."""

    sequence: int
    time_utc: str
    kind: Kind
    fields: Mapping[str, Any] = field(hash=False)
    previous: Digest
    body: bytes = field(repr=False)
    hash: Digest


def make_entry(kind: Kind, *, sequence: int, previous: Digest, time_utc: str, fields: Mapping[str, Any]) -> LogEntry:
    """Raises RecordError for a field outside the specification."""
    body = canonical(
        {
            "label": ENTRY_LABEL,
            "kind": kind,
            "sequence": sequence,
            "previous": previous,
            "time_utc": time_utc,
            **fields,
        }
    )
    return parse_entry(body)


def parse_entry(body: bytes) -> LogEntry:
    """Inverse of LogEntry.body. Raises RecordError for any other bytes."""
    raw = _object(body)
    if raw.get("label") != ENTRY_LABEL or raw.get("kind") not in get_args(Kind):
        raise RecordError(
            f"expected label {ENTRY_LABEL} and a kind among {', '.join(get_args(Kind))}, found others: a newer version "
            "of fedft wrote it, or it was altered"
        )
    kind: Kind = raw["kind"]
    fields = {name: value for name, value in raw.items() if name not in _COMMON}
    checks = _KINDS[kind]
    if raw.keys() != _COMMON | checks.keys():
        raise RecordError(f"expected exactly the fields of an entry of kind {kind}, found others: it was altered")
    for name, value in raw.items():
        check = checks.get(name) or _ALWAYS.get(name)
        if check is not None and not check(value):
            raise RecordError(f"expected {name} of an entry of kind {kind} as docs/SPEC.md has it, found another value")
    digest = Digest(hashlib.sha256(body).hexdigest())
    return LogEntry(raw["sequence"], raw["time_utc"], kind, fields, Digest(raw["previous"]), body, digest)


def _object(body: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(body) if len(body) <= MAX_ENTRY else None
        if isinstance(raw, dict) and canonical(raw) == body:
            return raw
    except (ValueError, RecursionError):
        pass
    raise RecordError("expected an entry in canonical JSON, found something else: it was altered or cut")


def _text(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _number(least: int) -> Check:
    return lambda value: type(value) is int and least <= value <= MAX_INTEGER


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_statement(value: Any) -> bool:
    try:
        return isinstance(value, str) and Withdrawal.open(value) is not None
    except IdentityError:
        return False


def _map(key: Check, item: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(key(k) and item(v) for k, v in value.items())


def _list(item: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(item, value))


def _table(**checks: Check) -> Check:
    return lambda value: (
        isinstance(value, dict) and value.keys() == checks.keys() and all(checks[k](v) for k, v in value.items())
    )


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


_RUN = _text(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_DIGEST = _text(r"[0-9a-f]{64}")
_NAME = _text(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KEY = _text(r"ed25519:[0-9a-f]{64}")
_WORD = _text(r"[a-z][a-z-]{0,31}")
_VERSION = _text(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,63}")
_NOTE = _text(r"(?s).{1,1024}")
_PATH = _text(r"[^/\x00]+(?:/[^/\x00]+)*")
_NAMES = _list(_NAME)
_FILE = _table(bytes=_number(0), sha256=_DIGEST)
_MASKING = _table(
    context=_DIGEST,
    cohort=_NAMES,
    threshold=_number(1),
    ring_bits=_number(1),
    fraction_bits=lambda value: type(value) is int and abs(value) <= MAX_INTEGER,
    uploaded=_NAMES,
    dropped=_NAMES,
    silent=_NAMES,
    lied=_NAMES,
    abandoned=_maybe(_WORD),
)
_ALWAYS: dict[str, Check] = {
    "sequence": _number(1),
    "previous": _DIGEST,
    "time_utc": _text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"),
}
_KINDS: dict[Kind, dict[str, Check]] = {
    "start": {
        "run": _RUN,
        "coordinator": _KEY,
        "version": _VERSION,
        **dict.fromkeys(("code", "packages", "config", "terms", "base_model", "layout"), _DIGEST),
    },
    "parent": {
        "run": _RUN,
        "round": _number(0),
        "without": _NAMES,
        "contributed": _map(_NAME, _list(_number(1))),
        "checkpoint": _text(r"(?:[0-9a-f]{64})?"),
        "head": _text(r"(?s).{0,1024}"),
    },
    "roster": {"keys": _map(_NAME, _KEY), "sha256": _text(r"(?:[0-9a-f]{64})?")},
    "withdrawal": {"institution": _NAME, "last_round": _number(0), "statement": _is_statement},
    "round": {
        "round": _number(1),
        "cohort": _NAMES,
        "updates": _map(_NAME, _table(bytes=_number(0), sha256=_DIGEST, released=_DIGEST)),
        "refused": _map(_NAME, _WORD),
        "missing": _NAMES,
        "heads": _map(_NAME, _NOTE),
        "masking": _maybe(_MASKING),
        "quorum": _is_flag,
        "aggregation": _text(r"[a-z][a-z0-9_-]{0,63}"),
        "version": _VERSION,
        **dict.fromkeys(("plan", "code", "adapter", "checkpoint", "record"), _DIGEST),
    },
    "end": {
        "rounds": _number(0),
        "best_round": _number(0),
        "heads": _map(_NAME, _NOTE),
        "files": _map(_PATH, _FILE),
    },
}
