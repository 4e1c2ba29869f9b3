"""What everyone in a round must agree on before a mask is made: the list of keys, and the context of the round.

Guarantee: masks and shares are derived from the context's digest, so that members who were told another run, round,
model, cohort, list of keys, ring or threshold share no mask and open no package. docs/SPEC.md, "Setup", "Context".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedft.errors import ConfigError, IdentityError
from fedft.identity.documents import canonical
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.signed import HEAD_BYTES, open_signed, seal
from fedft.secagg.encoding import require_no_wrap
from fedft.secagg.graph import Graph, Shape, shape_for
from fedft.secagg.key_agreement import require_public

KEY_LABEL, KEYS_LABEL = "fedft/v1/secagg-key", "fedft/v1/secagg-keys"
CONTEXT_LABEL = "fedft/v1/secagg-context"
MAX_KEYS_BYTES, MAX_CONTEXT_BYTES = 4 * 2**20, 2**20
LARGEST_NUMBER = 2**31 - 1
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")

Identities = Mapping[str, PublicKey]
"""The identity key of each institution, from a roster that the reader has pinned."""


@dataclass(frozen=True)
class KeyList:
    """The X25519 key of every member of a run, by name. Raises IdentityError for a key of small order, or one twice."""

    run: str
    keys: Mapping[str, bytes]

    def __post_init__(self) -> None:
        require_run(self.run)
        for key in self.keys.values():
            require_public(key)
        if len(set(self.keys.values())) != len(self.keys):
            raise IdentityError("expected an X25519 key of its own for each member, found one twice: leave both out")

    @cached_property
    def digest(self) -> str:
        keys = {name: key.hex() for name, key in self.keys.items()}
        return hashlib.sha256(canonical({"keys": keys, "label": KEYS_LABEL, "run": self.run})).hexdigest()


def _key_payload(run: str, name: str, key: str) -> bytes:
    return canonical({"institution": name, "key": key, "label": KEY_LABEL, "run": run})


def write_key(run: str, name: str, public: bytes, identity: PrivateKey) -> bytes:
    """An institution's key for a run, sealed with its identity key."""
    return seal(KEY_LABEL, _key_payload(require_run(run), name, public.hex()), identity)


def gather_keys(run: str, messages: Mapping[str, bytes], identities: Identities) -> bytes:
    """The coordinator's list of the keys that members sent, by name. Raises IdentityError for another's."""
    keys: dict[str, dict[str, str]] = {}
    for name, message in messages.items():
        payload = open_signed(KEY_LABEL, message, identity_of(identities, name))
        fields = read_object(payload, MAX_KEYS_BYTES)
        key = fields.get("key")
        if not isinstance(key, str) or not _HEX.fullmatch(key) or payload != _key_payload(run, name, key):
            raise IdentityError(f'expected the key of "{name}" for this run, found another message: ask it again')
        keys[name] = {"key": key, "signature": message[HEAD_BYTES - 64 : HEAD_BYTES].hex()}
    return read_keys(canonical({"keys": keys, "label": KEYS_LABEL, "run": run}), run, identities)[1]


def read_keys(data: bytes, run: str, identities: Identities) -> tuple[KeyList, bytes]:
    """The list and its bytes. Raises IdentityError unless each key is signed by who the pinned roster says it is."""
    fields = read_object(data, MAX_KEYS_BYTES)
    entries = fields.get("keys")
    if set(fields) != {"keys", "label", "run"} or fields["label"] != KEYS_LABEL or not isinstance(entries, dict):
        raise _misshapen("a list of keys")
    if fields["run"] != run:
        raise IdentityError("expected the keys of this run, found those of another: ask for this one's")
    keys = {}
    for name, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"key", "signature"} or not all(map(_is_text, entry.values())):
            raise _misshapen("a list of keys")
        if not _HEX.fullmatch(entry["key"]) or not re.fullmatch(r"[0-9a-f]{128}", entry["signature"]):
            raise _misshapen("a list of keys")
        payload = _key_payload(run, name, entry["key"])
        identity_of(identities, name).verify(KEY_LABEL, payload, bytes.fromhex(entry["signature"]))
        keys[name] = bytes.fromhex(entry["key"])
    return KeyList(run, keys), data


@dataclass(frozen=True)
class RoundContext:
    """One round. ``limits``: the largest |encoded value| of each member; ``threshold`` as shape_for checks it.

    Raises ConfigError for what is out of bounds, and for limits with which the cohort's sum could wrap.
    """

    run: str
    round: int
    adapter_digest: str
    keys_digest: str
    limits: Mapping[str, int]
    size: int
    ring_bits: int
    fraction_bits: int
    threshold: int

    def __post_init__(self) -> None:
        require_run(self.run)
        numbers = (self.round, self.size, *self.limits.values())
        if not all(type(number) is int and 1 <= number <= LARGEST_NUMBER for number in numbers):
            raise _misshapen("round, size and limits from 1 to 2³¹-1 in a context")
        if type(self.fraction_bits) is not int or type(self.threshold) is not int:
            raise _misshapen("whole numbers in a context")
        if not all(_is_text(text) and _HEX.fullmatch(text) for text in (self.adapter_digest, self.keys_digest)):
            raise _misshapen("digests in a context")
        if not all(_is_text(name) and _NAME.fullmatch(name) for name in self.limits):
            raise _misshapen("names in a context")
        require_no_wrap(self.ring_bits, self.limits)
        shape_for(len(self.limits), self.threshold)

    @cached_property
    def cohort(self) -> tuple[str, ...]:
        return tuple(sorted(self.limits))

    @cached_property
    def shape(self) -> Shape:
        return shape_for(len(self.limits), self.threshold)

    @cached_property
    def graph(self) -> Graph:
        return Graph(self.shape, self.cohort, self.keys_digest, self.round)

    @cached_property
    def digest(self) -> bytes:
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "limits"}
        limits = [self.limits[name] for name in self.cohort]
        return canonical({**fields, "cohort": list(self.cohort), "label": CONTEXT_LABEL, "limits": limits})

    @classmethod
    def from_bytes(cls, data: bytes) -> RoundContext:
        """Raises ConfigError for anything that to_bytes does not write."""
        fields = read_object(data, MAX_CONTEXT_BYTES)
        cohort, limits = fields.pop("cohort", None), fields.pop("limits", None)
        if fields.pop("label", None) != CONTEXT_LABEL or not isinstance(cohort, list) or not isinstance(limits, list):
            raise _misshapen("a context")
        try:
            found = cls(limits=dict(zip(cohort, limits, strict=True)), **fields)
        except (TypeError, ValueError):
            raise _misshapen("a context") from None
        if found.to_bytes() != data:
            raise _misshapen("a context")
        return found


def require_run(run: str) -> str:
    if not isinstance(run, str) or not _RUN.fullmatch(run):
        raise ConfigError("expected a run's name of letters, digits and ._:/-, at most 128, found another: correct it")
    return run


def read_object(data: bytes | memoryview, limit: int) -> dict[str, Any]:
    """A JSON object in its canonical form. Raises ConfigError for any other bytes."""
    raw: Any = None
    if len(data) <= limit:
        try:
            raw = json.loads(bytes(data))
            whole = isinstance(raw, dict) and canonical(raw) == data
        except (ValueError, RecursionError):
            whole = False
        if whole:
            return dict(raw)
    raise _misshapen("canonical JSON")


def require_keys(names: Sequence[str], keys: KeyList) -> None:
    """Raise IdentityError unless every name has a key in the list."""
    if not set(names) <= set(keys.keys):
        raise IdentityError("expected a cohort whose keys are all in the run's list, found a stranger: set up again")


def identity_of(identities: Identities, name: str) -> PublicKey:
    """Raises IdentityError for a name that the roster does not have."""
    if name not in identities:
        raise IdentityError("expected members of the pinned roster, found a name it does not have: fetch the newest")
    return identities[name]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _misshapen(what: str) -> ConfigError:
    return ConfigError(f"expected {what} as docs/SPEC.md has it, found something else: write it anew")
