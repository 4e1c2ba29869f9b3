"""What crosses: two forms of request and answer, and everything else is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import ConfigError, UpdateError
from fedft.flower.records import (
    RECORD,
    answer_content,
    name_content,
    read_answer,
    read_name,
    read_request,
    request_content,
)
from fedft.rounds.plan import RoundRequest
from fedft.update.release import REASONS, Refusal
from tests.rounds.test_plan import PLAN

ADAPTER = np.array([0.0, -0.0, 1.5, np.float32(1e-45), 3e38, np.inf, np.nan], dtype=np.float32)
REQUEST = RoundRequest(PLAN, ADAPTER)
REFUSAL = Refusal("north", "run-1", 2, "budget-exhausted")


def content(**fields: Any) -> RecordDict:
    return RecordDict({RECORD: ConfigRecord(fields)})


def test_a_request_comes_back_bit_for_bit() -> None:
    found = read_request(request_content(REQUEST))
    assert found.plan == PLAN
    assert found.adapter.tobytes() == ADAPTER.tobytes()
    assert found.adapter.dtype == np.float32
    found.adapter[0] = 1  # a copy of its own, that can be written to


def test_a_request_is_a_plan_and_an_adapter_and_nothing_else() -> None:
    record = request_content(REQUEST)
    assert list(record) == [RECORD]
    assert dict(record[RECORD]) == {"plan": PLAN.as_json(), "adapter": ADAPTER.astype("<f4").tobytes()}


REQUESTS = {
    "empty": RecordDict(),
    "another-name": RecordDict({"other": ConfigRecord({"plan": PLAN.as_json(), "adapter": b""})}),
    "one-record-more": RecordDict({**request_content(REQUEST), "more": ConfigRecord()}),
    "arrays-beside": RecordDict({**request_content(REQUEST), "arrays": ArrayRecord()}),
    "metrics-instead": RecordDict({RECORD: MetricRecord({"plan": 1})}),
    "a-field-more": content(plan=PLAN.as_json(), adapter=b"", more=1),
    "a-field-less": content(plan=PLAN.as_json()),
    "a-number-as-plan": content(plan=1, adapter=b""),
    "text-as-adapter": content(plan=PLAN.as_json(), adapter="abcd"),
    "half-a-value": content(plan=PLAN.as_json(), adapter=b"abc"),
    "no-plan": content(plan="{}", adapter=b"abcd"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_any_other_request_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        read_request(REQUESTS[name])


def test_answers_come_back() -> None:
    assert read_answer(answer_content(b"FEDFTUPD...")) == b"FEDFTUPD..."
    assert read_answer(answer_content(b"")) == b""
    for reason in REASONS:
        refusal = Refusal("north", "run-1", 2, reason)
        assert read_answer(answer_content(refusal)) == refusal


def test_a_refusal_says_a_word_and_three_names() -> None:
    assert dict(answer_content(REFUSAL)[RECORD]) == {
        "refusal": "budget-exhausted", "run": "run-1", "round": 2, "from": "north",
    }  # fmt: skip


REFUSED = {"refusal": "data", "run": "run-1", "round": 2, "from": "north"}
ANSWERS = {
    "empty": RecordDict(),
    "arrays": RecordDict({RECORD: ArrayRecord()}),
    "one-record-more": RecordDict({**answer_content(b"x"), "num-examples": MetricRecord({"n": 10})}),
    "text-as-update": content(update="FEDFTUPD"),
    "an-update-and-a-refusal": content(update=b"x", **REFUSED),
    "an-unknown-word": content(**{**REFUSED, "refusal": "patient 17 is missing"}),
    "a-list-of-words": content(**{**REFUSED, "refusal": ["data"]}),
    "no-word": content(run="run-1", round=2, **{"from": "north"}),
    "a-field-more": content(**REFUSED, why="patient 17"),
    "free-text-as-name": content(**{**REFUSED, "from": "patient 17"}),
    "free-text-as-run": content(**{**REFUSED, "run": "patient 17"}),
    "a-fraction-as-round": content(**{**REFUSED, "round": 2.0}),
    "yes-as-round": content(**{**REFUSED, "round": True}),
    "round-0": content(**{**REFUSED, "round": 0}),
    "bytes-as-name": content(**{**REFUSED, "from": b"north"}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_any_other_answer_is_refused_without_a_word_of_it(name: str) -> None:
    with pytest.raises(UpdateError) as caught:
        read_answer(ANSWERS[name])
    assert "17" not in str(caught.value)


values = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=20), st.binary(max_size=20), st.booleans(),
    st.lists(st.text(max_size=5), max_size=3),
)  # fmt: skip
keys = st.sampled_from(["update", "refusal", "run", "round", "from", "plan", "adapter", "institution", "x"])


@given(st.dictionaries(keys, values, max_size=5))
def test_no_fields_whatever_do_anything_else_than_be_read_or_refused(fields: dict[str, Any]) -> None:
    record = content(**fields)
    try:
        answer = read_answer(record)
        assert isinstance(answer, bytes | Refusal)
    except UpdateError:
        pass
    with pytest.raises(ConfigError):
        read_request(record)
    assert read_name(record) is None or read_name(record) == fields["institution"]


def test_a_name_comes_back_and_nothing_else_is_one() -> None:
    assert read_name(name_content("north")) == "north"
    for record in (RecordDict(), content(institution=1), content(name="north"), RecordDict({RECORD: ArrayRecord()})):
        assert read_name(record) is None
