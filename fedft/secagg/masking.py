"""Masks from 32-byte keys, added and subtracted in place modulo 2^16 or 2^32. docs/SPEC.md, "Keys".

Guarantee: add_masks(total, plus, minus) followed by add_masks(total, minus, plus) leaves every byte as it was; under a
key that nobody else knows the result is uniform, AES-256-CTR being a pseudo-random generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

KEY_BYTES = 32
BLOCK_BYTES = 256 * 1024
"""Key stream made at a time: it stays in the cache, and a call into OpenSSL costs nothing beside it."""

Ring: TypeAlias = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
"""Residues: uint16 for a ring of 16 bits, uint32 for one of 17 to 32, whose upper bits are cut off when packed."""


def ring_zeros(size: int, ring_bits: int) -> Ring:
    """Shape (size,), little-endian."""
    return np.zeros(size, dtype="<u2") if ring_bits == 16 else np.zeros(size, dtype="<u4")


def add_masks(total: Ring, plus: Sequence[bytes], minus: Sequence[bytes] = ()) -> None:
    """total += PRG of each key in ``plus`` - PRG of each in ``minus``, in place; total is contiguous."""
    streams: list[tuple[CipherContext, np.ufunc]] = [(_stream(key), np.add) for key in plus]
    streams += [(_stream(key), np.subtract) for key in minus]
    block = BLOCK_BYTES // total.itemsize
    nothing, stream = memoryview(bytes(BLOCK_BYTES)), np.empty(block, dtype=total.dtype)
    view = stream.data.cast("B")
    for start in range(0, total.size, block):
        part = total[start : start + block]
        width = part.nbytes
        for cipher, combine in streams:
            cipher.update_into(nothing[:width], view[:width])
            combine(part, stream[: part.size], out=part)


def _stream(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
