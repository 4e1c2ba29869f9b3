"""Floats as fixed-point integers whose cohort's sum cannot wrap, and residues packed at the ring's width.

Guarantees (docs/SPEC.md, "Encoding"):
- A FixedPoint exists only if the sum of all members' limits is at most 2^(ring_bits-1) - 1: the sum of any of their
  encoded vectors is then the residue nearest to 0, exactly.
- Rounding is unbiased: E[encode(x)] = weight·x·2^fraction_bits, for |x| <= bound. A value beyond raises.

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
Uniform = Callable[[int], npt.NDArray[np.float64]]


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

    def encode(self, vector: Floats, name: str, uniform: Uniform) -> Integers:
        """⌊weight·x·2^fraction_bits + u⌋, shape (d,); uniform: n -> n draws from [0, 1).

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
        encoded = np.empty(vector.size, dtype=np.int64)
        scale = self._scale(name)
        for start in range(0, vector.size, _BLOCK):
            part = vector[start : start + _BLOCK].astype(np.float64) * scale
            below = np.floor(part)
            part -= below
            below += uniform(part.size) < part
            encoded[start : start + _BLOCK] = below.astype(np.int64)
        return encoded

    def decode(self, total: Integers) -> npt.NDArray[np.float64]:
        """The weighted sum, exact: shape (d,), float64."""
        return np.ldexp(total.astype(np.float64), -self.fraction_bits)

    def _scale(self, name: str) -> float:
        return math.ldexp(self.weights[name], self.fraction_bits)


def to_ring(values: Integers, ring_bits: int, limit: int) -> Ring:
    """Residues of ``values``. Raises UpdateTooLarge for one beyond ``limit``."""
    if values.size and max(int(values.max()), -int(values.min())) > limit:
        raise UpdateTooLarge(
            f"expected encoded values within {limit}, found a larger one: the sum could wrap; nothing was sent"
        )
    residues = ring_zeros(values.size, ring_bits)
    residues[:] = values.astype(residues.dtype)
    return residues


def from_ring(residues: Ring, ring_bits: int, limit: int) -> Integers:
    """The integers nearest to 0. Raises UpdateError for one beyond ``limit``, the sum of the senders' limits."""
    values = residues.astype(np.int64)
    values &= (1 << ring_bits) - 1
    values[values >= 1 << (ring_bits - 1)] -= 1 << ring_bits
    if values.size and max(int(values.max()), -int(values.min())) > limit:
        raise UpdateError(
            f"expected a sum within {limit}, found a value beyond: an institution sent what is out of its range, or "
            "other masks than it committed to; the round is void"
        )
    return values


def packed_bytes(size: int, ring_bits: int) -> int:
    return -(-size * ring_bits // 8)


def pack(residues: Ring, ring_bits: int) -> bytes:
    """Value e in bits e·ring_bits and up, least significant bit of each byte first."""
    if ring_bits == 8 * residues.itemsize:
        return residues.tobytes()
    groups = np.zeros((-(-residues.size // 8), 8), dtype=np.uint64)
    groups.ravel()[: residues.size] = residues
    groups &= np.uint64((1 << ring_bits) - 1)
    packed = np.zeros((len(groups), ring_bits), dtype=np.uint8)
    for column in range(8):
        first, shift = divmod(column * ring_bits, 8)
        shifted = groups[:, column] << np.uint64(shift)
        for byte in range(first, min(first + 5, ring_bits)):
            packed[:, byte] |= (shifted >> np.uint64(8 * (byte - first))).astype(np.uint8)
    return packed.tobytes()[: packed_bytes(residues.size, ring_bits)]


def unpack(data: bytes | memoryview, size: int, ring_bits: int) -> Ring:
    """What pack wrote. Raises UpdateError for another length, or bits set after the last value."""
    if len(data) != packed_bytes(size, ring_bits):
        raise UpdateError(
            f"expected {packed_bytes(size, ring_bits)} bytes for {size} values of {ring_bits} bits, found {len(data)}: "
            "a vector of another length or ring"
        )
    residues = ring_zeros(size, ring_bits)
    if ring_bits == 8 * residues.itemsize:
        residues[:] = np.frombuffer(data, dtype=residues.dtype)
        return residues
    used = size * ring_bits % 8
    if used and data[-1] >> used:
        raise UpdateError("expected zeros after the last value, found others: pack it as docs/SPEC.md says")
    packed = np.zeros((-(-size // 8), ring_bits), dtype=np.uint8)
    packed.ravel()[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    for column in range(8):
        first, shift = divmod(column * ring_bits, 8)
        value = np.zeros(len(packed), dtype=np.uint64)
        for byte in range(first, min(first + 5, ring_bits)):
            value |= packed[:, byte].astype(np.uint64) << np.uint64(8 * (byte - first))
        value >>= np.uint64(shift)
        value &= np.uint64((1 << ring_bits) - 1)
        residues[column::8] = value[: len(residues[column::8])].astype(residues.dtype)
    return residues
