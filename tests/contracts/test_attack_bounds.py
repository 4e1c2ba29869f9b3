"""The bounds, on mechanisms whose epsilon is known: seldom above it, and not far below."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from fedft.attack.bounds import (
    curve_of,
    delta_of_gaussian,
    epsilon_gaussian,
    epsilon_of_gaussian,
    epsilon_one_run,
    falsifies,
    gaussian_curve,
    p_value,
    right_guesses,
)
from fedft.errors import ConfigError

TRIALS, SIGNIFICANCE = 400, 0.05
MOST = int(binom.ppf(0.9999, TRIALS, SIGNIFICANCE))
"""Violations that a bound with confidence 95 % stays below, in as many trials."""


def trials(
    scores: Callable[[np.random.Generator, npt.NDArray[np.bool_]], npt.NDArray[np.float64]],
    *,
    canaries: int,
    guesses: int,
) -> list[int]:
    """Right guesses in each of many runs of a mechanism that releases a score for each coin."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(TRIALS):
        coins = rng.random(canaries) < 0.5
        found.append(right_guesses(scores(rng, coins), coins, guesses))
    return found


def bounds_of(found: list[int], bound: Callable[..., float], **options: float) -> npt.NDArray[np.float64]:
    known = {right: bound(right=right, significance=SIGNIFICANCE, **options) for right in set(found)}
    return np.array([known[right] for right in found])


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_randomised_response_is_bounded_below_its_epsilon_and_not_by_little(epsilon: float) -> None:
    """Every coin is told rightly with probability e^epsilon / (1 + e^epsilon): the worst there is."""
    chance = 1 / (1 + math.exp(-epsilon))

    def told(rng: np.random.Generator, coins: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return np.where(rng.random(len(coins)) < chance, coins, ~coins).astype(float)

    rng = np.random.default_rng(4)
    found = list(rng.binomial(500, chance, size=TRIALS))
    found = [int(right) for right in found]
    bounds = bounds_of(found, epsilon_one_run, canaries=500, guesses=500, delta=0.0)
    assert int((bounds > epsilon).sum()) <= MOST
    assert float(np.median(bounds)) > 0.6 * epsilon
    halves = trials(told, canaries=500, guesses=500)
    assert abs(np.mean(halves) / 500 - chance) < 0.06, "guessing by halves loses a few on uneven coins alone"


@pytest.mark.parametrize("mu", [0.5, 1.0, 2.5])
def test_gaussian_noise_is_bounded_below_its_epsilon_and_by_its_curve_more_closely(mu: float) -> None:
    delta = 1e-5
    epsilon = epsilon_of_gaussian(mu, delta)

    def noisy(rng: np.random.Generator, coins: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return mu * coins + rng.normal(size=len(coins))

    options = {"canaries": 1000, "guesses": 250, "delta": delta}
    found = trials(noisy, canaries=1000, guesses=250)
    plain, curve = bounds_of(found, epsilon_one_run, **options), bounds_of(found, epsilon_gaussian, **options)
    assert int((plain > epsilon).sum()) <= MOST
    assert int((curve > epsilon).sum()) <= MOST
    assert float(np.median(plain)) > 0.15 * epsilon
    assert float(np.median(curve)) > 0.45 * epsilon
    assert float(np.median(curve)) > 1.3 * float(np.median(plain))


def test_a_mechanism_that_keeps_a_wrong_promise_is_found_out() -> None:
    """Noise of mu 2 that claims epsilon 1: falsified nearly always, by both."""
    claimed, delta = 1.0, 1e-5

    def noisy(rng: np.random.Generator, coins: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return 2.0 * coins + rng.normal(size=len(coins))

    found = trials(noisy, canaries=1000, guesses=250)
    bounds = bounds_of(found, epsilon_one_run, canaries=1000, guesses=250, delta=delta)
    assert float((bounds > claimed).mean()) > 0.99
    curve = curve_of([claimed], [delta])
    assert all(falsifies(curve, canaries=1000, guesses=250, right=v, significance=0.05) for v in set(found))


def test_delta_is_paid_for() -> None:
    """A mechanism that tells a coin outright with probability delta, and nothing otherwise, is (0, delta)-DP."""
    rng = np.random.default_rng(6)
    delta, canaries, worst = 0.02, 200, 0
    for _ in range(TRIALS):
        right = int(rng.binomial(canaries, 0.5 + delta / 2))
        worst += epsilon_one_run(canaries=canaries, guesses=canaries, right=right, delta=delta, significance=0.05) > 0
    assert worst <= MOST
    assert epsilon_one_run(canaries=500, guesses=500, right=450, delta=1e-3, significance=0.05) < epsilon_one_run(
        canaries=500, guesses=500, right=450, delta=1e-5, significance=0.05
    )


def test_ceilings_when_every_guess_is_right() -> None:
    """Of r right guesses, log(s^(1/r) / (1 - s^(1/r))): 3.47 of 100, 5.78 of 1,000 at 95 % without delta."""
    for guesses in (100, 1000):
        root = 0.05 ** (1 / guesses)
        found = epsilon_one_run(canaries=guesses, guesses=guesses, right=guesses, delta=0.0, significance=0.05)
        assert math.log(root / (1 - root)) - 0.011 < found <= math.log(root / (1 - root))


def test_p_value_by_its_definition() -> None:
    """The maximum over i, term by term."""
    chance = math.e / (1 + math.e)
    tail = [sum(float(binom.pmf(k, 20, chance)) for k in range(v, 21)) for v in range(21)]
    alpha = max((tail[17 - i] - tail[17]) / i for i in range(1, 18))
    found = p_value(canaries=50, guesses=20, right=17, epsilon=1.0, delta=1e-3)
    assert found == pytest.approx(tail[17] + 2 * 50 * 1e-3 * alpha)


@pytest.mark.parametrize("mu", [0.3, 1.0, 4.0])
def test_the_gaussians_epsilon_and_its_curve_agree(mu: float) -> None:
    """Of many (epsilon, delta), the pairs' curve comes close to the Gaussian's from below."""
    epsilons = np.linspace(0, 12, 400)
    deltas = [delta_of_gaussian(mu, float(epsilon)) for epsilon in epsilons]
    assert epsilon_of_gaussian(mu, deltas[40]) == pytest.approx(float(epsilons[40]), abs=1e-6)
    pairs, exact = curve_of(list(epsilons), deltas), gaussian_curve(mu)
    for rate in (0.01, 0.2, 0.5, 0.9, 0.999):
        assert exact(rate) - 2e-3 <= pairs(rate) <= exact(rate) + 1e-9


def test_a_curve_without_a_finite_epsilon_is_never_falsified() -> None:
    curve = curve_of([math.inf], [1e-5])
    assert not falsifies(curve, canaries=100, guesses=100, right=100, significance=0.05)


def test_guesses_take_the_ends_and_leave_the_middle() -> None:
    scores = np.array([0.1, 3.0, -2.0, 0.0, 1.0])
    assert right_guesses(scores, np.array([False, True, False, True, True]), 4) == 3
    assert right_guesses(scores, np.array([False, True, True, True, True]), 1) == 1


@pytest.mark.parametrize(("guesses", "right"), [(0, 0), (5, 6), (11, 3)])
def test_counts_that_cannot_be(guesses: int, right: int) -> None:
    with pytest.raises(ConfigError, match="expected right guesses"):
        p_value(canaries=10, guesses=guesses, right=right, epsilon=1.0, delta=0.0)
