"""The wire format of a model update: docs/SPEC.md, "Update envelope". Hostile vectors: tests/vectors/.

::

    magic "FEDFTUPD" (8) | header length, uint32 big-endian (4) | header, canonical JSON | body, safetensors

Guarantee: open_envelope allocates nothing in proportion to a size that the bytes claim, runs no parser on the body, and
either returns a float32 vector of exactly ``expected_size`` values or raises UpdateError.

The body's form is fixed by the number of values, so its head is compared with the only one allowed instead of parsed.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from fedft.errors import UpdateError
from fedft.types import AdapterVector, Digest, InstitutionId
from fedft.update.wire import (
    ENCODINGS,
    Encoding,
    Uniform,
    body_size,
    read_body,
    require_form,
    write_body,
)

UPDATE_LABEL = "fedft/v1/update"
MAGIC = b"FEDFTUPD"
MAX_HEADER_BYTES = 4096
MAX_ROUND = 2**31 - 1
_TENSOR = "delta"
_START = len(MAGIC) + 4
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PATTERNS = {
    "run": re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}"),
    "institution": re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"),
    "plan_digest": _DIGEST,
    "layout_digest": _DIGEST,
    "sha256": _DIGEST,
}
_KEYS = frozenset({"label", "round", "dtype", *_PATTERNS})


@dataclass(frozen=True)
class Header:
    """Which update this is. layout_digest: of the trained part; dtype: how its values travel; sha256: of the body."""

    run: str
    round: int
    institution: InstitutionId
    plan_digest: Digest
    layout_digest: Digest
    dtype: Encoding
    sha256: Digest = field(repr=False)


@dataclass(frozen=True, eq=False)
class Envelope:
    """An opened update. delta: float32, shape (d,), in the order of the trained part's layout."""

    run: str
    round: int
    institution: InstitutionId
    plan_digest: Digest
    layout_digest: Digest
    delta: AdapterVector = field(repr=False)


def seal(
    *,
    run: str,
    round: int,
    institution: str,
    plan_digest: str,
    layout_digest: str,
    delta: AdapterVector,
    encoding: Encoding = "float32",
    uniform: Uniform | None = None,
) -> bytes:
    """The one byte string for these fields. Raises UpdateError for a field outside the specification.

    encoding, uniform: how the values travel and are rounded (update/wire.py).

    Takes any float32 vector, NaN included: what may leave is decided in release.py.
    """
    if delta.dtype != np.float32 or delta.ndim != 1:
        raise UpdateError(f"expected a float32 vector, found {delta.dtype} of shape {delta.shape}: flatten it first")
    body = write_body(_TENSOR, delta, encoding, uniform)
    header = {
        "label": UPDATE_LABEL,
        "run": run,
        "round": round,
        "institution": institution,
        "plan_digest": plan_digest,
        "layout_digest": layout_digest,
        "dtype": encoding,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    _require_fields(header)
    encoded = _canonical(header)
    return MAGIC + struct.pack(">I", len(encoded)) + encoded + body


def open_header(data: bytes) -> Header:
    """The header alone, its form checked and the body unread. Raises UpdateError."""
    return _split(data)[0]


def open_envelope(data: bytes, *, expected_size: int) -> Envelope:
    """Check everything, cheapest first, then copy the values out.

    Parameters
    ----------
    expected_size : d, the number of values of the trained part's layout

    Raises
    ------
    UpdateError
        For any byte string that seal does not produce for d values.
    """
    header, start = _split(data)
    body = memoryview(data)[start:]
    require_form(body, _TENSOR, expected_size, header.dtype)
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise UpdateError("expected the body that the header's SHA-256 names, found another: send the update again")
    delta = read_body(body, _TENSOR, expected_size, header.dtype)
    known = {item.name: getattr(header, item.name) for item in fields(Header) if item.name not in ("dtype", "sha256")}
    return Envelope(**known, delta=delta)


def largest_envelope(size: int, encoding: Encoding = "float32") -> int:
    """No valid envelope of ``size`` values has more bytes: for plans, and for a transport's limit."""
    return _START + MAX_HEADER_BYTES + body_size(_TENSOR, size, encoding)


def require_identity(*, run: object, round: object, institution: object) -> None:
    """Raise UpdateError unless these can stand in a header: such strings are safe to log and to send."""
    if type(round) is not int or not 1 <= round <= MAX_ROUND:
        raise UpdateError(f"expected a round from 1 to {MAX_ROUND}, found something else: send the round's own number")
    _require_matches("run", run)
    _require_matches("institution", institution)


def _split(data: bytes) -> tuple[Header, int]:
    """The checked header and where the body starts."""
    if len(data) < _START or data[: len(MAGIC)] != MAGIC:
        raise UpdateError('expected an update starting with "FEDFTUPD", found other bytes: send a sealed update')
    (length,) = struct.unpack_from(">I", data, len(MAGIC))
    if length > MAX_HEADER_BYTES:
        raise UpdateError(f"expected a header of at most {MAX_HEADER_BYTES} bytes, found a claim of {length}: refused")
    if len(data) < _START + length:
        raise UpdateError(f"expected {_START + length} bytes of head, found {len(data)}: send the update again")
    raw = _parsed(data[_START : _START + length])
    _require_fields(raw)
    return Header(**{item.name: raw[item.name] for item in fields(Header)}), _START + length


def _parsed(encoded: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(encoded)
        canonical = isinstance(raw, dict) and _canonical(raw) == encoded
    except (ValueError, RecursionError):
        canonical = False
    if not canonical:
        # Without `from`: the parser's error quotes the bytes.
        raise UpdateError(
            "expected a header in canonical JSON, found something else: docs/SPEC.md defines it"
        ) from None
    return raw  # type: ignore[no-any-return]


def _require_fields(raw: dict[str, Any]) -> None:
    if raw.get("label") != UPDATE_LABEL:
        raise UpdateError(f'expected label "{UPDATE_LABEL}", found another or none: use the same version of fedft')
    if raw.keys() != _KEYS:
        raise UpdateError(f"expected exactly the header fields {sorted(_KEYS)}, found others: docs/SPEC.md lists them")
    if raw["dtype"] not in ENCODINGS:
        raise UpdateError(f"expected dtype {' or '.join(ENCODINGS)}, found another: use the same version of fedft")
    require_identity(run=raw["run"], round=raw["round"], institution=raw["institution"])
    for name in ("plan_digest", "layout_digest", "sha256"):
        _require_matches(name, raw[name])


def _require_matches(name: str, value: object) -> None:
    if not isinstance(value, str) or not _PATTERNS[name].fullmatch(value):
        raise UpdateError(f"expected {name} to match {_PATTERNS[name].pattern}, found something else: correct it")


def _canonical(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
