"""What right guesses about canaries say of epsilon: lower bounds from one run.

m canaries go into the training rows, each by a fair coin of its own. From all that is released, r of the coins are
guessed and the rest left open; v guesses are right. Differential privacy bounds how often that many are. A bound
falsifies a claim; no attack can confirm one.

- ``epsilon_one_run``: (epsilon, delta) without further assumptions. Steinke, Nasr & Jagielski 2023, "Privacy auditing
  with one (1) training run", arXiv 2305.08846, theorem 5.2.
- ``falsifies``: a whole trade-off curve. Mahloujifar, Melis & Chaudhuri 2025, "Auditing f-differential privacy in one
  run", arXiv 2410.22235, algorithm audit_rh_with_cap. ``epsilon_gaussian`` is the epsilon of the Gaussian mechanisms
  among such curves: tighter, and a bound only for a mechanism whose curve is Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, log_ndtr, ndtr, ndtri
from scipy.stats import binom

from fedft.errors import ConfigError

STEP = 0.01
"""Epsilons are tried in multiples of this, from 0."""

LARGEST_EPSILON = 50.0
LARGEST_MU = 40.0

LeastFalsePositives = Callable[[float], float]
"""The least false positive rate of any test with this true positive rate: 1 - f, inverted, of a trade-off curve f."""


def p_value(*, canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The most probable that ``right`` or more of the guesses are right under (epsilon, delta)-DP, at most 1."""
    _require_counts(canaries, guesses, right)
    chance = expit(epsilon)
    beta = float(binom.sf(right - 1, guesses, chance))
    if delta == 0 or right == 0:
        return min(1.0, beta)
    fewer = np.arange(1, right + 1)
    alpha = float(np.max((binom.sf(right - fewer - 1, guesses, chance) - beta) / fewer))
    return min(1.0, beta + 2 * canaries * delta * max(0.0, alpha))


def epsilon_one_run(*, canaries: int, guesses: int, right: int, delta: float, significance: float) -> float:
    """The largest multiple of STEP such that it and all below have a p-value of at most ``significance``; else 0.

    Guarantee: for an (epsilon, delta)-DP mechanism and a number of guesses fixed beforehand, the result exceeds epsilon
    with a probability of at most ``significance``.
    """
    number = 0
    while number * STEP < LARGEST_EPSILON:
        found = p_value(canaries=canaries, guesses=guesses, right=right, epsilon=number * STEP, delta=delta)
        if found > significance:
            break
        number += 1
    return round(max(0, number - 1) * STEP, 2)


def falsifies(
    least_false_positives: LeastFalsePositives, *, canaries: int, guesses: int, right: int, significance: float
) -> bool:
    """Whether so many right guesses contradict a mechanism's trade-off curve.

    Guarantee: for a mechanism with that curve and a number of guesses fixed beforehand, true with a probability of at
    most ``significance``.
    """
    _require_counts(canaries, guesses, right)
    r, h = significance * right / canaries, significance * (guesses - right) / canaries
    for i in range(right - 1, -1, -1):
        higher = max(h, least_false_positives(r))
        if higher == h:
            break  # neither changes any more
        r, h = min(1.0, r + i / (guesses - i) * (higher - h)), higher
    return r + h > guesses / canaries


def epsilon_gaussian(*, canaries: int, guesses: int, right: int, delta: float, significance: float) -> float:
    """The epsilon at ``delta`` of the most private Gaussian mechanism that the guesses do not contradict, rounded down.

    Guarantee: as ``epsilon_one_run``, for mechanisms whose trade-off curve is that of a Gaussian mechanism.
    """

    def contradicted(mu: float) -> bool:
        curve = gaussian_curve(mu)
        return falsifies(curve, canaries=canaries, guesses=guesses, right=right, significance=significance)

    low, high = 0.0, LARGEST_MU
    if not contradicted(low):
        return 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if contradicted(middle) else (low, middle)
    return round(math.floor(epsilon_of_gaussian(low, delta) / STEP) * STEP, 2)


def gaussian_curve(mu: float) -> LeastFalsePositives:
    """Of telling N(0, 1) from N(mu, 1): Dong, Roth & Su 2022, "Gaussian differential privacy"."""
    return lambda true_positives: float(ndtr(ndtri(true_positives) - mu))


def curve_of(epsilons: Sequence[float], deltas: Sequence[float]) -> LeastFalsePositives:
    """The curve of a mechanism that is (epsilon, delta)-DP for each of the pairs, both ways; infinite ones say nothing.

    A finite number of pairs lies on or below the mechanism's own curve, so that what falsifies it falsifies that too.
    """
    pairs = [(e, d) for e, d in zip(epsilons, deltas, strict=True) if math.isfinite(e)]
    epsilon, delta = (np.array(side) for side in zip(*pairs, strict=True)) if pairs else (np.zeros(0), np.zeros(0))

    def least(true_positives: float) -> float:
        bounds = (np.exp(-epsilon) * (true_positives - delta), 1 - delta - np.exp(epsilon) * (1 - true_positives))
        return float(np.max(np.concatenate(bounds), initial=0.0))

    return least


def epsilon_of_gaussian(mu: float, delta: float) -> float:
    """Epsilon at ``delta`` of a Gaussian mechanism of sensitivity / deviation ``mu``: Balle & Wang 2018, theorem 8."""
    if delta_of_gaussian(mu, 0.0) <= delta:
        return 0.0
    high = 1.0
    while delta_of_gaussian(mu, high) > delta:
        high *= 2
    return float(brentq(lambda epsilon: delta_of_gaussian(mu, epsilon) - delta, 0.0, high, xtol=1e-9))


def delta_of_gaussian(mu: float, epsilon: float) -> float:
    if mu == 0:
        return 0.0
    far = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return float(ndtr(mu / 2 - epsilon / mu)) - math.exp(min(0.0, far))


def right_guesses(scores: npt.NDArray[np.float64], coins: npt.NDArray[np.bool_], guesses: int) -> int:
    """How many guesses are right when the upper half of them, by score, is taken for in and the lower for out.

    Ties are broken by position, which the coins know nothing of. An odd number has one more guess of in.
    """
    _require_counts(len(scores), guesses, 0)
    order = np.argsort(-scores, kind="stable")
    inside = guesses - guesses // 2
    return int(coins[order[:inside]].sum() + (~coins[order[len(order) - guesses // 2 :]]).sum())


def _require_counts(canaries: int, guesses: int, right: int) -> None:
    if not 0 <= right <= guesses <= canaries or guesses < 1:
        raise ConfigError(
            f"expected right guesses <= guesses <= canaries and a guess, found {right}, {guesses}, {canaries}"
        )
