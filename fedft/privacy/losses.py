"""Privacy loss distributions of the subsampled Gaussian mechanism: made, composed, and read at a delta.

A loss distribution is discretised pessimistically by connecting the dots (Doroshenko et al. 2022, arXiv 2207.04380,
algorithm 1): it has the mechanism's own deltas at all multiples of the interval within bounds, and more in between.
Composition is convolution, by one Fourier transform for all steps of all mechanisms. What is cut off at the upper end
counts as an infinite loss, and so does what rounding may hide. So every delta and epsilon read here is an upper bound.

Adding and removing a unit are two directions, with a distribution each; where there is no sampling they are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import log_ndtr, ndtr, ndtri

Floats = npt.NDArray[np.float64]
Direction = Literal["remove", "add"]

_FARTHEST = -float(ndtri(0.5 * math.exp(-50)))
"""Standard deviations of noise within which losses are on the grid; what is beyond is an infinite loss."""

_CUT = 1e-15
"""Probability that a composition cuts off, at most, and adds to that of an infinite loss."""

_ROUNDING = float(np.finfo(np.float64).eps)
"""Probability that a step's rounding may hide, at most, and that is added to an infinite loss: ten times what was seen
against extended precision, with up to 20,000 steps."""

_ORDERS = 2.0 ** np.arange(-24.0, 0.5, 0.5)
"""Of the moment generating function, for losses counted in intervals: where the bounds of a composition are sought."""

_LARGEST_EXPONENT = 600.0


@dataclass(frozen=True, repr=False)
class Losses:
    """One direction's loss distribution.

    masses: (n,), of the losses interval·(first + 0), interval·(first + 1), ...; infinite: of an infinite loss.
    """

    interval: float
    first: int
    masses: Floats
    infinite: float

    @cached_property
    def log_moments(self) -> tuple[Floats, Floats]:
        """log Σ m_k·e^(±tk) at _ORDERS t, (2, orders); infinite where it would overflow."""
        places = np.arange(len(self.masses))
        used = np.count_nonzero(_ORDERS * len(places) <= _LARGEST_EXPONENT)
        found = np.full((2, len(_ORDERS)), np.inf)
        for number, order in enumerate(_ORDERS[:used]):
            growing = np.exp(order * places)
            found[:, number] = np.log(self.masses @ growing), np.log(self.masses @ (1 / growing))
        return found[0], found[1]

    def delta(self, epsilon: float) -> float:
        """Σ over losses l above epsilon of m_l·(1 - e^(epsilon - l)), with what is infinite."""
        start = self._above(epsilon)
        losses = self.interval * np.arange(self.first + start, self.first + len(self.masses))
        return self.infinite - float(self.masses[start:] @ np.expm1(epsilon - losses))

    def epsilon(self, delta: float) -> float:
        """The least, from 0, whose delta is at most this one; infinite where infinite losses alone exceed it."""
        if self.infinite > delta:
            return math.inf
        if self.delta(0.0) <= delta:
            return 0.0
        low, high = self._above(0.0) - 1, len(self.masses) - 1  # the delta there is too large, and small enough
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.delta(self._loss(middle)) <= delta else (middle, high)
        decay = np.exp(-self.interval * np.arange(len(self.masses) - high))
        left = self.infinite + float(self.masses[high:].sum()) - delta
        return max(0.0, self._loss(high) + math.log(left / float(self.masses[high:] @ decay)))

    def _loss(self, place: int) -> float:
        return self.interval * (self.first + place)

    def _above(self, epsilon: float) -> int:
        """The first place of a loss above epsilon."""
        place = min(max(math.floor(epsilon / self.interval) - self.first, 0), len(self.masses))
        while place < len(self.masses) and self._loss(place) <= epsilon:
            place += 1
        return place


@dataclass(frozen=True, repr=False)
class Pair:
    """Both directions' losses; without sampling the first is also the second."""

    removed: Losses
    added: Losses

    def epsilon(self, delta: float) -> float:
        """The least that holds in both; the second is sought only where it is the larger."""
        found = self.removed.epsilon(delta)
        if found == math.inf or self.added.delta(found) <= delta:
            return found
        return max(found, self.added.epsilon(delta))

    def deltas(self, epsilons: Iterable[float]) -> tuple[float, ...]:
        return tuple(max(self.removed.delta(epsilon), self.added.delta(epsilon)) for epsilon in epsilons)


def one_step(noise: float, rate: float, interval: float) -> Pair:
    """Of a step with this noise multiplier and sampling rate, whose losses are multiples of ``interval``."""
    removed = _discretised("remove", noise, rate, interval)
    return Pair(removed, removed if rate == 1 else _discretised("add", noise, rate, interval))


def composed(parts: Sequence[tuple[Pair, int]]) -> Pair:
    """Of all steps of all parts, (one step, how many): of one interval, in either direction."""
    removed = _composed([(pair.removed, steps) for pair, steps in parts])
    if all(pair.added is pair.removed for pair, _ in parts):
        return Pair(removed, removed)
    return Pair(removed, _composed([(pair.added, steps) for pair, steps in parts]))


def deltas_of(direction: Direction, noise: float, rate: float, epsilons: npt.ArrayLike) -> Floats:
    """The deltas (n,) at epsilons (n,) of a step: upper(x) - e^ε·lower(x) at the x where the privacy loss is ε.

    Removing a unit, upper is the distribution function of N(-1, σ²) with probability q and N(0, σ²) else, lower that
    of N(0, σ²); adding one, upper is that of N(0, σ²), and lower that of N(1, σ²) with probability q and N(0, σ²) else
    (Zhu, Dong & Wang 2022, section 3). An x that rounding moves by h lowers a delta by no more than a multiple of h²,
    since x is where that difference is largest.

    Without sampling, the loss at x is u = -(x + 1/2)/σ². With it, removing a unit, e^ε = 1 - q + q·e^u, so that
    u = ε - ln q + ln(1 - (1 - q)·e^-ε); where (1 - q)·e^-ε >= 1, every x has a larger loss, and u is -∞. Adding a
    unit turns the signs of ε and x.
    """
    asked, sign = np.asarray(epsilons, dtype=np.float64), 1.0 if direction == "remove" else -1.0
    turned = sign * asked
    with np.errstate(divide="ignore"):
        missed = (1 - rate) * np.exp(np.minimum(-turned, _LARGEST_EXPONENT))
        u = turned - math.log(rate) + np.log1p(-np.minimum(missed, 1.0))
        without, with_unit = -sign * (0.5 / noise + u * noise), -sign * (u * noise - 0.5 / noise)
        if direction == "remove":
            upper = (1 - rate) * ndtr(without) + rate * ndtr(with_unit)
            lower = log_ndtr(without)
        else:
            upper = ndtr(without)
            lower = np.logaddexp(np.log1p(-rate) + log_ndtr(without), math.log(rate) + log_ndtr(with_unit))
        return np.asarray(np.clip(upper - np.exp(asked + lower), 0.0, 1.0))


def _discretised(direction: Direction, noise: float, rate: float, interval: float) -> Losses:
    """The masses of dots d apart, with deltas δ: the first has (1 - δ_0) - (δ_0 - δ_1)/(e^d - 1), the last
    (δ_(n-1) - δ_n)/(1 - e^-d), one between them (e^d·(δ_(i-1) - δ_i) - (δ_i - δ_(i+1)))/(e^d - 1), infinity δ_n."""
    sign = 1.0 if direction == "remove" else -1.0
    ends = sorted(sign * _loss_at(sign * end, noise, rate) for end in (-_FARTHEST * noise - 1, _FARTHEST * noise))
    first, last = math.floor(ends[0] / interval), math.ceil(ends[1] / interval)
    deltas = deltas_of(direction, noise, rate, interval * np.arange(first, last + 1))
    falls = deltas[:-1] - deltas[1:]
    lower, upper = 1 / math.expm1(interval), -1 / math.expm1(-interval)
    masses = np.zeros(len(deltas))
    masses[0] = 1 - deltas[0]
    masses[:-1] -= lower * falls
    masses[1:] += upper * falls
    return Losses(interval, first, np.maximum(masses, 0.0), float(deltas[-1]))


def _loss_at(x: float, noise: float, rate: float) -> float:
    """Of removing a unit: ln(1 - q + q·e^u)."""
    return float(np.logaddexp(math.log1p(-rate) if rate < 1 else -math.inf, math.log(rate) - (x + 0.5) / noise**2))


def _composed(parts: Sequence[tuple[Losses, int]]) -> Losses:
    """By Chernoff's bound no more than _CUT lies outside of [low, high]; the transform counts that at other losses, so
    it counts as infinite too. Distributions are turned about their means first: the transform's phases, whose rounding
    grows with the steps, are small then."""
    most = sum(steps * (len(losses.masses) - 1) for losses, steps in parts)
    up, down = (sum(steps * losses.log_moments[side] for losses, steps in parts) for side in (0, 1))
    high = min(most, math.ceil(np.min((up + math.log(2 / _CUT)) / _ORDERS)))
    low = max(0, math.floor(-np.min((down + math.log(2 / _CUT)) / _ORDERS)))
    size = next_fast_len(max(high - low + 1, *(len(losses.masses) for losses, _ in parts)), real=True)
    spectrum, turned = np.ones(size // 2 + 1, dtype=np.complex128), 0
    for losses, steps in parts:
        mean = round(float(losses.masses @ np.arange(len(losses.masses))))
        spectrum *= rfft(np.roll(np.pad(losses.masses, (0, size - len(losses.masses))), -mean)) ** steps
        turned += steps * mean
    masses = np.roll(irfft(spectrum, size), turned - low)[: high - low + 1]
    first = low + sum(steps * losses.first for losses, steps in parts)
    infinite = -math.expm1(math.fsum(steps * math.log1p(-losses.infinite) for losses, steps in parts))
    infinite += _CUT + _ROUNDING * sum(steps for _, steps in parts)
    return Losses(parts[0][0].interval, first, np.maximum(masses, 0.0), infinite)
