"""Gaussian noise from the secure stream."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedft.errors import PrivacyError
from fedft.randomness import SecureStream

_CHUNK = 1 << 13
"""Values made at a time: the work arrays stay in a core's cache."""


def gaussian(stream: SecureStream, n: int, deviation: float) -> npt.NDArray[np.float64]:
    """``n`` independent draws of N(0, deviation²), shape (n,).

    Each value is (g + g')/√2 of two Box-Muller draws g = √(-2 ln u)·cos θ whose sine halves are discarded: four secret
    64-bit words make one value. This is the half sum of four Gaussians of Holohan & Braghin 2021 (arXiv 2107.10138) at
    half its price, since r·cos θ + r·sin θ = √2·r·cos(θ - π/4) and θ is uniform.

    Guarantee, and where it ends: independent values, mean 0, the stated deviation, in floating point; not an exact
    discrete Gaussian, and the accountant's delta contains no term for that. u is one of 2^64 steps, so |value| <=
    13.5·deviation and a tail of mass 2^-64 per draw is cut; θ is one of 2^64 steps; both are rounded to float64. The
    attack on the gaps between floating-point numbers (Mironov 2012; Jin et al. 2022) has to search about 2^159
    combinations of words; a caller who rounds sum and noise together to float32 hides what gaps remain.

    Raises
    ------
    PrivacyError
        The deviation is negative or not finite.
    """
    if not 0 <= deviation < math.inf:
        raise PrivacyError(
            f"expected a finite noise deviation of 0 or more, found {deviation}: check clip norm and noise"
        )
    values = np.empty(n, dtype=np.float64)
    words = np.empty(4 * min(n, _CHUNK), dtype=np.uint64)
    for start in range(0, n, _CHUNK):
        part = values[start : start + _CHUNK]
        _fill_standard(stream, part, words[: 4 * len(part)])
    values *= deviation
    return values


def _fill_standard(stream: SecureStream, part: npt.NDArray[np.float64], words: npt.NDArray[np.uint64]) -> None:
    """Overwrite ``part``, shape (m,), with standard Gaussians made of ``words``, shape (4m,)."""
    stream.fill(words)
    half = 2 * len(part)
    radii = words[:half].astype(np.float64)
    radii += 0.5
    radii *= 2.0**-64  # (0, 1]
    np.log(radii, out=radii)
    radii *= -1.0  # √(-2 ln u)/√2
    np.sqrt(radii, out=radii)
    cosines = words[half:].view(np.int64).astype(np.float64)
    cosines *= math.pi * 2.0**-63  # [-π, π]
    np.cos(cosines, out=cosines)
    radii *= cosines
    np.add(radii[: len(part)], radii[len(part) :], out=part)
