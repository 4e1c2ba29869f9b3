"""Discrete Gaussian noise from the secure stream: integers, with a proven distance from the exact distribution.

D(σ) gives the integer k the probability exp(-k²/2σ²) / sum over all integers j of exp(-j²/2σ²) (Canonne, Kamath &
Steinke 2020). Distances are total variation, the largest difference of the probabilities of any event.

**One table.** Up to deviation 256 a value is found by inversion: U uniform below 2^128 falls between two of the
cumulative probabilities, rounded to multiples of 2^-128, of D(s) cut at K = ⌈14 s⌉. Cutting costs the mass beyond K, at
most 2s/(K√2π)·exp(-K²/2s²) (the sum of a decreasing function is below its integral); each of 2K+1 probabilities is off
by at most 1.02·2^-128. Together ``_table_distance``, about 2^-116. The table is made with 60 decimal digits.

**Larger deviations** are built by X + L·Y, X from D(s), Y of deviation σ', an integer L. With σ² = s² + L²σ'² and
w = sσ'/σ, completing the square gives

    P[X + L·Y = k] proportional to exp(-k²/2σ²) · sum over j of exp(-(j - c)²/2w²), c = k·Lσ'²/σ²,

and by Poisson summation the last sum is w√2π·(1 + θ), |θ| <= η(w) = 2·(e^(-2π²w²) + e^(-8π²w²) + ...), for every c. So
each probability is that of D(σ) times a factor in [(1-η)/(1+η), (1+η)/(1-η)], and the distance is at most η/(1-η).
Since σ' >= s, w >= s/√(L²+1), which is kept at 2.5 or more: η < 2^-175. (Peikert 2010, "An efficient and parallel
Gaussian sampler for lattices", section 3; Micciancio & Walter 2017.)
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedft.errors import PrivacyError
from fedft.randomness import SecureStream

LARGEST_TABLE = 256.0
"""The deviation up to which one table serves: 7,169 integers, and one look-up in 40 needs more than its guide."""

LARGEST_DEVIATION = 2.0**40
_SMOOTH = 2.5
_CUT = 14
_GUIDE_BITS = 16
_UNDECIDED = np.iinfo(np.int16).max
_CHUNK = 1 << 14
Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]


def sample_discrete_gaussian(stream: SecureStream, n: int, deviation: float) -> Integers:
    """``n`` independent integers of the discrete Gaussian D(σ), shape (n,).

    Guarantee: σ is at least ``deviation`` and at most 1 + 2^-48 times that; each draw is within
    ``statistical_distance(deviation)`` of D(σ), if the stream's words are uniform. No floating-point number takes part
    after the table is made.

    Raises
    ------
    PrivacyError
        The deviation is not above 0, or above 2^40.
    """
    ladder = _ladder(deviation)
    table = _table(ladder.table_deviation)
    values = np.empty(n, dtype=np.int64)
    words = np.empty(min(n, _CHUNK), dtype=np.uint64)
    for start in range(0, n, _CHUNK):
        part = values[start : start + _CHUNK]
        part[:] = 0
        for _ in range(ladder.levels):
            stream.fill(words[: len(part)])
            part *= ladder.factor
            part += table.invert(words[: len(part)], stream)
    return values


def statistical_distance(deviation: float) -> float:
    """An upper bound on the total variation distance of one draw from D(σ)."""
    ladder = _ladder(deviation)
    joins = (ladder.levels - 1) * join_distance(ladder.table_deviation / math.hypot(1, ladder.factor))
    return ladder.levels * _table_distance(ladder.table_deviation) + joins


def join_distance(width: float) -> float:
    """η/(1-η) at w = ``width``: how far a sum of two discrete Gaussians is from one. 1 where the bound says nothing."""
    eta = 2 * math.exp(-2 * (math.pi * width) ** 2) / -math.expm1(-6 * (math.pi * width) ** 2)
    return eta / (1 - eta) if eta < 0.5 else 1.0


@dataclass(frozen=True)
class _Ladder:
    """X_1 + L·(X_2 + L·(...)) of ``levels`` draws from D(table_deviation)."""

    levels: int
    factor: int
    table_deviation: float


@lru_cache(maxsize=64)
def _ladder(deviation: float) -> _Ladder:
    """The fewest levels whose table is within LARGEST_TABLE, and of these the smallest table."""
    if not 0 < deviation <= LARGEST_DEVIATION:
        raise PrivacyError(
            f"expected a deviation of integer noise above 0 and up to 2^40, found {deviation}: correct noise or scale"
        )
    if deviation <= LARGEST_TABLE:
        return _Ladder(1, 1, float(deviation))
    levels = 2
    while True:
        factor = 2
        while _shared(deviation, levels, factor + 1) >= _SMOOTH * math.hypot(1, factor + 1):
            factor += 1
        table = _shared(deviation, levels, factor)
        if table <= LARGEST_TABLE:
            return _Ladder(levels, factor, table)
        levels += 1


def _shared(deviation: float, levels: int, factor: int) -> float:
    """The least float s with s²·(1 + L² + ... + L^(2(levels-1))) >= deviation², up to one unit in its last place."""
    squares = sum(factor ** (2 * level) for level in range(levels))
    table = math.nextafter(deviation / math.sqrt(squares), 0)
    while Fraction(table) ** 2 * squares < Fraction(deviation) ** 2:
        table = math.nextafter(table, math.inf)
    return table


class _Table:
    """Inversion of D(s) cut at ``reach``: thresholds[i] / 2^128 is the probability of a value up to i - reach."""

    def __init__(self, deviation: float) -> None:
        self.reach = _reach(deviation)
        self.thresholds = _thresholds(deviation, self.reach)
        self._high: Words = np.array([threshold >> 64 for threshold in self.thresholds], dtype=np.uint64)
        shift = 64 - _GUIDE_BITS
        first = np.arange(1 << _GUIDE_BITS, dtype=np.uint64) << np.uint64(shift)
        below = np.searchsorted(self._high, first, side="left")
        upto = np.searchsorted(self._high, first + np.uint64((1 << shift) - 1), side="right")
        self._guide = np.where(below == upto, below - self.reach, _UNDECIDED).astype(np.int16)

    def invert(self, words: Words, stream: SecureStream) -> Integers:
        """The value each U falls on, U's upper half being ``words``; the lower is drawn where the upper leaves it open.

        A guide by the upper 16 bits settles nearly all; the rest are searched for. The chance that a whole word equals
        the upper half of a threshold is below 2^-51.
        """
        values = self._guide[(words >> np.uint64(64 - _GUIDE_BITS)).astype(np.intp)].astype(np.int64)
        open_ones = np.flatnonzero(values == _UNDECIDED)
        sought = words[open_ones]
        places = np.searchsorted(self._high, sought, side="right")
        values[open_ones] = places - self.reach
        for tie in np.flatnonzero((places > 0) & (self._high[places - 1] == sought)):
            whole = int(sought[tie]) << 64 | int(stream.words(1)[0])
            values[open_ones[tie]] = bisect_right(self.thresholds, whole) - self.reach
        return values


_table = lru_cache(maxsize=8)(_Table)


def _reach(deviation: float) -> int:
    return math.ceil(_CUT * deviation)


def _thresholds(deviation: float, reach: int) -> tuple[int, ...]:
    """2^128 times the cumulative probabilities from -reach on, to the nearest integer, without those that are 2^128."""
    with localcontext() as context:
        context.prec = 60
        base = (-1 / (2 * Decimal(deviation) ** 2)).exp()
        weights, step, square = [Decimal(1)], base, base * base
        for _ in range(reach):  # exp(-(k+1)²/2s²) is exp(-k²/2s²) times base^(2k+1)
            weights.append(weights[-1] * step)
            step *= square
        masses = [*weights[:0:-1], *weights]
        scale, passed, thresholds = Decimal(2**128) / sum(masses, Decimal(0)), Decimal(0), []
        for mass in masses[:-1]:
            passed += mass
            thresholds.append(int((passed * scale).to_integral_value()))
    return tuple(threshold for threshold in thresholds if threshold < 2**128)


def _table_distance(deviation: float) -> float:
    reach = _reach(deviation)
    cut = 2 * deviation / (reach * math.sqrt(2 * math.pi)) * math.exp(-((reach / deviation) ** 2) / 2)
    return (2 * reach + 1) * 2.0**-128 + cut
