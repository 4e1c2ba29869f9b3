"""A round's plan: its text, its digest, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fedft.errors import ConfigError, StaleUpdate
from fedft.model.vector import vector_digest
from fedft.rounds.plan import RoundPlan, RoundRequest, require_sent_adapter, task_of_round
from fedft.types import Digest

PLAN = RoundPlan(
    run="run-1", round=2, rounds=3, task="default", task_index=0, cohort=("north", "south"),
    layout_digest=Digest("a" * 64), adapter_digest=Digest("b" * 64), roles=("lora_B", "head"), local_steps=4,
    first_step=4, total_steps=12,
)  # fmt: skip


def test_a_plan_comes_back_the_same() -> None:
    assert RoundPlan.from_json(PLAN.as_json()) == PLAN
    assert RoundPlan.from_json(PLAN.as_json()).digest == PLAN.digest


def test_every_field_changes_the_digest() -> None:
    changed = [
        replace(PLAN, round=3), replace(PLAN, task="other"), replace(PLAN, cohort=("north",)),
        replace(PLAN, adapter_digest=Digest("c" * 64)), replace(PLAN, local_steps=5), replace(PLAN, roles=("head",)),
    ]  # fmt: skip
    assert len({plan.digest for plan in [PLAN, *changed]}) == len(changed) + 1


def altered(**values: object) -> str:
    return json.dumps(json.loads(PLAN.as_json()) | values, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", "[" * 100_000, PLAN.as_json() + " ", altered(extra=1), altered(round="2"),
        altered(round=True), altered(round=0), altered(round=4), altered(local_steps=0), altered(first_step=9),
        altered(roles=["lora_C"]), altered(roles=[]), altered(cohort="north"), altered(label="other"),
        altered(cohort=[]), altered(cohort=["two words"]), altered(run="a run"), altered(task="line\nbreak"),
    ],
)  # fmt: skip
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        RoundPlan.from_json(text)


def test_the_adapter_must_be_the_plans() -> None:
    vector = np.arange(3, dtype=np.float32)
    require_sent_adapter(RoundRequest(replace(PLAN, adapter_digest=vector_digest(vector)), vector))
    with pytest.raises(StaleUpdate):
        require_sent_adapter(RoundRequest(PLAN, vector))


def test_tasks_follow_each_other() -> None:
    assert [task_of_round(r, ("a", "b"), (2, 1)) for r in (1, 2, 3, 4)] == [("a", 0), ("a", 0), ("b", 1), ("b", 1)]
    assert task_of_round(7, (), ()) == ("default", 0)
