"""Events: written and read back, and refused when they say what cannot have happened."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import LedgerCorrupt, PrivacyError
from fedft.privacy.events import (
    DataIndependentRelease,
    DpSgdRound,
    GaussianRelease,
    PrivacyEvent,
    UnprotectedRelease,
    event_as_json,
    event_from_json,
)

NOISE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
EVENTS: st.SearchStrategy[PrivacyEvent] = st.one_of(
    st.builds(
        DpSgdRound,
        NOISE,
        st.floats(min_value=0, max_value=1, exclude_min=True),
        st.integers(min_value=1, max_value=10**9),
    ),
    st.builds(GaussianRelease, NOISE),
    st.builds(UnprotectedRelease),
    st.builds(DataIndependentRelease),
)


@given(EVENTS)
def test_an_event_comes_back_from_its_json_unchanged(event: PrivacyEvent) -> None:
    assert event_from_json(json.loads(json.dumps(event_as_json(event)))) == event


def test_the_json_of_each_kind() -> None:
    assert event_as_json(DpSgdRound(1.1, 0.02, 10)) == {
        "kind": "dp-sgd-round",
        "noise_multiplier": 1.1,
        "sampling_rate": 0.02,
        "steps": 10,
    }
    assert event_as_json(GaussianRelease(5.0)) == {"kind": "gaussian-release", "noise_multiplier": 5.0}
    assert event_as_json(UnprotectedRelease()) == {"kind": "unprotected-release"}
    assert event_as_json(DataIndependentRelease()) == {"kind": "data-independent-release"}


@pytest.mark.parametrize("noise", [0.0, -1.0, math.inf, math.nan, "1", None, True])
def test_noise_that_is_none_is_no_event(noise: Any) -> None:
    with pytest.raises(PrivacyError, match="expected a finite noise multiplier above 0"):
        DpSgdRound(noise, 0.1, 1)
    with pytest.raises(PrivacyError, match="UnprotectedRelease"):
        GaussianRelease(noise)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0000001, math.nan, "0.1", True])
def test_a_sampling_rate_is_a_probability_above_0(rate: Any) -> None:
    with pytest.raises(PrivacyError, match=r"expected a sampling rate in \(0, 1\]"):
        DpSgdRound(1.0, rate, 1)


@pytest.mark.parametrize("steps", [0, -1, 1.0, 2.5, "3", True, math.nan])
def test_steps_are_a_whole_number_from_1(steps: Any) -> None:
    with pytest.raises(PrivacyError, match="expected a whole number of steps"):
        DpSgdRound(1.0, 0.1, steps)


ROUND = {"kind": "dp-sgd-round", "noise_multiplier": 1.1, "sampling_rate": 0.02, "steps": 10}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"noise_multiplier": 1.0},
        {"kind": "laplace-release", "noise_multiplier": 1.0},
        {"kind": ["gaussian-release"], "noise_multiplier": 1.0},
        {"kind": "gaussian-release"},
        {"kind": "gaussian-release", "noise_multiplier": 1.0, "epsilon": 0.1},
        {"kind": "gaussian-release", "noise_multiplier": math.nan},
        {"kind": "unprotected-release", "noise_multiplier": 1.0},
        {**ROUND, "noise_multiplier": 0.0},
        {**ROUND, "sampling_rate": 0.0},
        {**ROUND, "sampling_rate": 2.0},
        {**ROUND, "steps": -10},
        {**ROUND, "steps": 10.0},
        {**ROUND, "steps": "10"},
    ],
    ids=str,
)
def test_an_altered_event_is_a_corrupt_ledger(body: dict[str, Any]) -> None:
    with pytest.raises(LedgerCorrupt, match="expected a privacy event of kind"):
        event_from_json(body)
