"""X25519 keys and every key that follows from them. RFC 7748, RFC 5869; docs/SPEC.md, "Keys".

Guarantees:
- A derived key belongs to protocol version, run, both parties' names and keys, and, for masks and shares, to the
  context of one round: another model, cohort or list of keys gives other keys.
- A public key of small order, and a shared secret of zeros, are refused.
- A private key is in no repr and can be neither pickled nor copied.
"""

from __future__ import annotations

import hashlib
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedft.errors import IdentityError
from fedft.identity.documents import canonical
from fedft.randomness import secure_bytes

PAIR_LABEL = "fedft/v1/secagg-pair"
MASK_INFO = b"fedft/v1/secagg-mask"
SHARE_INFO = b"fedft/v1/secagg-share\n"
COMMIT_LABEL = b"fedft/v1/secagg-commit\n"
PUBLIC_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16

_FIELD = 2**255 - 19
_ORDER_EIGHT = (
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _FIELD, _FIELD + 1, *_ORDER_EIGHT})
"""The u coordinates of points of order 1, 2, 4 and 8, of the curve and its twist, also in encodings not reduced."""


class AgreementKey:
    """An X25519 private key of one run."""

    __slots__ = ("_key", "public")

    public: bytes

    def __init__(self, raw: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(raw)
        self.public = self._key.public_key().public_bytes_raw()

    def shared(self, public: bytes) -> bytes:
        """32 bytes that only the two owners can compute. Raises IdentityError for a key of small order."""
        require_public(public)
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise _small_order() from None

    def __repr__(self) -> str:
        return f"AgreementKey(public={self.public.hex()[:16]}...)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("expected a private key to stay in its process, found an attempt to pickle or copy it")


def require_public(public: bytes) -> None:
    """Raise IdentityError for a key of another length or of small order."""
    if len(public) != PUBLIC_BYTES:
        raise IdentityError(f"expected an X25519 key of 32 bytes, found {len(public)}: ask its owner for a new one")
    if int.from_bytes(public, "little") & (2**255 - 1) in _SMALL_ORDER:
        raise _small_order()


def pair_key(own: AgreementKey, run: str, name: str, other: str, other_public: bytes) -> bytes:
    """pair(i,j): the same for both; with other == name a key that nobody else has."""
    parties = sorted([[name, own.public.hex()], [other, other_public.hex()]])
    info = canonical({"label": PAIR_LABEL, "parties": parties, "run": run})
    return _derived(own.shared(other_public), None, info)


def mask_key(pair: bytes, context: bytes) -> bytes:
    return _derived(pair, context, MASK_INFO)


def sharing_key(pair: bytes, context: bytes, dealer: str) -> bytes:
    return _derived(pair, context, SHARE_INFO + dealer.encode())


def commitment(secret: bytes, context: bytes) -> bytes:
    """Hides a secret of 256 random bits, SHA-256 being a random oracle, and binds to it."""
    return hashlib.sha256(COMMIT_LABEL + context + secret).digest()


def seal_shares(pair: bytes, context: bytes, dealer: str, holder: str, shares: bytes) -> bytes:
    """Nonce, ciphertext, tag: only ``holder`` opens it, as of ``dealer`` and this context."""
    nonce = secure_bytes(NONCE_BYTES)
    return nonce + _aead(pair, context, dealer).encrypt(nonce, shares, _associated(context, dealer, holder))


def open_shares(pair: bytes, context: bytes, dealer: str, holder: str, package: bytes) -> bytes:
    """The shares. Raises IdentityError: altered, of another dealer, holder or context."""
    try:
        return _aead(pair, context, dealer).decrypt(
            package[:NONCE_BYTES], package[NONCE_BYTES:], _associated(context, dealer, holder)
        )
    except (InvalidTag, ValueError):
        raise IdentityError(
            f'expected shares that "{dealer}" sealed for "{holder}" in this round, found others: altered on the way, '
            "or of another round"
        ) from None


def _aead(pair: bytes, context: bytes, dealer: str) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(sharing_key(pair, context, dealer))


def _associated(context: bytes, dealer: str, holder: str) -> bytes:
    return context + f"{dealer}\n{holder}".encode()


def _derived(secret: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


def _small_order() -> IdentityError:
    return IdentityError(
        "expected an X25519 key made at random, found one of small order, whose shared secrets everyone knows: "
        "ask its owner for a new one"
    )
