"""One step's losses are those that dp_accounting finds one by one."""

from __future__ import annotations

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
from hypothesis import given
from hypothesis import strategies as st

from fedft.privacy.losses import Losses, deltas_of, one_step

NOISES = st.floats(0.02, 1000.0)
RATES = st.one_of(st.floats(1e-6, 1.0), st.sampled_from([1e-9, 0.5, 1.0 - 1e-12, 1.0]))
SIDES = st.sampled_from([AdjacencyType.REMOVE, AdjacencyType.ADD])


@given(NOISES, RATES, SIDES, st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=20))
def test_deltas_are_dp_accountings_within_1e_14(
    noise: float, rate: float, side: AdjacencyType, epsilons: list[float]
) -> None:
    theirs = GaussianPrivacyLoss(noise, sampling_prob=rate, adjacency_type=side)
    limit = -np.log1p(-rate) if rate < 1 else 1.0
    asked = np.array([*epsilons, limit, -limit, np.nextafter(limit, 0.0), 1e-12, 0.0])
    ours = deltas_of(theirs, asked)
    one_by_one = [delta_of(theirs, float(epsilon)) for epsilon in asked]
    np.testing.assert_allclose(ours, one_by_one, rtol=0.0, atol=1e-14)


def delta_of(mechanism: GaussianPrivacyLoss, epsilon: float) -> float:
    """As dp_accounting has it; within rounding of the largest loss there is, where it has none, as at that loss."""
    try:
        return float(mechanism.get_delta_for_epsilon(epsilon))
    except ValueError:
        assert abs(abs(epsilon) + np.log1p(-mechanism.sampling_prob)) < 1e-15
        return 0.0 if mechanism.adjacency_type is AdjacencyType.ADD else -np.expm1(epsilon)


@given(st.floats(0.001, 0.02), st.floats(1e-4, 1.0), SIDES)
def test_losses_of_next_to_no_noise_do_not_overflow(noise: float, rate: float, side: AdjacencyType) -> None:
    """Losses are in the hundred thousands then: a delta that came out as 0 would be a guarantee that is not there."""
    epsilons = np.array([1.0, 500.0, 0.4 / noise**2])
    ours = deltas_of(GaussianPrivacyLoss(noise, sampling_prob=rate, adjacency_type=side), epsilons)
    if side is AdjacencyType.REMOVE or rate == 1:
        assert (ours > 0.9 * rate).all()
    else:
        assert ((ours == 0) == (epsilons >= -np.log1p(-rate))).all()


@pytest.mark.parametrize(
    ("noise", "rate", "interval"),
    [(1.1, 0.05, 2.5e-4), (0.4, 0.3, 1e-3), (5.0, 0.001, 2.5e-4), (0.7, 0.999, 1e-3), (2.0, 1.0, 2.5e-4)],
)
def test_a_composition_is_that_of_dp_accountings_own_step(noise: float, rate: float, interval: float) -> None:
    ours = one_step(noise, rate, interval)
    theirs = from_gaussian_mechanism(noise, value_discretization_interval=interval, sampling_prob=rate)
    epsilons = list(np.linspace(0.0, 4.0, 9))
    our_release = one_step(3.0, 1.0, interval)
    their_release = from_gaussian_mechanism(3.0, value_discretization_interval=interval)
    for steps in (1, 300):
        found = ours.self_compose(steps).compose(our_release)
        expected = theirs.self_compose(steps).compose(their_release)
        np.testing.assert_allclose(
            found.deltas(epsilons), expected.get_delta_for_epsilon(epsilons), rtol=1e-6, atol=1e-12
        )
        for delta in (1e-2, 1e-5):
            assert found.epsilon(delta) == pytest.approx(expected.get_epsilon_for_delta(delta), rel=1e-5, abs=1e-7)


def test_epsilon_is_the_larger_of_both_directions() -> None:
    """With next to no steps, adding a unit can be the worse: each direction is worse somewhere."""
    small, large = one_step(1.1, 0.05, 2.5e-4), one_step(0.3, 0.01, 2.5e-4)
    assert large.added is not None
    for losses in (
        small,
        large,
        Losses(large.added, large.removed),
        Losses(small.added or small.removed, small.removed),
    ):
        for delta in (0.3, 1e-2, 1e-6):
            sides = [side.get_epsilon_for_delta(delta) for side in (losses.removed, losses.added) if side is not None]
            assert losses.epsilon(delta) == pytest.approx(max(sides), rel=1e-9, abs=1e-12)
