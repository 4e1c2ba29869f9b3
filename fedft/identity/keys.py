"""Ed25519 keys, and signatures that name what they sign. Form: docs/SPEC.md, "Identity and signatures".

Guarantees:
- A signature belongs to its label: one made under "fedft/v1/request" verifies under no other, so nothing signed for one
  purpose can be passed off as signed for another.
- A private key is in no repr, can be neither pickled nor copied, and is read only from a file that its owner alone
  can read.
- A public key of small order, whose signatures anyone can make, is refused.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fedft.errors import ConfigError, IdentityError
from fedft.identity.secret_files import read_secret, write_secret

SIGNATURE_BYTES = 64
_TEXT = re.compile(r"ed25519:[0-9a-f]{64}")
_LABEL = re.compile(r"fedft/v[1-9][0-9]{0,2}/[a-z][a-z-]{0,31}")

_FIELD = 2**255 - 19
_ORDER_EIGHT = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _FIELD, _FIELD + 1, _ORDER_EIGHT, _FIELD - _ORDER_EIGHT})
"""The y coordinates of the points of order 1, 2, 4 and 8, also in the encodings that are not reduced."""


@dataclass(frozen=True)
class PublicKey:
    """A key by its text: "ed25519:" and 64 lower-case hexadecimal characters. Raises ConfigError for anything else."""

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not _TEXT.fullmatch(self.text):
            raise ConfigError(
                'expected a public key as "ed25519:" and 64 lower-case hexadecimal characters, found something else: '
                "copy it whole from its owner's file"
            )
        y = int.from_bytes(self._raw, "little") & (2**255 - 1)
        if y in _SMALL_ORDER:
            raise ConfigError(
                "expected a public key made at random, found one of small order, for which anyone can sign: "
                "ask its owner for a new one"
            )

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """The key of this text. Raises ConfigError for anything else."""
        return cls(text)

    @property
    def fingerprint(self) -> str:
        """128 bits of its SHA-256 in eight groups of four: what two people compare by phone."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        return " ".join(digest[at : at + 4] for at in range(0, 32, 4))

    def verify(self, label: str, payload: bytes, signature: bytes) -> None:
        """Return if ``signature`` is this key's over ``payload`` under ``label``; raise IdentityError otherwise."""
        try:
            self._key.verify(bytes(signature), _signed(label, payload))
        except InvalidSignature:
            raise IdentityError(
                f'expected a signature of {self.text[:16]}... under "{label}", found none that fits: the sender is '
                "another, or a byte was altered on the way"
            ) from None

    def note_id(self, name: str) -> bytes:
        """The 4 bytes by which a signed note names this key (identity/notes.py)."""
        return hashlib.sha256(name.encode() + b"\n\x01" + self._raw).digest()[:4]

    def verify_note(self, text: bytes, signature: bytes) -> None:
        """As ``verify``, of a note's text: for identity/notes.py, which says what a text may be."""
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            raise IdentityError(
                f"expected a note signed by {self.text[:16]}..., found a signature that does not fit: the signer is "
                "another, or a byte was altered"
            ) from None

    @property
    def _raw(self) -> bytes:
        return bytes.fromhex(self.text.removeprefix("ed25519:"))

    @property
    def _key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self._raw)


class PrivateKey:
    """A secret signing key."""

    __slots__ = ("_key", "public")

    public: PublicKey

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = PublicKey(f"ed25519:{raw.hex()}")

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key from the operating system's entropy."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> PrivateKey:
        """Read a key in PEM (PKCS8). Raises ConfigError for a file that others may read, or of another content."""
        content = read_secret(path)
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(
                f"expected an Ed25519 private key in PEM without a password in {path}, found something else: "
                "give the file that fedft provision wrote"
            )
        return cls(key)

    def save(self, path: Path) -> None:
        """Write a new file of mode 0600. Raises ConfigError if one is there, StorageError if the disk refuses."""
        write_secret(path, self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def sign(self, label: str, payload: bytes) -> bytes:
        """64 bytes: Ed25519 over the label, a line end, and the SHA-256 of ``payload``."""
        return self._key.sign(_signed(label, payload))

    def sign_note(self, text: bytes) -> bytes:
        """64 bytes: Ed25519 over ``text`` itself. For identity/notes.py alone, whose texts are no label's message."""
        return self._key.sign(text)

    def __repr__(self) -> str:
        return f"PrivateKey(public={self.public.text!r})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("expected a private key to stay in its process, found an attempt to pickle or copy it")


def _signed(label: str, payload: bytes) -> bytes:
    if not _LABEL.fullmatch(label):
        raise IdentityError('expected a label such as "fedft/v1/request", found something else: name what is signed')
    return label.encode() + b"\n" + hashlib.sha256(payload).digest()
