"""The key of an institution's SuperNode, as Flower wants it: EC P-384, OpenSSH's form."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from fedft.errors import ConfigError, IdentityError
from fedft.identity.secret_files import read_secret, write_secret

MAX_NODE_KEY = 256
"""Characters of a node key; a P-384 one has 204."""


def make_node_key(path: Path) -> str:
    """Write a new private key to ``path``, mode 0600, and return its public text."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return _text(key.public_key())


def load_node_key(path: Path) -> str:
    """The public text of the private key in ``path``. Raises ConfigError for another kind, or one others may read."""
    return _text(_load(path).public_key())


def require_node_key(text: str) -> str:
    """``text`` itself. Raises ConfigError unless it is a P-384 public key without a comment."""
    if isinstance(text, str) and len(text) <= MAX_NODE_KEY and text.isascii():
        try:
            key = load_ssh_public_key(text.encode())
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if isinstance(key, ec.EllipticCurvePublicKey) and _text(key) == text:
            return text
    raise ConfigError(
        'expected a node key "ecdsa-sha2-nistp384 ..." without a comment, found something else: '
        "take it from the request that fedft provision wrote"
    )


def prove_node_key(path: Path, payload: bytes) -> bytes:
    """A signature (ECDSA, SHA-384) over ``payload``, to prove that one holds the private key in ``path``."""
    return _load(path).sign(payload, ec.ECDSA(SHA384()))


def require_node_proof(text: str, payload: bytes, proof: str) -> None:
    """Raise IdentityError unless ``proof``, in hexadecimal, is the signature of the key with this public text."""
    key = load_ssh_public_key(require_node_key(text).encode())
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(bytes.fromhex(proof), payload, ec.ECDSA(SHA384()))
            return
    except (ValueError, InvalidSignature):
        pass
    raise IdentityError(
        "expected a proof that the sender holds the private key of its SuperNode, found none that fits: "
        "have the institution make its request anew"
    )


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_ssh_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"expected an EC P-384 key in OpenSSH's form in {path}, found something else: make a new one")
    return key


def _text(key: ec.EllipticCurvePublicKey) -> str:
    if not isinstance(key.curve, ec.SECP384R1):
        return ""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
