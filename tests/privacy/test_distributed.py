"""Noise in shares: the sum's guarantee against exact output distributions, and plans that keep what they promise."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import fftconvolve

from fedft.errors import ConfigError, NonFiniteUpdate, UnreachableEpsilon, UpdateTooLarge
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.distributed import (
    DistributedPlan,
    calibrate_distributed,
    largest_gap,
    local_epsilon,
    most_draws,
    noisy_share,
    plan_distributed,
    sensitivity,
    share_deviation,
)
from fedft.privacy.events import DistributedStep, DpSgdRound, GaussianRelease
from fedft.randomness import SecureStream

STREAM = SecureStream()
UNITS = dict.fromkeys(("north", "south", "west", "east"), 2500)
Masses = npt.NDArray[np.float64]


def plan_of(**changes: object) -> DistributedPlan:
    noise = calibrate_distributed(epsilon=3.0, delta=1e-5, sampling_rate=0.1, steps=20)
    options: dict[str, object] = {
        "noise_multiplier": noise, "sampling_rate": 0.1, "units": UNITS, "least_honest": 2, "clip_norm": 1.0,
        "size": 5000, "ring_bits": 32,
    }  # fmt: skip
    return plan_distributed(**{**options, **changes})  # type: ignore[arg-type]


def discrete_gaussian(deviation: float, reach: int) -> Masses:
    values = np.arange(-reach, reach + 1)
    masses = np.exp(-(values**2) / (2 * deviation**2))
    return np.asarray(masses / masses.sum())


def hockey_stick(p: Masses, q: Masses, epsilon: float) -> float:
    return float(np.maximum(p - math.exp(epsilon) * q, 0).sum())


@pytest.mark.parametrize(("steps", "rate"), [(1, 1.0), (1, 0.3), (2, 0.3), (3, 0.5)])
@pytest.mark.parametrize("honest", [1, 2, 3])
def test_exact_distributions_of_a_small_sum_are_within_the_claim(honest: int, steps: int, rate: float) -> None:
    """One coordinate, a scale of 8, fractions in the unit's gradient: every outcome enumerated, with and without it.

    The sum of ``honest`` discrete Gaussians, moved with probability q by ⌊a⌋ or ⌈a⌉ as rounding has it; several steps
    as the product. Both directions, at four epsilons.
    """
    scaled, noise = 7.5, 1.1
    share = share_deviation(noise, scaled, 1, honest)
    reach = 90
    single = discrete_gaussian(share, reach)
    total = single
    for _ in range(honest - 1):
        total = np.convolve(total, single)
    without = np.pad(total, 8)
    moved = 0.5 * np.roll(without, 7) + 0.5 * np.roll(without, 8)
    present = (1 - rate) * without + rate * moved
    losses = np.log(np.maximum(present, 1e-300)) - np.log(np.maximum(without, 1e-300))
    event = DistributedStep(noise, rate, steps, honest, 0.0)
    for delta in (0.1, 1e-2, 1e-3, 1e-5):
        epsilon = epsilon_of([event], delta)
        if steps == 1:
            found = max(hockey_stick(present, without, epsilon), hockey_stick(without, present, epsilon))
        else:
            found = max(composed(losses, present, steps, epsilon), composed(-losses, without, steps, epsilon))
        assert found <= delta * (1 + 1e-6)


def composed(losses: Masses, masses: Masses, steps: int, epsilon: float) -> float:
    """The hockey stick of the product of ``steps`` steps: losses rounded up to a fine grid add up by convolution.

    Rounding down by at most 1e-3 a step makes the result no larger than the exact one by more than that.
    """
    grid = 1e-3
    places = np.floor(np.clip(losses, -60, 60) / grid).astype(int)
    start = places.min()
    one = np.bincount(places - start, weights=masses)
    total = one
    for _ in range(steps - 1):
        total = np.maximum(fftconvolve(total, one), 0)
    values = (np.arange(len(total)) + steps * start) * grid
    return float((total * np.maximum(0, 1 - np.exp(epsilon - values))).sum())


def test_rounding_moves_a_vector_by_no_more_than_the_sensitivity() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 100, 10_000):
        moved = rng.normal(size=size)
        moved *= 50.0 / np.linalg.norm(moved)
        for _ in range(50):
            base, uniform = rng.normal(size=size) * 3, rng.random(size)
            difference = np.ceil(base + moved - uniform) - np.ceil(base - uniform)
            assert np.linalg.norm(difference) <= sensitivity(50.0, size)
    assert sensitivity(2.0**24, 4_000_000) <= 2.0**24 * (1 + 1e-6)


def test_the_sum_of_the_least_honest_shares_carries_the_guaranteed_noise() -> None:
    plan = plan_of(size=200_000)
    zero = np.zeros(plan.size)
    total = noisy_share(plan, zero, STREAM) + noisy_share(plan, zero, STREAM)
    central = plan.noise_multiplier * math.ldexp(plan.clip_norm, plan.fraction_bits)
    assert total.std() == pytest.approx(central, rel=0.01)
    assert total.std() == pytest.approx(math.ldexp(plan.deviation(2), plan.fraction_bits), rel=0.01)
    assert np.abs(total).max() <= 2 * min(plan.limits.values())


def test_a_share_is_the_sum_plus_noise_without_bias() -> None:
    plan = plan_of(size=100_000)
    value = 0.3 * 2.0**-plan.fraction_bits + 0.5
    found = noisy_share(plan, np.full(plan.size, value), STREAM).mean()
    assert found == pytest.approx(math.ldexp(value, plan.fraction_bits), abs=5 * plan.share_deviation / math.sqrt(1e5))


def test_a_plan_stays_within_its_budget_and_its_ring() -> None:
    for ring_bits, epsilon in product((24, 32), (1.0, 3.0, 8.0)):
        noise = calibrate_distributed(epsilon=epsilon, delta=1e-5, sampling_rate=0.1, steps=20)
        plan = plan_of(noise_multiplier=noise, ring_bits=ring_bits)
        assert epsilon_of([plan.event(20)], 1e-5) <= epsilon
        assert epsilon_of([plan.event()] * 20, 1e-5) <= epsilon
        assert sum(plan.limits.values()) <= 2 ** (ring_bits - 1) - 1
        assert 0 < plan.gap < largest_gap(epsilon=epsilon, delta=1e-5, steps=20) < 2.0**-40
        assert (
            epsilon_of([replace(plan.event(20), gap=largest_gap(epsilon=epsilon, delta=1e-5, steps=20))], 1e-5)
            <= epsilon
        )


def test_its_noise_is_hardly_more_than_a_central_trainings_and_alone_it_is_far_less() -> None:
    plan = plan_of()
    central = epsilon_of([DpSgdRound(plan.noise_multiplier, 0.1, 20)], 1e-5)
    assert epsilon_of([plan.event(20)], 1e-5) == pytest.approx(central, rel=1e-6)
    assert local_epsilon([plan.event(20)], 1e-5) > 1.5 * central
    assert local_epsilon([GaussianRelease(3.0)], 1e-5) == epsilon_of([GaussianRelease(3.0)], 1e-5)


@settings(max_examples=12)
@given(st.floats(0.5, 5), st.floats(0.01, 1), st.integers(1, 20), st.floats(0, 1e-7))
def test_a_gap_never_lowers_epsilon_nor_do_more_steps(noise: float, rate: float, steps: int, gap: float) -> None:
    event = DistributedStep(noise, rate, steps, 2, gap)
    found = epsilon_of([event], 1e-5)
    assert found >= epsilon_of([replace(event, gap=0.0)], 1e-5) == epsilon_of([DpSgdRound(noise, rate, steps)], 1e-5)
    assert epsilon_of([event, replace(event, steps=1)], 1e-5) >= found


def test_gaps_that_eat_delta_leave_no_guarantee() -> None:
    assert epsilon_of([DistributedStep(2.0, 0.1, 100, 2, 1e-6)], 1e-5) == math.inf


@pytest.mark.parametrize(("units", "rate"), [(100, 0.1), (2500, 0.02), (2500, 0.5), (10, 1.0)])
def test_more_draws_than_allowed_for_are_as_unlikely_as_said(units: int, rate: float) -> None:
    for failure in (1e-3, 1e-12):
        most = most_draws(units, rate, failure)
        assert stats.binom.sf(most, units + 1, rate) <= failure
        assert most <= units + 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ring_bits": 16}, "raise secure_aggregation.ring_bits"),
        ({"ring_bits": 33}, "expected ring_bits from 16 to 32"),
        ({"least_honest": 0}, "honest sum"),
        ({"least_honest": 5}, "honest sum"),
        ({"clip_norm": 0.0}, "privacy.clip_norm"),
        ({"size": 0}, "values in a vector"),
    ],
)
def test_plans_that_cannot_be_kept_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_of(**changes)


def test_an_epsilon_that_nothing_reaches_is_said() -> None:
    with pytest.raises(UnreachableEpsilon):
        calibrate_distributed(epsilon=1.0, delta=1e-5, sampling_rate=0.1, steps=20, other=(GaussianRelease(0.5),))


def test_what_is_no_vector_of_the_plan_leaves_no_share() -> None:
    plan = plan_of(size=10)
    with pytest.raises(ConfigError, match="float64 vector of 10"):
        noisy_share(plan, np.zeros((2, 5)), STREAM)
    with pytest.raises(NonFiniteUpdate):
        noisy_share(plan, np.full(10, np.nan), STREAM)
    with pytest.raises(UpdateTooLarge):
        noisy_share(plan, np.full(10, 1e30), STREAM)
