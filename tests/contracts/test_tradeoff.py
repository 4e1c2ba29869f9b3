"""privacy/tradeoff.py: no test of a Gaussian mechanism, whose curve is known exactly, beats the bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from fedft.errors import ConfigError
from fedft.privacy.accountant import delta_curve, epsilon_of
from fedft.privacy.events import DistributedStep, DpSgdRound, GaussianRelease, PrivacyEvent, UnprotectedRelease
from fedft.privacy.tradeoff import largest_tpr

EPSILONS = tuple(np.linspace(0.0, 12.0, 241))


@pytest.mark.parametrize("noise", [0.3, 0.7, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("fpr", [0.001, 0.01, 0.1, 0.5])
def test_the_bound_holds_for_the_best_test_and_is_near_it(noise: float, fpr: float) -> None:
    best = norm.sf(norm.isf(fpr) - 1 / noise)  # Neyman and Pearson's test of N(1/noise, 1) against N(0, 1)
    curve = list(zip(EPSILONS, delta_curve([GaussianRelease(noise)], EPSILONS), strict=True))
    bound = largest_tpr(curve, fpr)
    assert best <= bound + 1e-9
    assert bound <= best + 0.03


@pytest.mark.parametrize("fpr", [0.0, 0.001, 0.3, 1.0])
def test_the_bound_of_one_pair_is_reached_by_randomised_response(fpr: float) -> None:
    epsilon = 2.0
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    bound = largest_tpr([(epsilon, 0.0)], fpr)
    if fpr <= 1 - truth:  # say yes with some chance where the answer is yes
        assert bound == pytest.approx(fpr / (1 - truth) * truth)
    else:
        assert bound == pytest.approx(truth + (fpr - (1 - truth)) / truth * (1 - truth))


def test_nothing_known_bounds_nothing() -> None:
    assert largest_tpr([], 0.01) == 1.0
    assert largest_tpr([(math.inf, 1e-5)], 0.01) == 1.0
    assert largest_tpr([(0.0, 0.0)], 0.01) == pytest.approx(0.01)
    with pytest.raises(ConfigError):
        largest_tpr([], 1.5)


def test_deltas_and_epsilons_are_one_curve() -> None:
    events: list[PrivacyEvent] = [DpSgdRound(1.1, 0.05, 40), GaussianRelease(5.0)]
    for epsilon, delta in zip((0.5, 1.0, 3.0), delta_curve(events, (0.5, 1.0, 3.0)), strict=True):
        assert epsilon_of(events, delta * (1 + 1e-9)) <= epsilon + 1e-9
        assert epsilon_of(events, delta * 0.99) > epsilon - 1e-6
    assert delta_curve([], (0.0, 1.0)) == [0.0, 0.0]
    assert delta_curve([DpSgdRound(1.0, 0.1, 1), UnprotectedRelease()], (1.0,)) == [1.0]


def test_a_gap_counts_in_delta_too() -> None:
    step, wide = (
        DistributedStep(noise_multiplier=1.2, sampling_rate=0.05, steps=20, least_honest=3, gap=gap)
        for gap in (0.0, 1e-7)
    )
    (narrow,), (wider,) = delta_curve([step], (1.0,)), delta_curve([wide], (1.0,))
    assert wider == pytest.approx(narrow + (1 + math.e) * wide.steps * 1e-7)
    assert epsilon_of([wide], wider) <= 1.0 + 1e-6
