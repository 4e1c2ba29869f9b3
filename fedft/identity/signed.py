"""A payload under its signature, as it crosses. Form: docs/SPEC.md, "Identity and signatures".

::

    magic "FEDFTSIG" (8) | signature (64) | payload

Guarantee: open_signed returns a payload only after its signature verified, and reads nothing in it before.
"""

from __future__ import annotations

from fedft.errors import IdentityError
from fedft.identity.keys import SIGNATURE_BYTES, PrivateKey, PublicKey

MAGIC = b"FEDFTSIG"
HEAD_BYTES = len(MAGIC) + SIGNATURE_BYTES


def seal(label: str, payload: bytes, key: PrivateKey) -> bytes:
    """``payload`` with the key's signature under ``label`` before it."""
    return MAGIC + key.sign(label, payload) + payload


def open_signed(label: str, data: bytes, key: PublicKey) -> bytes:
    """The payload. Raises IdentityError: no signed form, cut short, another key or label, an altered byte."""
    if len(data) < HEAD_BYTES or not data.startswith(MAGIC):
        raise IdentityError(
            f"expected {MAGIC.decode()} and a signature at the start, found something else: "
            "send it sealed, as docs/SPEC.md says"
        )
    payload = data[HEAD_BYTES:]
    key.verify(label, payload, data[len(MAGIC) : HEAD_BYTES])
    return payload
