"""From privacy events to epsilon, by privacy loss distributions.

Sommer, Meiser & Mohammadi 2019; the distributions are losses.py's. Neighbouring relation: add or remove one unit. Every
figure here is an upper bound on the true epsilon of the composition of all events. Equal mechanisms are merged before
anything is computed, so ten steps and twice five steps come to the same number to the last bit, in whatever order they
are listed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from fedft.errors import ConfigError, PrivacyBudgetExhausted, UnreachableEpsilon
from fedft.privacy.events import (
    DataIndependentRelease,
    DistributedStep,
    DpSgdRound,
    GaussianRelease,
    PrivacyEvent,
    UnprotectedRelease,
)
from fedft.privacy.losses import Pair, composed, one_step

INTERVAL = 2.5e-4
"""Privacy losses are rounded to multiples of this. One value for all, so that more events never come to less."""

LARGEST_GRID = 2**20
"""Points of a loss distribution beyond which the interval doubles: only where epsilon is in the hundreds."""

TICKS_PER_UNIT = 1000
"""Calibrated noise multipliers are multiples of 1/1000."""

LARGEST_NOISE = 10_000
"""Noise beyond which nothing is learnt: calibration gives up, and more counts as this much."""

LARGEST_SEARCH = 200
"""Rounds in which an epsilon that also pays for gaps is found, or given up as infinite."""

_Mechanism = tuple[float, float, int]
"""Noise multiplier, sampling rate, steps; sampling rate 1 is the Gaussian mechanism."""


def epsilon_of(events: Sequence[PrivacyEvent], delta: float) -> float:
    """The epsilon that all ``events`` on one data set amount to at ``delta``.

    Guarantee: an upper bound, which no further event lowers; up to 1,000 steps at most 0.004 above what a ten times
    finer discretisation finds. No events: 0, and a DataIndependentRelease adds nothing. Any UnprotectedRelease, noise
    below 1/1000, losses of about 100,000, a delta below some 1e-15 and 2e-16 a step, which rounding hides, or
    DistributedSteps whose gaps leave nothing of delta: infinite.
    """
    return epsilon_curve(events, (delta,))[0]


def epsilon_curve(events: Sequence[PrivacyEvent], deltas: Sequence[float]) -> list[float]:
    """``epsilon_of`` at several deltas for the price of one composition."""
    return [_epsilon_at(events, delta) for delta in deltas]


def delta_curve(events: Sequence[PrivacyEvent], epsilons: Sequence[float]) -> list[float]:
    """The deltas that all ``events`` on one data set amount to at these epsilons, each at most 1.

    Guarantee: upper bounds, as ``epsilon_of``, on a grid eight times as wide, which raises them by some 1e-4 of their
    size at a ninth of the price; where epsilon is infinite whatever delta is, they are 1.
    """
    paid = _paid(events)
    mechanisms = None if paid is None else _merged(paid)
    interval = _interval(mechanisms) if mechanisms else 0.0
    if paid is None or mechanisms is None or interval >= 0.1:
        return [1.0] * len(epsilons)
    gap, deltas = _gap(paid), _deltas(mechanisms, tuple(epsilons), interval)
    return [min(1.0, d + (1 + math.exp(min(e, 700.0))) * gap) for e, d in zip(epsilons, deltas, strict=True)]


def calibrate(
    *, epsilon: float, delta: float, sampling_rate: float, steps: int, other: Sequence[PrivacyEvent] = ()
) -> float:
    """The noise multiplier for ``steps`` steps of DP-SGD that, together with ``other`` events, stay within the budget.

    Guarantee: the result σ is the smallest multiple of 1/1000 with
    ``epsilon_of([DpSgdRound(σ, sampling_rate, steps), *other], delta) <= epsilon``; also when the steps are then played
    and accounted in rounds.

    Raises
    ------
    UnreachableEpsilon
        No noise multiplier up to 10,000 is enough, as when ``other`` alone exceed the budget.
    """
    if not 0 < epsilon < math.inf:
        raise UnreachableEpsilon(f"expected an epsilon above 0 and finite, found {epsilon}: correct privacy.epsilon")

    def excess(ticks: int, coarser: float) -> float:
        events = [DpSgdRound(ticks / TICKS_PER_UNIT, sampling_rate, steps), *other]
        return _log_ratio(_epsilon_at(events, delta, coarser), epsilon)

    near = (
        _smallest_within(lambda ticks: excess(ticks, 8.0), TICKS_PER_UNIT, reach=0.5) or LARGEST_NOISE * TICKS_PER_UNIT
    )
    ticks = _smallest_within(lambda ticks: excess(ticks, 1.0), near, reach=0.0)
    if ticks is None:
        raise UnreachableEpsilon(
            f"expected a noise multiplier up to {LARGEST_NOISE} that keeps {steps} steps at sampling "
            f"rate {sampling_rate:g} within epsilon {epsilon:g} at delta {delta:g}, found none (other planned releases "
            f"alone come to {epsilon_of(other, delta):.4g}): raise epsilon or delta, or plan fewer rounds or steps"
        )
    return ticks / TICKS_PER_UNIT


def require_budget_for(
    past: Sequence[PrivacyEvent], event: PrivacyEvent, *, epsilon: float, delta: float, dataset: str
) -> float:
    """The epsilon spent on the data set once ``event`` has happened after ``past``.

    Raises
    ------
    PrivacyBudgetExhausted
        That epsilon exceeds the cap ``epsilon``. Nothing has been computed on the data then.
    """
    spent = epsilon_of([*past, event], delta)
    if not spent <= epsilon:
        raise PrivacyBudgetExhausted(
            f'expected data set "{dataset}" to stay within its cap of epsilon {epsilon:g} at delta {delta:g}, found '
            f"{spent:.4g} after this release ({epsilon_of(past, delta):.4g} spent so far): leave it out of further "
            "rounds, or let its owner raise the cap"
        )
    return spent


def require_delta(delta: float, units: int) -> None:
    """Raises ConfigError when delta >= 1/units: publishing one unit outright would then count as private."""
    _require_probability(delta)
    if delta * units >= 1:
        raise ConfigError(
            f"expected delta below 1 / number of privacy units, found delta {delta:g}, which needs more than "
            f"{1 / delta:.6g} units: lower privacy.delta, or bring more data"
        )


def _require_probability(delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(f"expected a delta in (0, 1), found {delta}: correct privacy.delta")


def is_more_noise_than_calibrated(
    noise: float, *, epsilon: float, delta: float, sampling_rate: float, steps: int, other: Sequence[PrivacyEvent] = ()
) -> bool:
    """Whether 1/1000 less than ``noise`` does, on a grid eight times as wide, at a tenth of the price of calibrate.

    False for what ``calibrate`` gives, and, the grid being wide, for a few thousandths more where noise is high.
    """
    less = noise - 1 / TICKS_PER_UNIT
    return less > 0 and _epsilon_at([DpSgdRound(less, sampling_rate, steps), *other], delta, 8.0) <= epsilon


def _epsilon_at(events: Sequence[PrivacyEvent], delta: float, coarser: float = 1.0) -> float:
    _require_probability(delta)
    paid = _paid(events)
    if paid is None:
        return math.inf
    mechanisms = _merged(paid)
    if not mechanisms:
        return 0.0
    interval = _interval(mechanisms)
    if interval >= 0.1:
        return math.inf
    return widened(lambda left: _epsilon(mechanisms, left, interval, coarser), float(delta), _gap(paid))


def _paid(events: Sequence[PrivacyEvent]) -> Sequence[PrivacyEvent] | None:
    """Without those that cost nothing; None where one has no guarantee."""
    paid = [event for event in events if not isinstance(event, DataIndependentRelease)]
    if any(isinstance(event, UnprotectedRelease) or event.noise_multiplier < 1 / TICKS_PER_UNIT for event in paid):
        return None
    return paid


def _gap(events: Sequence[PrivacyEvent]) -> float:
    return math.fsum(event.steps * event.gap for event in events if isinstance(event, DistributedStep))


def widened(epsilon_at: Callable[[float], float], delta: float, gap: float) -> float:
    """The least ε >= epsilon_at(delta - (1 + e^ε)·gap); infinite where there is none.

    Whatever has a total variation distance up to ``gap`` from an (ε, δ)-private outcome, on both neighbours, is (ε, δ +
    (1 + e^ε)·gap)-private: P(S) <= P'(S) + gap <= e^ε Q'(S) + δ + gap <= e^ε (Q(S) + gap) + δ + gap. The gaps of steps
    that follow each other add up. Sought from below, so a larger gap or more events never come to less.
    """
    epsilon = epsilon_at(delta)
    if not gap:
        return epsilon
    for _ in range(LARGEST_SEARCH):
        left = delta - (1 + math.exp(epsilon)) * gap if epsilon < 700 else 0.0
        if left <= 0:
            return math.inf
        wider = epsilon_at(left)
        if wider <= epsilon:
            return epsilon
        epsilon = wider
    return math.inf


def _merged(events: Sequence[PrivacyEvent]) -> tuple[_Mechanism, ...]:
    """Equal mechanisms added up and all Gaussians made one, in an order that does not depend on that of the events."""
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        if isinstance(event, DpSgdRound | DistributedStep):
            steps[min(event.noise_multiplier, LARGEST_NOISE), event.sampling_rate] += event.steps
        elif isinstance(event, GaussianRelease):
            steps[min(event.noise_multiplier, LARGEST_NOISE), 1] += 1
    sampled = sorted((noise, rate, count) for (noise, rate), count in steps.items() if rate < 1)
    precision = math.fsum(count / noise**2 for (noise, rate), count in steps.items() if rate == 1)
    return (*sampled, *([(1 / math.sqrt(precision), 1.0, 1)] if precision else []))


@lru_cache(maxsize=4096)
def _epsilon(mechanisms: tuple[_Mechanism, ...], delta: float, interval: float, coarser: float) -> float:
    return _composition(mechanisms, interval, coarser).epsilon(delta)


@lru_cache(maxsize=256)
def _deltas(mechanisms: tuple[_Mechanism, ...], epsilons: tuple[float, ...], interval: float) -> tuple[float, ...]:
    if not mechanisms:
        return (0.0,) * len(epsilons)
    return _composition(mechanisms, interval, 8.0).deltas(epsilons)


@lru_cache(maxsize=2)
def _composition(mechanisms: tuple[_Mechanism, ...], interval: float, coarser: float) -> Pair:
    step = _kept_step if coarser == 1 else one_step  # coarse tries never come back, and would drive out the rest
    return composed([(step(noise, rate, interval * coarser), steps) for noise, rate, steps in mechanisms])


_kept_step = lru_cache(maxsize=64)(one_step)
"""It is what takes time. Room for what calibration and budget checks of some thirty institutions ask for."""


def _interval(mechanisms: tuple[_Mechanism, ...]) -> float:
    """INTERVAL, doubled until the losses' likely span fits LARGEST_GRID; epsilon is an upper bound at any interval."""
    total = sum(steps * _renyi_2(noise, rate) for noise, rate, steps in mechanisms)
    widest = max(1 / (2 * noise**2) + 8 / noise for noise, _, _ in mechanisms)
    span = total + 8 * math.sqrt(2 * total) + widest
    return INTERVAL * 2.0 ** math.ceil(max(0.0, math.log2(span / INTERVAL / LARGEST_GRID)))


def _renyi_2(noise: float, rate: float) -> float:
    """ln(1 + q²(exp(1/σ²) - 1)), one step's Rényi divergence of order 2 (Mironov, Talwar & Zhang 2019, section 3.3)."""
    staying = math.log1p(-(rate**2)) if rate < 1 else -math.inf
    return max(0.0, float(np.logaddexp(staying, 2 * math.log(rate) + noise**-2)))


def _log_ratio(value: float, budget: float) -> float:
    return math.log(value / budget) if 0 < value < math.inf else math.copysign(50.0, value - budget)


def _smallest_within(excess: Callable[[int], float], start: int, *, reach: float) -> int | None:
    """The smallest number of ticks with excess(ticks) <= 0, for a decreasing ``excess``; None beyond LARGEST_NOISE.

    Brackets it by strides from ``start``: the first is ``reach`` times as long, each further one about twice the last.
    """
    low = high = start
    at_low = at_high = excess(start)
    while at_high > 0:
        if high == LARGEST_NOISE * TICKS_PER_UNIT:
            return None
        low, at_low, high = high, at_high, min(high + max(1, round(high * reach)), LARGEST_NOISE * TICKS_PER_UNIT)
        at_high, reach = excess(high), min(2 * reach + 1 / high, 1.0)
    while at_low <= 0:
        if low == 1:
            return 1
        high, at_high, low = low, at_low, low - max(1, round(low * reach))
        at_low, reach = excess(low), min(2 * reach + 1 / high, 0.5)
    return _narrowed(excess, (low, at_low), (high, at_high))


def _narrowed(excess: Callable[[int], float], below: tuple[int, float], within: tuple[int, float]) -> int:
    """Regula falsi with the Illinois rule on whole ticks: excess(below) > 0 >= excess(within)."""
    (low, at_low), (high, at_high) = below, within
    moved = 0
    while high - low > 1:
        middle = round(low + (high - low) * at_low / (at_low - at_high))
        middle = min(max(middle, low + 1), high - 1)
        value = excess(middle)
        if value > 0:
            low, at_low, at_high = middle, value, at_high / 2 if moved > 0 else at_high
        else:
            high, at_high, at_low = middle, value, at_low / 2 if moved < 0 else at_low
        moved = 1 if value > 0 else -1
    return high
