"""What an institution refuses: before it is charged where it can be known before, in one word whatever goes wrong."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fedft.rounds.institution
from fedft.errors import ConfigError, NotPrivate
from fedft.ledger.store import Ledger
from fedft.rounds.institution import Institution
from fedft.simulation.setup import Setup
from fedft.types import Digest
from fedft.update.release import REASONS, Refusal
from tests.federation import GUARANTEE, institution_at, request_of
from tests.rounds.trainings import Trainings, reason

UNTRAINABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "another-layout": ("wrong-plan", {"layout_digest": Digest("f" * 64)}),
    "another-adapter-than-sent": ("stale-round", {"adapter_digest": Digest("f" * 64)}),
    "not-in-the-cohort": ("wrong-plan", {"cohort": ("south", "west")}),
    "an-unknown-task": ("wrong-plan", {"task": "surgery"}),
}


@pytest.mark.parametrize("name", UNTRAINABLE)
def test_a_plan_that_cannot_be_followed_is_refused_before_it_is_charged(
    name: str, setup: Setup, north: Institution, ledger: Ledger
) -> None:
    word, changes = UNTRAINABLE[name]
    assert reason(north.answer(request_of(setup, **changes))) == word
    assert ledger.events("north") == ()


@pytest.mark.parametrize("adapter", ["short", "long", "nan", "infinite", "float64"])
def test_an_adapter_that_cannot_be_trained_is_refused_before_it_is_charged(
    adapter: str, setup: Setup, north: Institution, ledger: Ledger
) -> None:
    """Its digest fits, so that only looking at it tells; in a later round, with every other check passed before."""
    north.answer(request_of(setup))
    start = setup.model.start_vector()
    sent: dict[str, Any] = {
        "short": start[:-1], "long": np.append(start, np.float32(0)), "nan": start * np.float32("nan"),
        "infinite": np.where(np.arange(start.size) == 7, np.float32("inf"), start), "float64": start.astype(np.float64),
    }  # fmt: skip
    assert reason(north.answer(request_of(setup, 2, adapter=sent[adapter]))) == "wrong-plan"
    assert len(ledger.events("north")) == 1


def test_too_few_units_for_a_batch_or_for_delta_are_refused_before_they_are_charged(
    setup: Setup, ledger: Ledger
) -> None:
    units = setup.institution("north").encoded["default"].unit_count
    terms = replace(setup.terms(setup.institution("north").section), batch_size=units + 1)
    assert reason(institution_at(setup, ledger, terms=terms).answer(request_of(setup))) == "data"
    loose = replace(GUARANTEE, delta=1 / units)
    assert reason(institution_at(setup, ledger, guarantee=loose).answer(request_of(setup))) == "wrong-plan"
    assert ledger.events("north") == ()


def test_a_model_without_per_example_gradients_is_refused_before_it_is_charged(
    setup: Setup, north: Institution, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_private(*_: object, **__: object) -> None:
        raise NotPrivate("expected per-example gradients")

    monkeypatch.setattr(fedft.rounds.institution, "require_private", not_private)
    assert reason(north.answer(request_of(setup))) == "not-private"
    assert ledger.events("north") == ()


CANARY = "zq7canary"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError(CANARY)


FAILURES: list[tuple[Exception, str]] = [
    (RuntimeError(CANARY), "internal"), (MemoryError(CANARY), "internal"), (RecursionError(CANARY), "internal"),
    (ValueError(CANARY), "internal"), (KeyError(CANARY), "internal"), (ZeroDivisionError(CANARY), "internal"),
    (StopIteration(CANARY), "internal"), (AssertionError(CANARY), "internal"), (Unprintable(CANARY), "internal"),
    (ExceptionGroup(CANARY, [ValueError(CANARY)]), "internal"), (OSError(28, CANARY), "storage"),
    (TimeoutError(CANARY), "storage"), (ConfigError("expected"), "wrong-plan"), (NotPrivate("expected"), "not-private"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "word"), FAILURES, ids=lambda value: getattr(type(value), "__name__", None))
def test_whatever_goes_wrong_in_training_the_answer_is_one_word(
    error: Exception,
    word: str,
    setup: Setup,
    north: Institution,
    ledger: Ledger,
    trainings: Trainings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainings.error = error
    answer = north.answer(request_of(setup))
    assert answer == Refusal("north", "run", 1, word)  # type: ignore[arg-type]
    assert reason(answer) in REASONS
    assert CANARY not in repr(answer) + caplog.text
    assert [entry.kind for entry in ledger.entries()] == ["start", "intent", "refusal"]
    assert CANARY not in "".join(str(entry.fields) for entry in ledger.entries())


@pytest.mark.parametrize(
    "place", ["find_intent", "stored_release", "last_round", "events", "record_intent", "record_release"]
)
@pytest.mark.parametrize("error", [RuntimeError(CANARY), MemoryError(CANARY), OSError(5, CANARY)], ids=repr)
def test_whatever_goes_wrong_in_the_ledger_the_answer_is_one_word(
    place: str,
    error: Exception,
    setup: Setup,
    north: Institution,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also when the ledger cannot take a note of the refusal."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Ledger, place, fail)
    monkeypatch.setattr(Ledger, "record_refusal", fail)
    assert reason(north.answer(request_of(setup))) in ("internal", "storage")
    assert "could not note its refusal of round 1" in caplog.text
    assert CANARY not in caplog.text


def test_a_closed_ledger_is_a_refusal(setup: Setup, north: Institution, ledger: Ledger) -> None:
    ledger.close()
    assert reason(north.answer(request_of(setup))) == "ledger"


def test_nan_does_not_leave_and_its_charge_stands(setup: Setup, ledger: Ledger) -> None:
    terms = replace(setup.terms(setup.institution("north").section), learning_rate=3e38)
    north = institution_at(setup, ledger, terms=terms)
    assert reason(north.answer(request_of(setup))) == "internal"
    assert len(ledger.events("north")) == 1
    assert ledger.stored_release("run", 1, "update") is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_who_ends_the_program_ends_it_and_the_charge_stands(
    kind: type[BaseException], setup: Setup, north: Institution, ledger: Ledger, trainings: Trainings
) -> None:
    trainings.error = kind()
    with pytest.raises(kind):
        north.answer(request_of(setup))
    assert len(ledger.events("north")) == 1


def test_why_is_in_the_institutions_own_log(setup: Setup, north: Institution, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        north.answer(request_of(setup, task="surgery"))
    assert 'north refuses round 1: expected a task of default, found "surgery"' in caplog.text
