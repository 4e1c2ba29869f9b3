"""The institution's side of a round: what is charged, what comes out, and what never happens twice."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fedft.rounds.institution
from fedft.errors import ConfigError
from fedft.ledger.store import Ledger
from fedft.privacy.events import DpSgdRound, UnprotectedRelease
from fedft.rounds.institution import Institution
from fedft.rounds.plan import RoundRequest
from fedft.rounds.terms import Guarantee
from fedft.simulation.setup import Setup
from fedft.training.local import train_locally
from fedft.update.envelope import open_envelope
from tests.federation import BATCH, GUARANTEE, institution_at, request_of
from tests.rounds.trainings import Trainings, reason


def test_an_answer_is_the_stored_update_of_this_round(setup: Setup, north: Institution, ledger: Ledger) -> None:
    request = request_of(setup)
    answer = north.answer(request)
    assert isinstance(answer, bytes)
    assert answer == ledger.stored_release("run", 1, "update")
    trained = setup.model.layout.only(request.plan.roles)
    envelope = open_envelope(answer, expected_size=trained.size)
    assert (envelope.institution, envelope.run, envelope.round) == ("north", "run", 1)
    assert (envelope.plan_digest, envelope.layout_digest) == (request.plan.digest, trained.digest)
    assert np.abs(envelope.delta).max() > 0


def test_what_is_charged_is_what_is_done(setup: Setup, north: Institution, ledger: Ledger) -> None:
    north.answer(request_of(setup))
    data = setup.institution("north").encoded["default"]
    intent = ledger.find_intent("run", 1, "update")
    assert intent is not None
    assert intent.event == DpSgdRound(GUARANTEE.noise_multiplier, BATCH / data.unit_count, 2)
    assert (intent.dataset, intent.plan_digest) == ("north", request_of(setup).plan.digest)
    tested = {name: value for name, value in intent.evidence.items() if name.startswith("self_test_")}
    assert tested.keys() == {
        "self_test_gradients", "self_test_independence", "self_test_sensitivity", "self_test_noise",
    }  # fmt: skip
    assert {name: value for name, value in intent.evidence.items() if name not in tested} == {
        "institution": "north", "fingerprint": data.fingerprint, "units": data.unit_count, "batch_size": BATCH,
        "clip_norm": GUARANTEE.clip_norm, "delta": GUARANTEE.delta, "cap": GUARANTEE.epsilon,
    }  # fmt: skip


def test_a_round_asked_again_is_the_same_bytes_without_training_or_charge(
    setup: Setup, north: Institution, ledger: Ledger, trainings: Trainings
) -> None:
    first = north.answer(request_of(setup))
    entries = ledger.entries()
    assert north.answer(request_of(setup)) == first
    assert institution_at(setup, ledger).answer(request_of(setup)) == first
    assert (trainings.count, ledger.entries()) == (1, entries)


def test_a_charged_round_without_an_answer_is_trained_again_under_the_same_charge(
    setup: Setup, north: Institution, ledger: Ledger, trainings: Trainings
) -> None:
    trainings.error = RuntimeError("out of memory")
    assert reason(north.answer(request_of(setup))) == "internal"
    assert len(ledger.events("north")) == 1
    trainings.error = None
    assert isinstance(north.answer(request_of(setup)), bytes)
    assert (trainings.count, len(ledger.events("north"))) == (2, 1)


@pytest.mark.parametrize("answered", [True, False])
def test_another_plan_for_a_charged_round_is_refused(
    answered: bool, setup: Setup, north: Institution, ledger: Ledger, trainings: Trainings
) -> None:
    trainings.error = None if answered else RuntimeError()
    north.answer(request_of(setup))
    trainings.error, charged = None, ledger.events("north")
    other = setup.model.start_vector() + np.float32(1)
    for changed in (
        request_of(setup, adapter=other),
        request_of(setup, local_steps=1),
        request_of(setup, cohort=("north",)),
    ):
        assert reason(north.answer(changed)) == "ledger"
    assert (trainings.count, ledger.events("north")) == (1, charged)


def test_an_earlier_round_than_the_last_is_too_late(setup: Setup, north: Institution, ledger: Ledger) -> None:
    assert isinstance(north.answer(request_of(setup, 2)), bytes)
    assert reason(north.answer(request_of(setup, 1))) == "stale-round"
    assert len(ledger.events("north")) == 1
    assert isinstance(north.answer(request_of(setup, 1, run="another")), bytes)


def test_a_spent_budget_is_a_refusal_before_anything_is_charged_or_trained(
    setup: Setup, ledger: Ledger, trainings: Trainings
) -> None:
    north = institution_at(setup, ledger, guarantee=replace(GUARANTEE, epsilon=4.0))
    answers = [reason(north.answer(request_of(setup, number))) for number in range(1, 10)]
    afforded = answers.index("budget-exhausted")
    assert 1 <= afforded < 9
    assert answers == [None] * afforded + ["budget-exhausted"] * (9 - afforded)
    assert (trainings.count, len(ledger.events("north"))) == (afforded, afforded)
    spent = north.spent()
    assert spent is not None
    assert spent <= 4.0


def test_the_cap_holds_over_all_runs_and_versions_of_the_data_set(
    setup: Setup, ledger: Ledger, trainings: Trainings
) -> None:
    """The newer version has other rows and another fingerprint; the name is the same."""
    north = institution_at(setup, ledger, guarantee=replace(GUARANTEE, epsilon=4.0))
    while north.answer(request_of(setup, trainings.count + 1)) == ledger.stored_release(
        "run", trainings.count, "update"
    ):
        pass
    newer = institution_at(setup, ledger, name="south", dataset="north", guarantee=north.guarantee)
    assert reason(newer.answer(request_of(setup, run="another"))) == "budget-exhausted"
    other = institution_at(setup, ledger, name="south", dataset="south", guarantee=north.guarantee)
    assert isinstance(other.answer(request_of(setup, run="another")), bytes)


def test_without_a_guarantee_the_ledger_says_so_and_no_guarantee_holds_any_more(setup: Setup, ledger: Ledger) -> None:
    unprotected = institution_at(setup, ledger, guarantee=None)
    assert isinstance(unprotected.answer(request_of(setup)), bytes)
    assert ledger.events("north") == (UnprotectedRelease(),)
    assert unprotected.spent() is None
    private = institution_at(setup, ledger, guarantee=Guarantee(1e9, 1e-3, 1.0, 50.0))
    assert private.spent() == math.inf
    assert reason(private.answer(request_of(setup, run="another"))) == "budget-exhausted"
    assert ledger.events("north") == (UnprotectedRelease(),)


def test_a_schedule_that_does_not_exist_is_found_before_any_round(setup: Setup, ledger: Ledger) -> None:
    terms = replace(
        setup.terms(setup.institution("north").section), scheduler="cosine", scheduler_options={"num_moons": 2}
    )
    with pytest.raises(ConfigError, match="num_moons"):
        institution_at(setup, ledger, terms=terms)


def test_what_one_institution_left_in_a_shared_model_does_not_decide_anothers_answer(
    setup: Setup, north: Institution
) -> None:
    setup.model.write_vector(np.full(setup.model.layout.size, np.nan, dtype=np.float32))
    assert isinstance(north.answer(request_of(setup)), bytes)


def test_a_penalty_is_asked_for_once_a_training_and_reaches_it(
    setup: Setup, ledger: Ledger, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RoundRequest] = []
    given: list[Any] = []

    class Penalizer:
        def penalty(self, institution: Institution, request: RoundRequest) -> Any:
            asked.append(request)
            return self

        def pull(self, model: Any, rate: float) -> None:
            given.append(model)

    north = institution_at(setup, ledger, consolidator=Penalizer())
    request = request_of(setup)
    north.answer(request)
    north.answer(request)
    assert asked == [request]
    assert given == [setup.model] * request.plan.local_steps


def test_steps_and_seconds_are_told(setup: Setup, ledger: Ledger) -> None:
    steps: list[tuple[int, int]] = []
    north = institution_at(setup, ledger, on_step=lambda done, total: steps.append((done, total)))
    north.answer(request_of(setup))
    assert steps == [(1, 2), (2, 2)]
    assert north.training_seconds > 0


def test_the_schedule_follows_the_federations_steps(
    setup: Setup, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    def noted(model: Any, data: Any, start: Any, plan: Any, **kwargs: Any) -> Any:
        rates.extend(plan.learning_rates)
        return train_locally(model, data, start, plan, **kwargs)

    monkeypatch.setattr(fedft.rounds.institution, "train_locally", noted)
    terms = replace(setup.terms(setup.institution("north").section), scheduler="linear", learning_rate=0.018)
    north = institution_at(setup, ledger, terms=terms, guarantee=replace(GUARANTEE, epsilon=1e6))
    for number in (1, 2, 9):
        north.answer(request_of(setup, number))
    assert rates == pytest.approx([0.018, 0.017, 0.016, 0.015, 0.002, 0.001])
