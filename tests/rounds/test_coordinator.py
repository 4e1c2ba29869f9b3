"""The coordinator's side: a round's step, what one without a quorum does, when a run ends, resumption."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedft.aggregation.fed_svd import FedSvd
from fedft.aggregation.ffa_lora import FfaLora
from fedft.errors import FederationError, LayoutMismatch, QuorumNotReached
from fedft.model.checkpoint import read_checkpoint
from fedft.rounds.coordinator import Coordinator
from fedft.rounds.evaluation import Evaluation
from tests.federation import records_of
from tests.rounds.small import (
    COHORT,
    LAYOUT,
    Scores,
    bits,
    coordinator,
    delta_of,
    opened,
    play,
    play_round,
    start,
    update_of,
)


def test_a_request_is_the_same_for_all_and_names_its_round(tmp_path: Path) -> None:
    played = coordinator(tmp_path, tasks=("a", "b"), rounds_per_task=(1, 3))
    plan = played.request().plan
    assert (plan.round, plan.task, plan.task_index, plan.first_step, plan.total_steps) == (1, "a", 0, 0, 8)
    assert played.request().plan.digest == plan.digest
    assert np.array_equal(played.request().adapter, start())
    play_round(played)
    plan = played.request().plan
    assert (plan.round, plan.task, plan.task_index, plan.first_step) == (2, "b", 1, 2)


def test_the_step_is_the_mean_of_the_updates(tmp_path: Path) -> None:
    played = coordinator(tmp_path)
    record = play_round(played)
    mean = np.mean([delta_of(name) for name in COHORT], axis=0)
    assert played.state.adapter == pytest.approx(start() + mean, abs=1e-6)
    assert record["update_norm"] == pytest.approx(np.linalg.norm(mean), rel=1e-5)


def test_weights_are_the_federations_constants(tmp_path: Path) -> None:
    played = coordinator(tmp_path, weights={"north": 3.0, "south": 1.0, "west": 1.0})
    play_round(played)
    mean = (3 * delta_of("north") + delta_of("south") + delta_of("west")) / 5
    assert played.state.adapter == pytest.approx(start() + mean, abs=1e-6)


def test_frozen_roles_stay_and_only_the_rest_is_asked_for(tmp_path: Path) -> None:
    played = coordinator(tmp_path, aggregation=FfaLora())
    play_round(played)
    before, after = LAYOUT.unflatten(start()), LAYOUT.unflatten(played.state.adapter)
    assert [name for name in before if not np.array_equal(before[name], after[name])] == [
        "layer.query.lora_B", "head.bias",
    ]  # fmt: skip


def test_the_order_of_arrival_changes_no_bit(tmp_path: Path) -> None:
    found = set()
    for number, order in enumerate(itertools.permutations(COHORT)):
        played = coordinator(tmp_path / str(number))
        asked = opened(played)
        for name in order:
            asked.receive(name, update_of(name, asked))
        played.close(asked, bytes_down=0)
        found.add(bits(played))
    assert len(found) == 1


def test_without_a_quorum_the_adapter_stays_and_with_one_it_moves(tmp_path: Path) -> None:
    played = coordinator(tmp_path, min_institutions=2, optimizer="momentum")
    before = bits(played)
    record = play_round(played, ("north",))
    assert (record["quorum"], record["update_norm"], record["updates"]) == (False, None, ["north"])
    assert bits(played) == before
    record = play_round(played, ("north", "south"))
    assert record["quorum"]
    assert bits(played) != before


def test_three_rounds_without_a_quorum_end_the_run_for_now(tmp_path: Path) -> None:
    played = coordinator(tmp_path, min_institutions=2, rounds=9)
    play_round(played)
    kept = bits(played)
    play_round(played, ("north",))
    play_round(played, (), {"north": "internal"})
    with pytest.raises(QuorumNotReached, match=r"at least 2 .*north: internal, south: missing, west: missing"):
        play_round(played, (), {"north": "internal"})
    assert not played.finished
    resumed = coordinator(tmp_path, min_institutions=2, rounds=9)
    assert (resumed.next_round, bits(resumed)) == (5, kept)
    record = play_round(resumed, ("north", "south"))
    assert record["quorum"]
    assert bits(resumed) != kept


def test_two_rounds_without_a_quorum_are_forgiven_by_a_third_with_one(tmp_path: Path) -> None:
    played = coordinator(tmp_path, min_institutions=1, rounds=9)
    for senders in ((), (), ("north",), (), (), ("south",)):
        play_round(played, senders)
    assert played.next_round == 7


def test_who_has_left_does_not_keep_a_run_without_budget_waiting(tmp_path: Path) -> None:
    played = coordinator(tmp_path, rounds=20)
    play_round(played, (), {**dict.fromkeys(COHORT, "budget-exhausted"), COHORT[0]: "withdrawn"})
    assert played.state.finished == "budgets-spent"
    alone = coordinator(tmp_path / "alone", rounds=20)
    play_round(alone, (), dict.fromkeys(COHORT, "withdrawn"))
    assert alone.state.finished is None


def test_a_cohort_without_any_budget_left_ends_the_run_evaluated(tmp_path: Path) -> None:
    """Also where evaluations are rare: what was trained before must not be thrown away."""
    played = coordinator(tmp_path, evaluate=Scores(0.1, 0.9), evaluate_every=10, rounds=20)
    play_round(played)
    trained = played.state.adapter
    record = play_round(played, (), dict.fromkeys(COHORT, "budget-exhausted"))
    assert (played.finished, played.state.finished) == (True, "budgets-spent")
    assert (record["evaluation"], record["best"]) == ({"accuracy": 0.9, "loss": -0.9}, True)
    assert np.array_equal(played.state.best, trained)
    assert coordinator(tmp_path, evaluate_every=10, rounds=20).finished


@pytest.mark.parametrize(
    "refusing",
    [
        {"north": "budget-exhausted", "south": "budget-exhausted"},
        {"north": "budget-exhausted", "south": "budget-exhausted", "west": "internal"},
    ],
)
def test_one_that_may_still_have_a_budget_keeps_the_run_alive(refusing: dict[str, str], tmp_path: Path) -> None:
    played = coordinator(tmp_path)
    play_round(played, (), refusing)
    assert not played.finished


def test_some_budgets_spent_is_no_end(tmp_path: Path) -> None:
    played = coordinator(tmp_path)
    play_round(played, ("west",), {"north": "budget-exhausted", "south": "budget-exhausted"})
    assert not played.finished


def test_the_best_round_is_kept_and_patience_ends_the_run(tmp_path: Path) -> None:
    played = coordinator(tmp_path, evaluate=Scores(0.1, 0.5, 0.7, 0.6, 0.7, 0.9), rounds=9, patience=2)
    records = []
    while not played.finished:
        records.append(play_round(played))
        if len(records) == 2:
            second = played.state.adapter
    assert (len(records), played.state.finished, played.state.best_round) == (4, "patience", 2)
    assert [record["best"] for record in records] == [True, True, False, False]
    assert np.array_equal(played.state.best, second)
    stored, about = read_checkpoint(tmp_path / "checkpoints" / "best")
    assert np.array_equal(stored["adapter"], second)
    assert (about["round"], about["run"], about["labels"]) == (2, "tiny/1", ["a", "b"])


def test_a_smaller_loss_is_better(tmp_path: Path) -> None:
    played = coordinator(tmp_path, evaluate=Scores(0.1, 0.5, 0.7, 0.2, 0.2), metric="loss")
    assert [record["best"] for record in play(played)] == [True, True, False, False]


def test_rounds_without_a_quorum_do_not_try_ones_patience(tmp_path: Path) -> None:
    played = coordinator(tmp_path, rounds=9, patience=2)
    play_round(played)
    play_round(played, ())
    play_round(played, ())
    assert not played.finished


def test_evaluations_come_as_often_as_asked_and_at_the_end(tmp_path: Path) -> None:
    played = coordinator(tmp_path, evaluate_every=3, rounds=7)
    assert [record["round"] for record in play(played) if record["evaluation"] is not None] == [3, 6, 7]


def test_every_task_ends_with_an_evaluation_and_begins_its_own_best(tmp_path: Path) -> None:
    scores = Scores(0.0, 0.9, 0.8, 0.2, 0.3, 0.1)
    played = coordinator(
        tmp_path, evaluate=scores, rounds=7, evaluate_every=2, tasks=("a", "b"), rounds_per_task=(3, 4)
    )
    records = play(played)
    assert [(record["round"], record["best"]) for record in records if record["evaluation"]] == [
        (2, True), (3, False), (4, True), (6, True), (7, False),
    ]  # fmt: skip
    assert [task for _, task in scores.seen] == [0, 0, 0, 1, 1, 1]
    assert (played.state.best_round, played.state.best_task) == (6, 1)


def test_patience_is_for_the_last_task_and_counts_its_own_evaluations(tmp_path: Path) -> None:
    """The first task ends with two evaluations without a better one; the second is first evaluated in round 8."""
    scores = Scores(0.0, 0.9, 0.8, 0.7, 0.5, 0.4, 0.3)
    options: dict[str, Any] = {"tasks": ("a", "b"), "rounds_per_task": (6, 6), "patience": 2, "rounds": 20}
    played = coordinator(tmp_path, evaluate=scores, evaluate_every=2, **options)
    records = play(played)
    assert [record["round"] for record in records if record["best"]] == [2, 8]
    assert (len(records), played.state.finished) == (12, "patience")


def test_tasks_and_reference_are_in_the_record(tmp_path: Path) -> None:
    def evaluate(adapter: Any, index: int) -> Evaluation:
        return Evaluation({"accuracy": 1.0}, {"a": {"accuracy": 0.5}}, {"accuracy": 0.25})

    played = coordinator(tmp_path, evaluate=evaluate)
    record = play_round(played)
    assert (record["tasks"], record["reference"]) == ({"a": {"accuracy": 0.5}}, {"accuracy": 0.25})
    assert played.state.start == {
        "current": {"accuracy": 1.0}, "tasks": {"a": {"accuracy": 0.5}}, "reference": {"accuracy": 0.25},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "aggregation"),
    [("plain", None), ("momentum", None), ("adam", None), ("plain", FedSvd()), ("momentum", FedSvd())],
)
def test_resumed_after_every_round_it_ends_with_the_same_bits(optimizer: str, aggregation: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "aggregation": aggregation}
    whole = coordinator(tmp_path / "whole", evaluate=Scores(0.1, 0.4, 0.9, 0.2, 0.3), **options)
    play(whole)
    scores = Scores(0.1, 0.4, 0.9, 0.2, 0.3)
    for _ in range(4):
        play_round(coordinator(tmp_path / "parts", evaluate=scores, **options))
    resumed = coordinator(tmp_path / "parts", evaluate=scores, **options)
    assert resumed.finished
    assert bits(resumed) == bits(whole)
    assert resumed.state.best.tobytes() == whole.state.best.tobytes()
    assert len(scores.seen) == 5, "the start is evaluated once, not with every resumption"

    def timeless(played: Coordinator) -> list[dict[str, Any]]:
        return [{key: value for key, value in record.items() if key != "seconds"} for record in played.state.records]

    assert timeless(resumed) == timeless(whole)


def test_figures_out_of_the_numbers_are_null_on_disk_and_decide_alike_after_resumption(tmp_path: Path) -> None:
    """inf as loss, then better, then inf again, then NaN: the second round is the best, whoever was resumed."""
    scores = [math.nan, -math.inf, -1.0, -math.inf, math.nan]
    whole = coordinator(tmp_path / "whole", evaluate=Scores(*scores), metric="loss")
    play(whole)
    told = Scores(*scores)
    for _ in range(4):
        play_round(coordinator(tmp_path / "parts", evaluate=told, metric="loss"))
    resumed = coordinator(tmp_path / "parts", evaluate=told, metric="loss")
    for played in (whole, resumed):
        assert [record["best"] for record in played.state.records] == [True, True, False, False]
        assert [record["evaluation"]["loss"] for record in played.state.records] == pytest.approx(
            [math.nan, 1.0, math.nan, math.nan], nan_ok=True
        )
        assert math.isnan(played.state.start["current"]["loss"])
    for name in ("whole", "parts"):
        assert [record["evaluation"]["loss"] for record in records_of(tmp_path / name)] == [None, 1.0, None, None]


def test_the_first_figure_stays_the_best_until_there_is_a_number_also_after_resumption(tmp_path: Path) -> None:
    told = Scores(0.0, math.nan, math.nan, 0.5)
    assert play_round(coordinator(tmp_path, evaluate=told))["best"]
    assert not play_round(coordinator(tmp_path, evaluate=told))["best"]
    assert play_round(coordinator(tmp_path, evaluate=told))["best"]


def test_anothers_state_is_refused(tmp_path: Path) -> None:
    play_round(coordinator(tmp_path))
    with pytest.raises(FederationError, match="found another's"):
        coordinator(tmp_path, run="tiny/2")
    with pytest.raises(LayoutMismatch, match="base model"):
        coordinator(tmp_path, layout=replace(LAYOUT, scaling=1.0))


def test_a_start_of_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutMismatch):
        coordinator(tmp_path, layout=replace(LAYOUT, tensors=LAYOUT.tensors[:2]))


def test_a_step_out_of_the_numbers_ends_the_run_before_it_is_kept(tmp_path: Path) -> None:
    class Leaping(FfaLora):
        def finish(self, layout: Any, vector: Any) -> Any:
            return super().finish(layout, vector * np.float32("inf"))

    played = coordinator(tmp_path, aggregation=Leaping())
    with pytest.raises(FederationError, match="finite adapter"):
        play_round(played)
    assert coordinator(tmp_path, aggregation=FfaLora()).next_round == 1
