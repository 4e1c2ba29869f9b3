"""Loss distributions are upper bounds, and dp_accounting's own at the same interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution, from_gaussian_mechanism
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.fft import irfft, rfft

from fedft.privacy.losses import Direction, Losses, Pair, composed, deltas_of, one_step

NOISES = st.floats(0.02, 1000.0)
RATES = st.one_of(st.floats(1e-6, 1.0), st.sampled_from([1e-9, 0.5, 1.0 - 1e-12, 1.0]))
DIRECTIONS: dict[Direction, AdjacencyType] = {"remove": AdjacencyType.REMOVE, "add": AdjacencyType.ADD}


@given(NOISES, RATES, st.sampled_from(["remove", "add"]), st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=20))
def test_deltas_of_a_step_are_dp_accountings_within_1e_14(
    noise: float, rate: float, direction: Direction, epsilons: list[float]
) -> None:
    theirs = GaussianPrivacyLoss(noise, sampling_prob=rate, adjacency_type=DIRECTIONS[direction])
    limit = -np.log1p(-rate) if rate < 1 else 1.0
    asked = np.array([*epsilons, limit, -limit, np.nextafter(limit, 0.0), 1e-12, 0.0])
    one_by_one = [_delta_of(theirs, float(epsilon)) for epsilon in asked]
    np.testing.assert_allclose(deltas_of(direction, noise, rate, asked), one_by_one, rtol=0.0, atol=1e-14)


def _delta_of(mechanism: GaussianPrivacyLoss, epsilon: float) -> float:
    """As dp_accounting has it; within rounding of the largest loss there is, where it has none, as at that loss."""
    try:
        return float(mechanism.get_delta_for_epsilon(epsilon))
    except ValueError:
        assert abs(abs(epsilon) + np.log1p(-mechanism.sampling_prob)) < 1e-15
        return 0.0 if mechanism.adjacency_type is AdjacencyType.ADD else -np.expm1(epsilon)


@given(st.floats(0.001, 0.02), st.floats(1e-4, 1.0), st.sampled_from(["remove", "add"]))
def test_losses_of_next_to_no_noise_do_not_overflow(noise: float, rate: float, direction: Direction) -> None:
    """Losses are in the hundred thousands then: a delta that came out as 0 would be a guarantee that is not there."""
    epsilons = np.array([1.0, 500.0, 0.4 / noise**2])
    found = deltas_of(direction, noise, rate, epsilons)
    if direction == "remove" or rate == 1:
        assert (found > 0.9 * rate).all()
    else:
        assert ((found == 0) == (epsilons >= -np.log1p(-rate))).all()


@pytest.mark.parametrize("direction", ["remove", "add"])
@pytest.mark.parametrize(("noise", "rate"), [(1.1, 0.05), (0.5, 0.3), (5.0, 0.001), (2.0, 1.0), (0.7, 0.999)])
def test_a_discretised_step_is_exact_on_the_grid_and_above_between(
    noise: float, rate: float, direction: Direction
) -> None:
    interval = 2.5e-3
    pair = one_step(noise, rate, interval)
    losses = pair.removed if direction == "remove" else pair.added
    assert losses.masses.min() >= 0
    assert losses.masses.sum() + losses.infinite == pytest.approx(1.0, abs=1e-9)
    for number in (-3, 0, 1, 40, 200):
        exact, between = deltas_of(direction, noise, rate, [number * interval, (number + 0.5) * interval])
        assert losses.delta(number * interval) == pytest.approx(exact, rel=1e-7, abs=1e-10)
        assert losses.delta((number + 0.5) * interval) >= between - 1e-10


STEPS = st.tuples(st.floats(0.6, 20.0), st.floats(1e-3, 1.0), st.integers(1, 2000))


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=3), st.floats(-9.0, -1.0))
def test_compositions_are_dp_accountings(parts: list[tuple[float, float, int]], power: float) -> None:
    """Epsilons and deltas of several mechanisms together, some thousand steps, at deltas from 0.1 to 1e-9."""
    interval, delta = 1e-2, 10.0**power
    ours = composed([(one_step(noise, rate, interval), steps) for noise, rate, steps in parts])
    theirs = _theirs(parts, interval)
    expected = float(theirs.get_epsilon_for_delta(delta))
    assume(expected < 600)  # theirs overflows
    assert ours.epsilon(delta) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    epsilons = [0.0, 0.5 * expected, expected]
    deltas = theirs.get_delta_for_epsilon(epsilons)
    np.testing.assert_allclose(ours.deltas(epsilons), deltas, rtol=1e-4, atol=1e-11)


def _theirs(parts: Sequence[tuple[float, float, int]], interval: float) -> PrivacyLossDistribution:
    made = [
        from_gaussian_mechanism(noise, value_discretization_interval=interval, sampling_prob=rate).self_compose(steps)
        for noise, rate, steps in parts
    ]
    whole = made[0]
    for part in made[1:]:
        whole = whole.compose(part)
    return whole


@settings(deadline=None)
@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30),
    st.integers(-40, 40),
    st.floats(0.0, 0.2),
    st.floats(1e-6, 0.9),
)
def test_epsilon_is_the_least_whose_delta_is_small_enough(
    weights: list[float], first: int, infinite: float, delta: float
) -> None:
    masses = np.array(weights) * (1 - infinite) / max(1.0, sum(weights))
    losses = Losses(0.1, first, masses, infinite)
    found = losses.epsilon(delta)
    if found == math.inf:
        assert infinite > delta
        return
    assert losses.delta(found) <= delta * (1 + 1e-9) + 1e-15
    if found > 0:
        assert losses.delta(found * (1 - 1e-6) - 1e-9) > delta * (1 - 1e-9) - 1e-15


def test_it_is_that_of_the_worse_direction() -> None:
    """Also where adding a unit is the worse: as if the directions had other names."""
    for step in (one_step(1.1, 0.05, 2.5e-4), one_step(0.3, 0.01, 2.5e-4)):
        for pair in (step, Pair(step.added, step.removed)):
            for delta in (0.3, 1e-2, 1e-6):
                worse = max(pair.removed.epsilon(delta), pair.added.epsilon(delta))
                assert pair.epsilon(delta) == pytest.approx(worse, rel=1e-9, abs=1e-12)


def test_what_a_composition_cuts_off_counts_as_infinite() -> None:
    step = one_step(1.0, 0.1, 1e-2)
    whole = composed([(step, 50)])
    assert whole.removed.infinite >= 1e-15
    assert whole.removed.masses.sum() + whole.removed.infinite >= 1 - 1e-12
    assert whole.epsilon(1e-16) == math.inf


@pytest.mark.skipif(bool(np.finfo(np.longdouble).eps > 1e-18), reason="numpy has no extended precision here")
@pytest.mark.parametrize(
    ("noise", "rate", "steps"),
    [(1.3, 0.0134, 19_100), (0.535, 0.00097, 5060), (0.731, 0.551, 37), (2.49, 0.00938, 813), (30.0, 1e-4, 2000)],
)
def test_rounding_never_makes_a_delta_smaller(noise: float, rate: float, steps: int) -> None:
    """Against the same convolution in extended precision, down to deltas of 1e-12."""
    step = one_step(noise, rate, 1e-3)
    whole = composed([(step, steps)]).removed
    size = 2 * max(len(step.removed.masses), len(whole.masses))
    power, factor = 1.0, rfft(np.pad(step.removed.masses.astype(np.longdouble), (0, size - len(step.removed.masses))))
    for bit in f"{steps:b}":
        power = power * power * (factor if bit == "1" else 1)
    exact = np.roll(irfft(power, size), steps * step.removed.first - whole.first)[: len(whole.masses)]
    infinite = -math.expm1(steps * math.log1p(-step.removed.infinite))
    truth = Losses(whole.interval, whole.first, exact.astype(np.float64), infinite)
    for delta in (1e-3, 1e-5, 1e-7, 1e-9, 1e-10, 1e-11):
        epsilon = whole.epsilon(delta)
        assert whole.delta(epsilon) >= truth.delta(epsilon)
        assert epsilon <= truth.epsilon(max(delta / 2, delta - 1e-10))
