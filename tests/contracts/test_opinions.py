"""The second accountants: Opacus' PRV without torch is Opacus' PRV; all of them agree where the truth is known."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from fedft.errors import PrivacyError
from fedft.privacy import opinions
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.events import (
    DataIndependentRelease,
    DistributedStep,
    DpSgdRound,
    GaussianRelease,
    PrivacyEvent,
    UnprotectedRelease,
)
from fedft.privacy.opinions import PRV_ERROR, coarse_epsilon, prv_bounds, prv_error, rdp_epsilon

RUNS: list[list[PrivacyEvent]] = [
    [DpSgdRound(1.0, 0.01, 1000)],
    [DpSgdRound(0.8, 0.0038, 800)],
    [DpSgdRound(0.6, 0.02, 500)],
    [DpSgdRound(2.0, 0.1, 300)],
    [DpSgdRound(1.5, 0.15, 200), GaussianRelease(5.0)],
    [DpSgdRound(1.1, 0.05, 100), DpSgdRound(0.9, 0.02, 60), GaussianRelease(10.0), GaussianRelease(20.0)],
    [DpSgdRound(10.0, 1.0, 50)],
    [DistributedStep(1.2, 0.05, 100, 3, 1e-18)],
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("events", RUNS[:7], ids=str)
def test_prv_without_torch_is_opacus_own_to_the_last_bit(events: Sequence[PrivacyEvent]) -> None:
    from opacus.accountants import PRVAccountant

    reference = PRVAccountant()
    reference.history = [(noise, rate, steps) for (noise, rate), steps in sorted(opinions._counts(events).items())]
    assert prv_bounds(events, 1e-5)[1] == float(reference.get_epsilon(1e-5, eps_error=prv_error(events, 1e-5)))


def test_no_second_accountant_needs_torch() -> None:
    check = (
        "import sys; from fedft.privacy.events import DpSgdRound; from fedft.privacy import opinions; "
        "print([getattr(opinions, name)([DpSgdRound(1.0, 0.01, 100)], 1e-5) is not None for name in "
        "('prv_bounds', 'rdp_epsilon', 'coarse_epsilon')], {'torch', 'opacus'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[True, True, True] set()"


@pytest.mark.parametrize("events", RUNS, ids=str)
def test_the_epsilon_of_the_product_lies_where_the_others_say(events: Sequence[PrivacyEvent]) -> None:
    found = epsilon_of(events, 1e-5)
    low, high = prv_bounds(events, 1e-5)
    assert low <= found <= high + 0.004
    assert PRV_ERROR <= prv_error(events, 1e-5) < 0.04
    assert high - low < 2.1 * prv_error(events, 1e-5)
    assert found - 1e-6 <= coarse_epsilon(events, 1e-5) <= found + 0.01
    assert 0.4 * rdp_epsilon(events, 1e-5) < found < rdp_epsilon(events, 1e-5)


def exact_gaussian(sigma: float, delta: float) -> float:
    """Balle & Wang 2018, theorem 8."""

    def excess(epsilon: float) -> float:
        inner = 1 / (2 * sigma)
        return float(ndtr(inner - epsilon * sigma) - math.exp(epsilon + log_ndtr(-inner - epsilon * sigma))) - delta

    return float(brentq(excess, 0, 200, xtol=1e-10))


@settings(max_examples=10, deadline=None)
@given(st.floats(0.4, 30), st.sampled_from([1e-3, 1e-5, 1e-8]), st.integers(1, 40))
def test_a_gaussian_has_its_closed_form_by_each(sigma: float, delta: float, releases: int) -> None:
    exact = exact_gaussian(sigma, delta)
    events = [GaussianRelease(sigma * math.sqrt(releases))] * releases
    low, high = prv_bounds(events, delta)
    assert low <= exact <= high
    assert exact - 1e-7 <= coarse_epsilon(events, delta) <= exact + 0.005
    assert exact <= rdp_epsilon(events, delta) <= 1.5 * exact + 0.05


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.sampled_from([DpSgdRound(2.0, 0.1, 10), GaussianRelease(8.0), DpSgdRound(1.5, 0.05, 5)]), max_size=5)
)
def test_rounds_in_any_order_and_free_releases_change_no_bit(events: list[PrivacyEvent]) -> None:
    free = [DataIndependentRelease(), *reversed(events)]
    for opinion in (rdp_epsilon, coarse_epsilon, prv_bounds):
        assert opinion(free, 1e-5) == opinion(events, 1e-5)


@pytest.mark.parametrize("opinion", [rdp_epsilon, coarse_epsilon, prv_bounds])
def test_none_gives_a_figure_for_what_was_not_protected(opinion: object) -> None:
    with pytest.raises(PrivacyError, match="without"):
        opinion([DpSgdRound(1.0, 0.1, 1), UnprotectedRelease()], 1e-5)  # type: ignore[operator]


def test_prv_says_so_where_it_has_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrivacyError, match="no figure by PRV"):
        prv_bounds([DpSgdRound(0.05, 0.5, 100_000)], 1e-5)
    opinions._prv_accountant.cache_clear()
    opinions._prv_composition.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PrivacyError, match="pip install --no-deps opacus"):
        prv_bounds([DpSgdRound(1.0, 0.1, 1)], 1e-5)
