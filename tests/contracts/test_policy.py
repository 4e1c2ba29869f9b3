"""The policy wins over any plan: whatever terms come, what goes beyond it anywhere is refused (DESIGN, promise 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.deployment.policy import require_allowed
from fedft.errors import PolicyError
from fedft.rounds.plan import RoundPlan
from tests.deployment.test_policy import BASE, PLANNED, POLICY, TERMS, terms_of

LIMITS: dict[str, tuple[Any, ...]] = {
    # key of the terms: values of which the policy above allows those of WITHIN alone
    "federation.name": ("hospitals", "banks", None, 3),
    "model.sha256": (BASE, "d" * 64, None),
    "adapter.method": ("lora", "head", "full", None, ["lora"]),
    "task.kind": ("classification", "instruction", {}),
    "aggregation.method": ("fed_svd", "fedavg", "ffa_lora", 0),
    "data.unit": ("patient", None, "visit", ""),
    "privacy.mode": ("dp-sgd", "off", "none", None, True),
    "privacy.epsilon": (0.1, 8, 8.0, 8.1, 0, -1.0, float("inf"), float("nan"), None, "1", True, 10**400),
    "privacy.delta": (1e-6, 1e-5, 1.1e-5, 0.5, 0.0, float("nan"), None),
    "privacy.clip_norm": (0.5, 10.0, 10.1, 0.0, float("inf"), None),
    "federation.rounds": (3, 2, 4, 3.0, None),
    "training.local_steps": (4, 5, True, None),
    "continual.fisher": ("public", "private-dp", None),
    "continual.method": ("none", "ewc", None),
}
WITHIN: dict[str, tuple[Any, ...]] = {
    "federation.name": ("hospitals",), "model.sha256": (BASE,), "adapter.method": ("lora", "head"),
    "task.kind": ("classification",), "aggregation.method": ("fed_svd",), "data.unit": ("patient",),
    "privacy.mode": ("dp-sgd",), "privacy.epsilon": (0.1, 8, 8.0), "privacy.delta": (1e-6, 1e-5),
    "privacy.clip_norm": (0.5, 10.0), "federation.rounds": (3,), "training.local_steps": (4,),
}  # fmt: skip


def is_within(asked: Mapping[str, Any]) -> bool:
    """Written a second time, by lists: the value itself, of its own type, is one of those allowed."""
    for key, allowed in WITHIN.items():
        value = asked[key]
        if not any(type(value) is type(one) and value == one for one in allowed):
            return False
    return bool(asked["continual.method"] == "none" or asked["continual.fisher"] == "public")


@given(st.fixed_dictionaries({key: st.sampled_from(values) for key, values in LIMITS.items()}))
def test_terms_that_go_beyond_anywhere_are_refused(asked: dict[str, Any]) -> None:
    try:
        require_allowed(POLICY, terms_of(asked), PLANNED)
        allowed = True
    except PolicyError:
        allowed = False
    assert allowed == is_within(asked)


@given(st.sampled_from(sorted(LIMITS)), st.data())
def test_one_value_beyond_is_enough(key: str, data: st.DataObject) -> None:
    value = data.draw(st.sampled_from(LIMITS[key]))
    base = {name: values[0] for name, values in LIMITS.items()}
    asked = base | {key: value}
    if is_within(asked):
        require_allowed(POLICY, terms_of(asked), PLANNED)
    else:
        with pytest.raises(PolicyError):
            require_allowed(POLICY, terms_of(asked), PLANNED)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(TERMS)), _JSON, max_size=4), st.booleans())
def test_no_terms_whatever_do_anything_else_than_pass_or_be_refused(changes: dict[str, Any], alone: bool) -> None:
    terms = changes if alone else {**TERMS, **changes}
    try:
        require_allowed(POLICY, terms, PLANNED)
    except PolicyError:
        return
    assert {key: terms[key] for key in TERMS if key not in ("label", "continual", "data", "model")} == {
        key: TERMS[key] for key in TERMS if key not in ("label", "continual", "data", "model")
    }


@given(st.integers(1, 200), st.integers(1, 200))
def test_rounds_and_steps_beyond_the_limits_are_refused_whatever_the_terms_say(rounds: int, steps: int) -> None:
    plan: RoundPlan = replace(
        PLANNED, round=1, rounds=rounds, local_steps=steps, first_step=0, total_steps=rounds * steps
    )
    terms = terms_of({"federation.rounds": rounds, "training.local_steps": steps})
    if rounds <= 50 and steps <= 50:
        require_allowed(POLICY, terms, plan)
    else:
        with pytest.raises(PolicyError, match="allow.max_"):
            require_allowed(POLICY, terms, plan)
