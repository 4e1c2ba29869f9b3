"""The guarantees of privacy/accountant.py against other accountants, closed forms and figures measured elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from fedft.errors import PrivacyBudgetExhausted
from fedft.privacy.accountant import INTERVAL, calibrate, epsilon_of, require_budget_for
from fedft.privacy.events import DpSgdRound, GaussianRelease, PrivacyEvent

Events = tuple[PrivacyEvent, ...]

RUNS: list[tuple[Events, float]] = [
    ((DpSgdRound(1.0, 0.01, 1000),), 1e-5),
    ((DpSgdRound(0.8, 0.0038, 800),), 1e-5),
    ((DpSgdRound(0.6, 0.02, 500),), 1e-5),
    ((DpSgdRound(2.0, 0.1, 300),), 1e-5),
    ((DpSgdRound(5.0, 0.001, 1000),), 1e-6),
    ((DpSgdRound(1.5, 0.15, 200), GaussianRelease(5.0)), 1e-5),
    ((DpSgdRound(1.1, 0.05, 100), DpSgdRound(0.9, 0.02, 60), GaussianRelease(10.0), GaussianRelease(20.0)), 1e-4),
    ((DpSgdRound(10.0, 1.0, 50),), 1e-5),
]


def in_dp_accountings_words(events: Sequence[PrivacyEvent]) -> dp_event.DpEvent:
    composed = []
    for event in events:
        if isinstance(event, DpSgdRound):
            step = dp_event.PoissonSampledDpEvent(event.sampling_rate, dp_event.GaussianDpEvent(event.noise_multiplier))
            composed.append(dp_event.SelfComposedDpEvent(step, event.steps))
        elif isinstance(event, GaussianRelease):
            composed.append(dp_event.GaussianDpEvent(event.noise_multiplier))
    return dp_event.ComposedDpEvent(composed)


def by_pld(events: Sequence[PrivacyEvent], delta: float, interval: float) -> float:
    reference = PLDAccountant(value_discretization_interval=interval)
    return float(reference.compose(in_dp_accountings_words(events)).get_epsilon(delta))


@pytest.mark.parametrize(("events", "delta"), RUNS, ids=str)
def test_epsilon_is_dp_accountings_own_at_the_same_interval(events: Events, delta: float) -> None:
    assert epsilon_of(events, delta) == pytest.approx(by_pld(events, delta, INTERVAL), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("events", "delta"),
    [
        ((DpSgdRound(2.0, 0.1, 300),), 1e-5),
        ((DpSgdRound(5.0, 0.001, 1000),), 1e-6),
        ((DpSgdRound(100.0, 0.01, 1000),), 1e-5),
        ((DpSgdRound(20.0, 0.1, 200), GaussianRelease(5.0)), 1e-5),
        ((DpSgdRound(2.0, 0.001, 1000), DpSgdRound(3.0, 0.01, 10)), 1e-6),
    ],
    ids=str,
)
def test_up_to_1000_steps_it_is_at_most_0_004_above_a_ten_times_finer_discretisation(
    events: Events, delta: float
) -> None:
    finer = by_pld(events, delta, INTERVAL / 10)
    assert finer - 1e-6 <= epsilon_of(events, delta) <= finer + 0.004


@pytest.mark.filterwarnings("ignore:Optimal order:UserWarning", "ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize(("events", "delta"), RUNS, ids=str)
def test_it_agrees_with_opacus_prv_accountant(events: Events, delta: float) -> None:
    """A second accountant, by another method (Gopi et al. 2021), whose own bound is 0.01 wide."""
    reference = PRVAccountant()
    reference.history = [
        (e.noise_multiplier, e.sampling_rate, e.steps) if isinstance(e, DpSgdRound) else (e.noise_multiplier, 1.0, 1)
        for e in events
        if isinstance(e, DpSgdRound | GaussianRelease)
    ]
    upper = float(reference.get_epsilon(delta, eps_error=0.01))
    assert upper - 0.021 <= epsilon_of(events, delta) <= upper + 0.004


@pytest.mark.parametrize(("events", "delta"), RUNS, ids=str)
def test_renyi_accounting_is_an_outer_bound(events: Events, delta: float) -> None:
    outer = float(RdpAccountant().compose(in_dp_accountings_words(events)).get_epsilon(delta))
    assert 0.4 * outer < epsilon_of(events, delta) < outer + 1e-3


def delta_of_gaussian(sigma: float, epsilon: float) -> float:
    """Balle & Wang 2018, theorem 8, for sensitivity 1."""
    inner = 1 / (2 * sigma)
    return float(ndtr(inner - epsilon * sigma) - math.exp(epsilon + log_ndtr(-inner - epsilon * sigma)))


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.0, 3.7, 50.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_an_unsampled_gaussian_has_its_closed_form(sigma: float, delta: float) -> None:
    exact = brentq(lambda epsilon: delta_of_gaussian(sigma, epsilon) - delta, 0, 200, xtol=1e-10)
    for events in ([GaussianRelease(sigma)], [DpSgdRound(sigma * 3, 1.0, 9)], [GaussianRelease(sigma * 2)] * 4):
        assert exact - 1e-7 <= epsilon_of(events, delta) <= exact + 1e-3


def delta_of_one_sampled_step(sigma: float, rate: float, epsilon: float) -> float:
    """Both neighbours of one Poisson-subsampled Gaussian, by the two regions where the likelihood ratio exceeds e^ε."""

    def crossing(ratio: float) -> float:  # where (1-q) + q exp((2x-1)/(2σ²)) = ratio
        return sigma**2 * math.log((ratio - 1 + rate) / rate) + 0.5

    def mixture(x: float, sign: int) -> float:
        return float((1 - rate) * ndtr(sign * x / sigma) + rate * ndtr(sign * (x - 1) / sigma))

    high = crossing(math.exp(epsilon))
    removed = mixture(high, -1) - math.exp(epsilon) * float(ndtr(-high / sigma))
    if math.exp(-epsilon) <= 1 - rate:
        return removed
    low = crossing(math.exp(-epsilon))
    return max(removed, float(ndtr(low / sigma)) - math.exp(epsilon) * mixture(low, 1))


@pytest.mark.parametrize(("sigma", "rate"), [(0.5, 0.01), (0.7, 0.3), (1.0, 0.1), (2.0, 0.5), (1.5, 0.9)])
def test_one_subsampled_step_has_its_closed_form_for_adding_and_removing(sigma: float, rate: float) -> None:
    exact = brentq(lambda epsilon: delta_of_one_sampled_step(sigma, rate, epsilon) - 1e-5, 1e-9, 60, xtol=1e-10)
    assert exact - 1e-7 <= epsilon_of([DpSgdRound(sigma, rate, 1)], 1e-5) <= exact + 1e-3


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "known"),
    [(1.0, 0.01, 1000, 1.828), (0.8, 0.0038, 800, 1.135), (0.6, 0.02, 500, 10.28), (2.0, 0.1, 300, 4.183)],
)
def test_the_figures_measured_before(noise: float, rate: float, steps: int, known: float) -> None:
    assert epsilon_of([DpSgdRound(noise, rate, steps)], 1e-5) == pytest.approx(known, abs=0.002)


def test_runs_on_the_same_records_compose_and_are_not_added_up() -> None:
    run = DpSgdRound(1.0, 0.01, 1000)
    for runs, known in [(1, 1.828), (2, 2.584), (5, 4.202)]:
        assert epsilon_of([run] * runs, 1e-5) == pytest.approx(known, abs=0.004)


def test_a_private_fisher_costs_what_was_measured() -> None:
    run = DpSgdRound(calibrate(epsilon=5.982, delta=1e-5, sampling_rate=0.0256, steps=500), 0.0256, 500)
    extra = epsilon_of([run, GaussianRelease(5.0)], 1e-5) - epsilon_of([run], 1e-5)
    assert 0.04 < extra < 0.1


ROUNDS = st.sampled_from(
    [DpSgdRound(2.0, 0.1, 10), DpSgdRound(1.5, 0.05, 5), GaussianRelease(8.0), GaussianRelease(5.0)]
)


def split(event: PrivacyEvent, first: int) -> Events:
    if not isinstance(event, DpSgdRound) or not 0 < first < event.steps:
        return (event,)
    noise, rate = event.noise_multiplier, event.sampling_rate
    return DpSgdRound(noise, rate, first), DpSgdRound(noise, rate, event.steps - first)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.lists(ROUNDS, min_size=1, max_size=5))
def test_order_and_rounds_do_not_change_a_bit_of_epsilon(data: st.DataObject, events: list[PrivacyEvent]) -> None:
    pieces = [piece for event in events for piece in split(event, data.draw(st.integers(0, 9)))]
    shuffled = data.draw(st.permutations(pieces))
    assert epsilon_of(shuffled, 1e-5) == epsilon_of(events, 1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(ROUNDS, max_size=5), ROUNDS)
def test_no_further_event_lowers_epsilon(events: list[PrivacyEvent], more: PrivacyEvent) -> None:
    assert epsilon_of([*events, more], 1e-5) >= epsilon_of(events, 1e-5) - 1e-9


def test_each_round_of_a_run_costs_something() -> None:
    spent = [epsilon_of([DpSgdRound(4.0, 0.02, steps)], 1e-5) for steps in range(1, 200, 7)]
    assert all(later > earlier for earlier, later in pairwise(spent))


@settings(max_examples=6, deadline=None)
@given(st.floats(0.1, 20), st.floats(0.005, 1), st.integers(2, 300), st.sampled_from([(), (GaussianRelease(50.0),)]))
def test_the_calibrated_noise_is_the_least_that_stays_within_the_budget(
    epsilon: float, rate: float, steps: int, other: Events
) -> None:
    noise = calibrate(epsilon=epsilon, delta=1e-5, sampling_rate=rate, steps=steps, other=other)
    assert noise == round(noise, 3)
    assert epsilon_of([DpSgdRound(noise, rate, steps), *other], 1e-5) <= epsilon
    if noise > 0.001:
        assert epsilon_of([DpSgdRound(noise - 0.001, rate, steps), *other], 1e-5) > epsilon
    in_rounds = [DpSgdRound(noise, rate, 1), *other, DpSgdRound(noise, rate, steps - 1)]
    assert epsilon_of(in_rounds, 1e-5) <= epsilon


def test_calibrated_noise_lets_every_planned_round_through() -> None:
    noise = calibrate(epsilon=2.0, delta=1e-5, sampling_rate=0.04, steps=60, other=(GaussianRelease(20.0),))
    past: list[PrivacyEvent] = [GaussianRelease(20.0)]
    for _ in range(12):
        event = DpSgdRound(noise, 0.04, 5)
        require_budget_for(past, event, epsilon=2.0, delta=1e-5, dataset="d")
        past.append(event)
    with pytest.raises(PrivacyBudgetExhausted):
        require_budget_for(past, event, epsilon=2.0, delta=1e-5, dataset="d")
