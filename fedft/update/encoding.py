"""Floats as fixed-point integers, so that a sum of updates does not depend on the order in which they arrive.

Guarantee: for n < 2¹¹ updates x_k with |w_k·x_k| <= 2¹² and weights w_k of sum W, decode(Σ encode(x_k, w_k), W) is the
same bit for bit in every order, and differs from the exact Σ w_k·x_k / W by at most n·2⁻⁴⁰/W + 2⁻²³·|result| + 2⁻¹⁴⁹ in
each coordinate. With w_k = 1 a float32 of at least 2⁻¹⁷ in magnitude is encoded exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedft.errors import NonFiniteUpdate, UpdateTooLarge
from fedft.types import AdapterVector

FRACTION_BITS = 40
SCALE = 2.0**FRACTION_BITS
LARGEST = 2.0**12
"""Largest |weight·value| that is encoded: an encoded value then needs 52 bits and a sign."""
MAX_UPDATES = 2 ** (63 - 12 - FRACTION_BITS) - 1
"""2,047 encoded values at the limit add up below 2⁶³."""

Floats = npt.NDArray[np.floating[Any]]


def encode(vector: Floats, weight: float = 1.0) -> npt.NDArray[np.int64]:
    """weight·vector in units of 2⁻⁴⁰, rounded to the nearest integer, ties to even.

    Parameters
    ----------
    vector : shape (d,), float32 or float64
    weight : public constant above 0

    Raises
    ------
    NonFiniteUpdate, UpdateTooLarge
        As require_encodable.
    """
    require_encodable(vector, weight)
    return _encoded(vector, weight)


def add_encoded(total: npt.NDArray[np.int64], vector: Floats, weight: float, *, block: int = 1 << 16) -> None:
    """total += encode(vector, weight), all of it or, when that raises, nothing; in blocks that stay in the cache."""
    require_encodable(vector, weight)
    for start in range(0, vector.size, block):
        where = slice(start, start + block)
        total[where] += _encoded(vector[where], weight)


def decode(total: npt.NDArray[np.int64], total_weight: float, *, block: int = 1 << 16) -> AdapterVector:
    """The weighted mean, shape (d,), float32, from a sum of encoded vectors and the sum of their weights."""
    mean = np.empty(total.size, dtype=np.float32)
    for start in range(0, total.size, block):
        where = slice(start, start + block)
        mean[where] = total[where] / (SCALE * total_weight)
    return mean


def require_encodable(vector: Floats, weight: float) -> None:
    """Raise unless every weight·value is finite and within ±2¹². Allocates nothing of the vector's size."""
    largest = max(float(vector.max()), -float(vector.min())) if vector.size else 0.0
    if not np.isfinite(largest):
        raise NonFiniteUpdate("expected finite values, found NaN or infinity: lower the learning rate or exclude it")
    if largest * weight > LARGEST:
        raise UpdateTooLarge(
            f"expected |weight x value| of at most {LARGEST:g}, found {largest * weight:.3g}: lower "
            "aggregation.max_update_norm to refuse such updates earlier, or scale aggregation.weights down"
        )


def _encoded(vector: Floats, weight: float) -> npt.NDArray[np.int64]:
    scaled = vector.astype(np.float64)
    scaled *= weight
    scaled *= SCALE
    np.rint(scaled, out=scaled)
    return scaled.astype(np.int64)
