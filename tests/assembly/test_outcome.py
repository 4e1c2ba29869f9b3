"""What a run came to, and whether it is what its story announced."""

from __future__ import annotations

from typing import Any

import pytest

from fedft.assembly.outcome import _forgetting, check_outcome, figure
from fedft.config import Check
from fedft.errors import ConfigError

SUMMARY: dict[str, Any] = {
    "rounds_done": 4,
    "stopped_early": None,
    "engine": "local",
    "final": {"accuracy": 0.8, "loss": 0.5},
    "start": {"accuracy": 0.4},
    "institutions": {"north": {"refusals": {"budget-exhausted": 2}, "epsilon": float("inf")}},
    "ready": True,
}


@pytest.mark.parametrize(
    ("bounds", "holds"),
    [
        ({"at_least": 0.8}, True), ({"at_least": 0.81}, False), ({"at_most": 0.8}, True), ({"at_most": 0.79}, False),
        ({"equals": 0.8}, True), ({"equals": 0.8 + 1e-13}, True), ({"equals": 0.8001}, False),
        ({"at_least": 0.7, "at_most": 0.9}, True), ({"at_least": 0.7, "at_most": 0.75}, False),
        ({"at_least": 2.0, "of": "start.accuracy"}, True), ({"at_least": 2.1, "of": "start.accuracy"}, False),
        ({"at_most": 1.9, "of": "start.accuracy"}, False), ({"equals": 2.0, "of": "start.accuracy"}, True),
    ],
)  # fmt: skip
def test_a_bound_holds_or_not(bounds: dict[str, Any], holds: bool) -> None:
    (found,) = check_outcome([Check(figure="final.accuracy", **bounds)], SUMMARY)
    assert (found["figure"], found["found"], found["holds"]) == ("final.accuracy", 0.8, holds)


def test_words_and_yes_or_no_are_compared_as_they_are() -> None:
    checks = [
        Check(figure="engine", equals="local"), Check(figure="engine", equals="flower"),
        Check(figure="ready", equals=True), Check(figure="ready", equals=False), Check(figure="rounds_done", equals=4),
    ]  # fmt: skip
    assert [found["holds"] for found in check_outcome(checks, SUMMARY)] == [True, False, True, False, True]


def test_the_bound_is_said_in_words() -> None:
    check = Check(figure="final.accuracy", at_least=0.5, at_most=3, of="start.accuracy")
    assert check_outcome([check], SUMMARY)[0]["bound"] == "at least 0.5 and at most 3.0 x start.accuracy"


def test_a_figure_of_a_variant_or_of_an_institution() -> None:
    assert figure(SUMMARY, "institutions.north.refusals.budget-exhausted") == 2
    assert figure({"variants": {"with": SUMMARY}}, "with.final.loss") == 0.5


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("final.acuracy", r"acuracy\): known: accuracy, loss"),
        ("stopped_early", "known: rounds_done"),
        ("rounds_done.x", "known: no figures"),
        ("nothing", "known: rounds_done"),
    ],
)
def test_a_figure_that_is_not_there_is_an_error_that_names_what_is(path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        figure(SUMMARY, path)


@pytest.mark.parametrize(
    "check",
    [
        Check(figure="final", at_least=0.5), Check(figure="engine", at_most=1), Check(figure="ready", at_least=0.5),
        Check(figure="engine", equals=1.0), Check(figure="final.accuracy", at_least=1, of="institutions"),
    ],
)  # fmt: skip
def test_what_is_no_number_cannot_be_measured(check: Check) -> None:
    with pytest.raises(ConfigError, match="expected a number at"):
        check_outcome([check], SUMMARY)


def record(reference: float | None = None, **tasks: float) -> dict[str, Any]:
    return {
        "tasks": {task: {"accuracy": value} for task, value in tasks.items()} or None,
        "reference": None if reference is None else {"accuracy": reference},
    }


def test_forgetting_is_of_earlier_tasks_best_before_minus_now() -> None:
    records = [record(a=0.6), record(a=0.9), record(a=0.7, b=0.5), record(a=0.6, b=0.8), record(a=0.65, b=0.6, c=0.9)]
    found = _forgetting({"reference": None}, records, "accuracy")
    assert found == pytest.approx({"a": 0.25, "b": 0.2, "average": 0.225})


def test_forgetting_of_the_reference_is_since_the_start() -> None:
    start = {"reference": {"accuracy": 0.5}}
    assert _forgetting(start, [record(0.9), record(0.4)], "accuracy") == pytest.approx({"reference": 0.1})
    assert _forgetting(start, [], "accuracy") == {}
    assert _forgetting({"reference": None}, [record(), record()], "accuracy") == {}
