"""JSON documents that carry their signatures: the roster, a request to join. Form: docs/SPEC.md.

::

    {"signatures":{"ed25519:...":"<128 hexadecimal characters>"},"signed":{...}}

Guarantee: read_document returns what was signed only if every signature in the file verifies under the label, and each
document has one form of bytes: a reader encodes what it parsed and compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fedft.errors import ConfigError, IdentityError
from fedft.identity.keys import PrivateKey, PublicKey

MAX_DOCUMENT_BYTES = 4 * 2**20
MAX_SIGNATURES = 4
_SIGNATURE = re.compile(r"[0-9a-f]{128}")

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(fields: Mapping[str, Any]) -> bytes:
    """Keys sorted, no white space, ASCII: the one form of bytes of a JSON object."""
    return _ENCODER.encode(fields).encode()


def write_document(label: str, fields: Mapping[str, Any], keys: Iterable[PrivateKey]) -> bytes:
    """The document's file: ``fields`` and the signature of each key over their canonical JSON."""
    signed = {**fields, "label": label}
    payload = canonical(signed)
    signatures = {key.public.text: key.sign(label, payload).hex() for key in keys}
    return canonical({"signatures": signatures, "signed": signed}) + b"\n"


def read_document(label: str, data: bytes) -> tuple[dict[str, Any], frozenset[PublicKey]]:
    """What was signed, without its label, and who signed it. Raises IdentityError unless every signature verifies.

    Whether a signer is one to trust is for the caller to say.
    """
    raw = _parsed(data)
    if set(raw) != {"signatures", "signed"}:
        raise _misshapen("fields")
    signatures, signed = raw["signatures"], raw["signed"]
    if not isinstance(signed, dict) or signed.get("label") != label:
        raise IdentityError(
            f'expected a document "{label}", found another kind or version: give the right file, or use the version '
            "that wrote it"
        )
    if not isinstance(signatures, dict) or not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise _misshapen("signatures")
    payload = canonical(signed)
    signers = set()
    for text, signature in signatures.items():
        if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
            raise _misshapen("signatures")
        try:
            signer = PublicKey(text)
        except ConfigError:
            raise _misshapen("signers") from None
        signer.verify(label, payload, bytes.fromhex(signature))
        signers.add(signer)
    return {name: value for name, value in signed.items() if name != "label"}, frozenset(signers)


def _parsed(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise IdentityError(
            f"expected a signed document of at most {MAX_DOCUMENT_BYTES} bytes, found {len(data)}: give the right file"
        )
    try:
        raw = json.loads(data)
        whole = isinstance(raw, dict) and canonical(raw) + b"\n" == data
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise _misshapen("bytes")
    fields: dict[str, Any] = raw
    return fields


def _misshapen(what: str) -> IdentityError:
    return IdentityError(
        f"expected a signed document in canonical JSON, found other {what}: send the file as it was written"
    )
