"""What secure aggregation's vectors are made with, from the RFCs and docs/SPEC.md: X25519, HKDF, Shamir, packing."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

P = 2**256 + 297
Fields = dict[str, Any]


def h(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def canonical(fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """RFC 5869."""
    key = hmac.digest(salt or bytes(32), secret, "sha256")
    block = output = b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        output += block
    return output[:length]


def x25519(scalar: bytes, u: bytes) -> bytes:
    """RFC 7748, section 5."""
    p = 2**255 - 19
    k = int.from_bytes(scalar, "little") & ~7 & (1 << 254) - 1 | 1 << 254
    x1 = int.from_bytes(u, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, x1, 1
    swap = 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap ^ bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a % p, c * b % p, a * a % p, b * b % p
        x3, z3 = (da + cb) ** 2 % p, x1 * (da - cb) ** 2 % p
        x2, z2 = aa * bb % p, (aa - bb) * (aa + 121665 * (aa - bb)) % p
    if swap:
        x2, z2 = x3, z3
    u2: int = x2 * pow(z2, p - 2, p) % p
    return u2.to_bytes(32, "little")


BASE = (9).to_bytes(32, "little")


def words(key: bytes, size: int, bits: int) -> list[int]:
    width = 2 if bits == 16 else 4
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(size * width))
    return [int.from_bytes(stream[at : at + width], "little") % 2**bits for at in range(0, len(stream), width)]


def packed(values: list[int], bits: int) -> bytes:
    total: int = sum(value % 2**bits << bits * place for place, value in enumerate(values))
    return total.to_bytes(-(-len(values) * bits // 8), "little")


def shares(polynomial: list[int], holders: int) -> list[int]:
    return [sum(c * x**power for power, c in enumerate(polynomial)) % P for x in range(1, holders + 1)]


def public(seed: bytes) -> str:
    return f"ed25519:{Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()}"


def signature(seed: bytes, label: str, payload: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(label.encode() + b"\n" + h(payload))


def sealed(seed: bytes, label: str, payload: bytes) -> bytes:
    return b"FEDFTSIG" + signature(seed, label, payload) + payload


def framed(magic: bytes, head: bytes, body: bytes) -> bytes:
    return magic + len(head).to_bytes(4, "big") + head + body


def turned(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


PLAIN = (
    "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
)
CIPHERTEXT = (
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b29"
    "05d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b"
    "61161ae10b594f09e26a7e902ecbd0600691"
)


def primitives() -> Fields:
    """RFC 7748 section 5.2; RFC 5869 A.1 and A.3; RFC 8439 section 2.8.2."""
    return {
        "x25519": [
            {
                "scalar": "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "u": "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "shared": "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            },
            {
                "scalar": "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "u": "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "shared": "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            },
        ],
        "hkdf": [
            {
                "secret": "0b" * 22,
                "salt": bytes(range(13)).hex(),
                "info": bytes(range(0xF0, 0xFA)).hex(),
                "key": "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            },
            {
                "secret": "0b" * 22,
                "salt": "",
                "info": "",
                "key": "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            },
        ],
        "aead": [
            {
                "key": bytes(range(0x80, 0xA0)).hex(),
                "nonce": "070000004041424344454647",
                "associated": "50515253c0c1c2c3c4c5c6c7",
                "plain": PLAIN.encode().hex(),
                "sealed": CIPHERTEXT,
            }
        ],
    }
