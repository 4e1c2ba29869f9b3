"""Floats as fixed-point integers whose cohort's sum cannot wrap, and residues packed at the ring's width.

Guarantees (docs/SPEC.md, "Encoding"):
- A FixedPoint exists only if the sum of all members' limits is at most 2^(ring_bits-1) - 1: the sum of any of their
  encoded vectors is then the residue nearest to 0, exactly.
- Rounding is unbiased: E[encode(x)] = weight·x·2^fraction_bits up to 2^-68, the product taken in float64, for
  |x| <= bound. A value beyond raises.

How: weight·x·2^fraction_bits·2^16 = z + r, z whole, 0 <= r < 1. With h uniform of 16 bits, ⌊(z + h)/2^16⌋ has the mean
z/2^16. Where the last 16 bits of z + h are all ones, probability 2^-16, one is added with probability r, from a word of
its own: r/2^16 on the mean. So a value takes 16 random bits, and is rounded as well as by 69.

update/encoding.py does the same for a coordinator that sees every update: 40 fraction bits in 64, to the nearest. That
does not fit a ring of 32 bits; but a sum from here, shifted by 40 - fraction_bits, is one of there, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedft.errors import ConfigError, NonFiniteUpdate, UpdateError, UpdateTooLarge
from fedft.secagg.masking import Ring, ring_zeros

LEAST_BITS, MOST_BITS = 16, 32
_BLOCK = 1 << 16
Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]
Encoded = npt.NDArray[np.signedinteger[Any]]
Words = Callable[[int], npt.NDArray[np.uint64]]
_CHANCE_BITS = 16


def require_no_wrap(ring_bits: int, limits: Mapping[str, int]) -> None:
    """Raise ConfigError unless 16 <= ring_bits <= 32 and any members' sum within ``limits`` fits the ring, signed."""
    if type(ring_bits) is not int or not LEAST_BITS <= ring_bits <= MOST_BITS:
        raise ConfigError(f"expected ring_bits from {LEAST_BITS} to {MOST_BITS}, found {ring_bits!r}: correct it")
    total = sum(limits.values())
    if total > 2 ** (ring_bits - 1) - 1:
        raise ConfigError(
            f"expected a ring that holds the cohort's sum, found limits of {len(limits)} members that add up to "
            f"{total}, {total.bit_length() + 1} bits, and a ring of {ring_bits}: lower fraction_bits or the range, or "
            "raise ring_bits"
        )


@dataclass(frozen=True)
class FixedPoint:
    """How a cohort encodes: bound is the largest |x|, weights the public weight of each member."""

    ring_bits: int
    fraction_bits: int
    bound: float
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        numbers = (self.bound, *self.weights.values())
        if not self.weights or not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ConfigError("expected a bound and weights above 0, found another: correct them")
        if type(self.fraction_bits) is not int or not -64 <= self.fraction_bits <= 64:
            raise ConfigError(f"expected fraction_bits from -64 to 64, found {self.fraction_bits!r}: correct it")
        require_no_wrap(self.ring_bits, self.limits)

    @classmethod
    def widest(cls, ring_bits: int, bound: float, weights: Mapping[str, float]) -> FixedPoint:
        """The one with the most fraction bits that fits. Raises ConfigError if none does."""
        for fraction_bits in range(64, -64, -1):
            try:
                return cls(ring_bits, fraction_bits, bound, weights)
            except ConfigError:
                continue
        return cls(ring_bits, -64, bound, weights)

    @property
    def limits(self) -> dict[str, int]:
        """The largest |encoded value| of each member."""
        return {name: math.ceil(self._scale(name) * self.bound) for name in self.weights}

    def encode(self, vector: Floats, name: str, words: Words) -> npt.NDArray[np.int32]:
        """⌊weight·x·2^fraction_bits + u⌋ with u uniform in [0, 1), shape (d,); words: n -> n uniform words of 64 bits.

        Raises NonFiniteUpdate, UpdateTooLarge beyond the bound.
        """
        largest = max(float(vector.max()), -float(vector.min())) if vector.size else 0.0
        if not math.isfinite(largest):
            raise NonFiniteUpdate("expected finite values, found NaN or infinity: lower the learning rate")
        if largest > self.bound:
            raise UpdateTooLarge(
                f"expected values within {self.bound:g}, found a larger one: clip the update before it is encoded, or "
                "raise the range of secure aggregation"
            )
        scale = _factor(math.ldexp(self._scale(name), _CHANCE_BITS), vector.dtype)
        wide = np.int32 if self.limits[name] < 1 << 31 - _CHANCE_BITS else np.int64
        encoded = np.empty(vector.size, dtype=np.int32)
        for start in range(0, vector.size, _BLOCK):
            exact = vector[start : start + _BLOCK] * scale
            below = np.floor(exact)
            sums: npt.NDArray[Any] = below.astype(wide)
            sums += words(-(-sums.size // 4)).view(np.uint16)[: sums.size]
            (close,) = np.nonzero(sums & 0xFFFF == 0xFFFF)
            rest = exact[close] - below[close].astype(np.float64)
            sums[close] += (words(close.size) >> np.uint64(11)) * 2.0**-53 < rest
            np.right_shift(sums, _CHANCE_BITS, out=encoded[start : start + _BLOCK], casting="same_kind")
        return encoded

    def decode(self, total: Integers) -> npt.NDArray[np.float64]:
        """The weighted sum, exact: shape (d,), float64."""
        return np.ldexp(total.astype(np.float64), -self.fraction_bits)

    def _scale(self, name: str) -> float:
        return math.ldexp(self.weights[name], self.fraction_bits)


def _factor(scale: float, dtype: np.dtype[Any]) -> np.float32 | np.float64:
    """In float32 only where a float32 vector stays exact, to 2^-149: times a power of two."""
    mantissa, exponent = math.frexp(scale)
    exact = dtype == np.float32 and mantissa == 0.5 and abs(exponent) < 100
    return np.float32(scale) if exact else np.float64(scale)


def to_ring(values: Encoded, ring_bits: int, limit: int) -> Ring:
    """Residues of ``values``. Raises UpdateTooLarge for one beyond ``limit``."""
    residues = ring_zeros(values.size, ring_bits)
    for start in range(0, values.size, _BLOCK):
        part = values[start : start + _BLOCK]
        if _largest(part) > limit:
            raise UpdateTooLarge(
                f"expected encoded values within {limit}, found a larger one: the sum could wrap; nothing was sent"
            )
        residues[start : start + _BLOCK] = part
    return residues


def from_ring(residues: Ring, ring_bits: int, limit: int) -> Integers:
    """The integers nearest to 0. Raises UpdateError for one beyond ``limit``, the sum of the senders' limits."""
    unused = 8 * residues.itemsize - ring_bits
    values = (residues << unused if unused else residues).view(f"<i{residues.itemsize}")
    values = values >> unused if unused else values
    if _largest(values) > limit:
        raise UpdateError(
            f"expected a sum within {limit}, found a value beyond: an institution sent what is out of its range, or "
            "other masks than it committed to; the round is void"
        )
    return values.astype(np.int64)


def _largest(values: Encoded) -> int:
    return max(int(values.max()), -int(values.min())) if values.size else 0


def packed_bytes(size: int, ring_bits: int) -> int:
    return -(-size * ring_bits // 8)


def pack(residues: Ring, ring_bits: int) -> bytes | memoryview:
    """Value e in bits e·ring_bits and up, least significant bit of each byte first; of 16 and 32 bits no copy."""
    if ring_bits == 8 * residues.itemsize:
        return residues.data.cast("B")
    blocks = range(0, residues.size, _BLOCK)  # each but the last fills whole words
    return b"".join(_pack_block(residues[start : start + _BLOCK], ring_bits) for start in blocks)


def unpack(data: bytes | memoryview, size: int, ring_bits: int) -> Ring:
    """What pack wrote, of 16 and 32 bits without a copy. Raises UpdateError for another length, or bits after it."""
    if len(data) != packed_bytes(size, ring_bits):
        raise UpdateError(
            f"expected {packed_bytes(size, ring_bits)} bytes for {size} values of {ring_bits} bits, found {len(data)}: "
            "a vector of another length or ring"
        )
    residues, found = ring_zeros(size, ring_bits), np.frombuffer(data, dtype=np.uint8)
    if ring_bits == 8 * residues.itemsize:
        return found.view(residues.dtype)
    used = size * ring_bits % 8
    if used and data[-1] >> used:
        raise UpdateError("expected zeros after the last value, found others: pack it as docs/SPEC.md says")
    for start in range(0, size, _BLOCK):
        part = residues[start : start + _BLOCK]
        _unpack_block(found[start * ring_bits // 8 :][: packed_bytes(part.size, ring_bits)], part, ring_bits)
    return residues


def _pack_block(residues: Ring, ring_bits: int) -> bytes:
    values, packed = _whole_words(residues.size, ring_bits)
    values.ravel()[: residues.size] = residues
    values &= (1 << ring_bits) - 1
    for column, value in enumerate(values.T):
        word, shift = divmod(column * ring_bits, 32)
        packed[:, word] |= value << shift
        if shift + ring_bits > 32:
            packed[:, word + 1] |= value >> (32 - shift)
    return packed.tobytes()[: packed_bytes(residues.size, ring_bits)]


def _unpack_block(data: npt.NDArray[np.uint8], residues: Ring, ring_bits: int) -> None:
    values, packed = _whole_words(residues.size, ring_bits)
    packed.view(np.uint8).ravel()[: data.size] = data
    for column, value in enumerate(values.T):
        word, shift = divmod(column * ring_bits, 32)
        value |= packed[:, word] >> shift
        if shift + ring_bits > 32:
            value |= packed[:, word + 1] << (32 - shift)
    values &= (1 << ring_bits) - 1
    residues[:] = values.ravel()[: residues.size]


def _whole_words(size: int, ring_bits: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Zeros for values and for packed words of 32 bits, in rows where so many values fill so many words."""
    common = math.gcd(ring_bits, 32)
    rows = -(-size * common // 32)
    return np.zeros((rows, 32 // common), dtype="<u4"), np.zeros((rows, ring_bits // common), dtype="<u4")
