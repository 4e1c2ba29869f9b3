"""The accountant's answers to a budget, a delta and a plan that cannot be met: which error, naming what."""

from __future__ import annotations

import math
import time

import pytest

from fedft.errors import ConfigError, PrivacyBudgetExhausted, UnreachableEpsilon
from fedft.privacy.accountant import (
    _kept_step,
    calibrate,
    epsilon_curve,
    epsilon_of,
    is_more_noise_than_calibrated,
    require_budget_for,
    require_delta,
)
from fedft.privacy.events import DataIndependentRelease, DpSgdRound, GaussianRelease, PrivacyEvent, UnprotectedRelease

ROUND = DpSgdRound(2.0, 0.1, 20)


def test_nothing_costs_nothing_and_an_unprotected_release_everything() -> None:
    assert epsilon_of([], 1e-5) == 0.0
    assert epsilon_of([ROUND, UnprotectedRelease()], 1e-5) == math.inf
    assert epsilon_curve([UnprotectedRelease()], [1e-5, 1e-6]) == [math.inf, math.inf]
    free = DataIndependentRelease()
    assert epsilon_of([free], 1e-5) == 0.0
    assert epsilon_of([free, ROUND, free], 1e-5) == epsilon_of([ROUND], 1e-5)
    assert epsilon_of([free, UnprotectedRelease()], 1e-5) == math.inf


def test_the_curve_is_epsilon_at_each_delta() -> None:
    deltas = [1e-3, 1e-5, 1e-7]
    curve = epsilon_curve([ROUND, GaussianRelease(5.0)], deltas)
    assert curve == [epsilon_of([ROUND, GaussianRelease(5.0)], delta) for delta in deltas]
    assert curve == sorted(curve)


def test_a_release_within_the_budget_returns_what_is_then_spent() -> None:
    past = [ROUND, ROUND]
    after = epsilon_of([*past, ROUND], 1e-5)
    assert require_budget_for(past, ROUND, epsilon=after, delta=1e-5, dataset="wards") == after
    assert require_budget_for(past, UnprotectedRelease(), epsilon=math.inf, delta=1e-5, dataset="wards") == math.inf


def test_a_release_beyond_the_budget_is_refused_by_data_set_spent_and_cap() -> None:
    past = [ROUND, ROUND]
    spent, after = epsilon_of(past, 1e-5), epsilon_of([*past, ROUND], 1e-5)
    with pytest.raises(PrivacyBudgetExhausted) as caught:
        require_budget_for(past, ROUND, epsilon=math.nextafter(after, 0), delta=1e-5, dataset="wards")
    for word in ('"wards"', f"{spent:.4g} spent", f"{after:.4g} after", "delta 1e-05"):
        assert word in str(caught.value)


def test_an_unprotected_release_exceeds_every_finite_budget() -> None:
    with pytest.raises(PrivacyBudgetExhausted, match="found inf after this release"):
        require_budget_for([], UnprotectedRelease(), epsilon=1e9, delta=1e-5, dataset="wards")


def test_delta_must_stay_below_one_over_the_units() -> None:
    require_delta(1e-5, 99_999)
    for delta, units in [(1e-5, 100_000), (0.01, 100), (0.01, 5000)]:
        with pytest.raises(ConfigError, match="expected delta below 1 / number of privacy units") as caught:
            require_delta(delta, units)
        assert "5000" not in str(caught.value)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_is_a_probability(delta: float) -> None:
    with pytest.raises(ConfigError, match=r"expected a delta in \(0, 1\)"):
        require_delta(delta, 10)
    with pytest.raises(ConfigError, match=r"expected a delta in \(0, 1\)"):
        epsilon_of([], delta)


@pytest.mark.parametrize(
    ("epsilon", "delta", "other"),
    [
        (0.0, 1e-5, ()),
        (-1.0, 1e-5, ()),
        (math.nan, 1e-5, ()),
        (math.inf, 1e-5, ()),
        (1e-3, 1e-9, ()),
        (1.0, 1e-5, (GaussianRelease(1.0),)),
        (1.0, 1e-5, (UnprotectedRelease(),)),
        (1.0, 1e-20, ()),
    ],
)
def test_an_epsilon_that_no_noise_reaches(epsilon: float, delta: float, other: tuple[PrivacyEvent, ...]) -> None:
    with pytest.raises(UnreachableEpsilon, match="expected"):
        calibrate(epsilon=epsilon, delta=delta, sampling_rate=0.5, steps=1000, other=other)


def test_what_other_releases_take_is_named() -> None:
    other = (GaussianRelease(1.0),)
    with pytest.raises(UnreachableEpsilon, match=f"alone come to {epsilon_of(other, 1e-5):.4g}"):
        calibrate(epsilon=1.0, delta=1e-5, sampling_rate=0.1, steps=10, other=other)


@pytest.mark.parametrize(
    "event",
    [
        DpSgdRound(1e-300, 0.5, 10),
        DpSgdRound(1e-3, 1.0, 10**9),
        DpSgdRound(0.003, 0.5, 10**6),
        DpSgdRound(1e300, 1e-300, 1),
        DpSgdRound(0.05, 0.5, 100),
        GaussianRelease(1e300),
        GaussianRelease(1e-300),
    ],
    ids=str,
)
def test_absurd_events_are_accounted_all_the_same(event: PrivacyEvent) -> None:
    start = time.process_time()
    assert epsilon_of([event], 1e-5) >= 0
    assert time.process_time() - start < 10


def test_a_calibration_and_a_check_are_quick() -> None:
    start = time.process_time()
    noise = calibrate(epsilon=8.0, delta=1e-5, sampling_rate=0.123, steps=200)
    calibrated = time.process_time()
    epsilon_of([DpSgdRound(noise, 0.123, 190)], 1e-5)
    assert calibrated - start < 2
    assert time.process_time() - calibrated < 0.5


def test_what_calibration_tries_leaves_room_for_the_steps_of_ten_institutions() -> None:
    """The first institution's step is still there after ten calibrations: its budget checks compute none anew."""
    _kept_step.cache_clear()
    rates = (0.0813, 0.0817)
    noises = [calibrate(epsilon=8.0, delta=1.3e-5, sampling_rate=rate, steps=100) for rate in rates]
    kept = _kept_step.cache_info()
    assert kept.maxsize is not None
    assert 0 < kept.misses / len(rates) <= kept.maxsize / 10
    for rate, noise in zip(rates, noises, strict=True):
        step = DpSgdRound(noise, rate, 20)
        require_budget_for([step], step, epsilon=8.0, delta=1.3e-5, dataset="wards")
    assert _kept_step.cache_info().misses == kept.misses


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(8.0, 0.05, 100), (1.0, 0.01, 40), (3.0, 0.3, 500)])
def test_more_noise_than_needed_is_seen_and_the_needed_one_is_not(epsilon: float, rate: float, steps: int) -> None:
    noise = calibrate(epsilon=epsilon, delta=1e-5, sampling_rate=rate, steps=steps)

    def more(value: float) -> bool:
        return is_more_noise_than_calibrated(value, epsilon=epsilon, delta=1e-5, sampling_rate=rate, steps=steps)

    assert not more(noise)
    assert not more(noise / 2)
    assert more(noise * 1.02)
