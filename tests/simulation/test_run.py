"""Whole runs: what they leave, whose budget they spend, how they end."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedft.assembly.coordinator import evaluator, start_adapter
from fedft.assembly.runs import resume_config
from fedft.config import FederationConfig, parse_config
from fedft.errors import ConfigError, QuorumNotReached
from fedft.ledger.store import Ledger
from fedft.model.checkpoint import read_checkpoint
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.events import DpSgdRound, UnprotectedRelease
from fedft.rounds.progress import Observer
from fedft.simulation.run import play
from fedft.simulation.setup import Setup
from tests.federation import NAMES, OFF, adapter_of, federation, federation_body, records_of, rows_of
from tests.tiny import write_jsonl


class Heard(Observer):
    """The events of a run, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def run_started(self, name: str, rounds: int, institutions: Sequence[str]) -> None:
        self.events.append(("run_started", (name, rounds, tuple(institutions))))

    def round_started(self, round: int, rounds: int, cohort: Sequence[str]) -> None:
        self.events.append(("round_started", round))

    def step(self, institution: str, done: int, total: int) -> None:
        self.events.append(("step", (institution, done, total)))

    def answered(self, institution: str, outcome: str) -> None:
        self.events.append(("answered", (institution, outcome)))

    def evaluated(self, round: int, metrics: Mapping[str, float]) -> None:
        self.events.append(("evaluated", round))

    def spent(self, institution: str, epsilon: float | None, cap: float | None) -> None:
        self.events.append(("spent", institution))

    def round_finished(self, record: Mapping[str, Any]) -> None:
        self.events.append(("round_finished", record["round"]))

    def run_finished(self, summary: Mapping[str, Any]) -> None:
        self.events.append(("run_finished", summary["rounds_done"]))


class Played:
    def __init__(self, folder: Path) -> None:
        self.config, self.folder, self.heard = federation(folder / "data"), folder / "run", Heard()
        self.summary = play(self.config, folder=self.folder, observer=self.heard)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return Played(tmp_path_factory.mktemp("played"))


def ledger_of(run: Path, name: str) -> tuple[Any, ...]:
    with Ledger.open(run / "institutions" / name / "ledger.sqlite", read_only=True) as ledger:
        return ledger.events(name)


def test_a_run_folder_holds_what_is_promised(played: Played) -> None:
    names = {path.name for path in played.folder.iterdir()}
    assert names == {
        "audit.head", "audit.jsonl", "config.json", "metrics.jsonl", "checkpoints", "adapter", "institutions",
        "summary.json", "lock",
    }  # fmt: skip
    assert {path.name for path in (played.folder / "checkpoints").iterdir()} == {"round-0001", "round-0002", "best"}
    for name in NAMES:
        home = {path.name for path in (played.folder / "institutions" / name).iterdir()}
        assert {"ledger.sqlite", "quality.json"} <= home
    assert json.loads((played.folder / "summary.json").read_text()) == played.summary


def test_its_configuration_comes_back_and_names_the_run_once(played: Played) -> None:
    assert resume_config(played.folder) == played.config
    stored = json.loads((played.folder / "config.json").read_text())
    assert stored["run"] == played.summary["run"]
    assert played.summary["run"].startswith("tiny/")


def test_every_round_has_a_line_with_every_figure(played: Played) -> None:
    records = records_of(played.folder)
    assert [record["round"] for record in records] == [1, 2]
    for record in records:
        assert record.keys() == {
            "round", "task", "updates", "refused", "missing", "quorum", "update_norm", "bytes_up", "evaluation",
            "tasks", "reference", "best", "bytes_down", "seconds_training", "epsilon", "epsilon_infinite", "cap",
            "seconds",
        }  # fmt: skip
        assert record["updates"] == list(NAMES)
        assert record["cap"] == dict.fromkeys(NAMES, 8.0)
        assert 0 < record["seconds_training"] < record["seconds"]
    assert read_checkpoint(played.folder / "checkpoints" / "round-0002")[1]["records"] == records


def test_epsilon_can_be_computed_again_from_the_ledgers(played: Played) -> None:
    for name in NAMES:
        events = ledger_of(played.folder, name)
        plan = played.summary["institutions"][name]
        assert events == (DpSgdRound(plan["noise_multiplier"], plan["sampling_rate"], 2),) * 2
        for number, record in enumerate(records_of(played.folder), start=1):
            assert record["epsilon"][name] == epsilon_of(events[:number], 1e-3)
        assert plan["epsilon"] == epsilon_of(events, 1e-3) <= plan["cap"]


def test_the_summary_says_what_the_rounds_say(played: Played) -> None:
    summary, records = played.summary, records_of(played.folder)
    assert (summary["rounds_done"], summary["stopped_early"], summary["metric"]) == (2, None, "accuracy")
    assert summary["final"] == records[-1]["evaluation"]
    assert summary["best"] == records[summary["best_round"] - 1]["evaluation"]
    assert summary["bytes_up"] == sum(record["bytes_up"] for record in records)
    assert summary["reference"]["final"] == records[-1]["reference"]
    assert 0 <= summary["seconds_outside_training_fraction"] < 1
    for name in NAMES:
        found = summary["institutions"][name]
        assert (found["rounds_answered"], found["rounds_missing"], found["refusals"]) == (2, 0, {})


def test_who_watches_hears_everything_in_order(played: Played) -> None:
    events = played.heard.events
    assert events[0] == ("run_started", ("tiny", 2, NAMES))
    assert events[-1] == ("run_finished", 2)
    first = events[1 : events.index(("round_finished", 1)) + 1]
    expected: list[tuple[str, Any]] = [("evaluated", 0), ("round_started", 1)]
    for name in NAMES:
        expected += [("step", (name, 1, 2)), ("step", (name, 2, 2)), ("answered", (name, "update"))]
    expected += [*(("spent", name) for name in NAMES), ("evaluated", 1), ("round_finished", 1)]
    assert first == expected


def test_the_exported_adapter_is_the_best_one(played: Played) -> None:
    exported = load_file(played.folder / "adapter" / "adapter_model.safetensors")
    best = read_checkpoint(played.folder / "checkpoints" / "best")[0]["adapter"]
    setup = Setup(played.config)
    values = np.sort(np.concatenate([value.ravel() for value in exported.values()]))
    layout = setup.model.layout.only(("lora_A", "lora_B"))
    assert np.array_equal(values, np.sort(setup.model.layout.part(best, ("lora_A", "lora_B"))))
    assert values.size == layout.size


def test_two_private_runs_of_one_seed_share_their_start_and_no_noise(played: Played, tmp_path: Path) -> None:
    summary = play(played.config, folder=tmp_path / "again")
    assert summary["start"] == played.summary["start"]
    assert summary["run"] != played.summary["run"]
    assert not np.array_equal(adapter_of(played.folder, 1), adapter_of(tmp_path / "again", 1))


def test_two_unprotected_runs_of_one_seed_are_the_same_bits(tmp_path: Path) -> None:
    config = federation(tmp_path / "data", *OFF, "adapter.dropout=0.2", "training.scheduler=cosine")
    for name in ("one", "two"):
        play(config, folder=tmp_path / name)
    assert np.array_equal(adapter_of(tmp_path / "one"), adapter_of(tmp_path / "two"))


def with_ledgers(tmp_path: Path, *overrides: str, **options: Any) -> FederationConfig:
    return federation(tmp_path / "data", f"simulation.ledger_dir={tmp_path / 'ledgers'}", *overrides, **options)


def answered(summary: Mapping[str, Any]) -> list[int]:
    return [institution["rounds_answered"] for institution in summary["institutions"].values()]


def test_a_budget_is_the_data_sets_over_all_runs_and_versions(tmp_path: Path) -> None:
    """Another run, a row more, another seed, another name of the institution: the name of the data set counts."""
    named = 'institutions=[{name="north", data="north.jsonl", dataset="triage"}, {name="south", data="south.jsonl"}]'
    assert answered(play(with_ledgers(tmp_path, named), folder=tmp_path / "one")) == [2, 2]
    more = {"north": [*rows_of(0), rows_of(0)[0] | {"text": "w1 w2", "patient": "new"}]}
    renamed = named.replace('name="north"', 'name="clinic"')
    config = with_ledgers(tmp_path, renamed, "federation.seed=9", rows=more)
    summary = play(config, folder=tmp_path / "two")
    assert answered(summary) == [0, 0]
    assert summary["stopped_early"] == "budgets-spent"
    assert {record["refused"]["clinic"] for record in records_of(tmp_path / "two")} == {"budget-exhausted"}
    assert summary["institutions"]["clinic"]["epsilon"] == pytest.approx(8.0, rel=0.1)


def test_a_cap_that_is_raised_gives_room_again(tmp_path: Path) -> None:
    play(with_ledgers(tmp_path), folder=tmp_path / "one")
    caps = [f"institutions.{name}.epsilon=40" for name in NAMES]
    summary = play(with_ledgers(tmp_path, *caps), folder=tmp_path / "two")
    assert answered(summary) == [2, 2, 2]
    assert all(8 < found["epsilon"] <= 40 for found in summary["institutions"].values())


def test_after_a_run_without_privacy_no_promise_can_be_made(tmp_path: Path) -> None:
    play(with_ledgers(tmp_path, *OFF), folder=tmp_path / "off")
    with Ledger.open(tmp_path / "ledgers" / "north.sqlite", read_only=True) as ledger:
        assert ledger.events("north") == (UnprotectedRelease(),) * 2
        evidence = next(entry.fields["evidence"] for entry in ledger.entries() if entry.kind == "intent")
    assert (evidence["unit"], evidence["allowed_by"]) == ("patient", 'privacy.mode = "off"')
    summary = play(with_ledgers(tmp_path), folder=tmp_path / "private")
    assert (answered(summary), summary["stopped_early"]) == ([0, 0, 0], "budgets-spent")
    assert {institution["epsilon"] for institution in summary["institutions"].values()} == {math.inf}
    (record,) = records_of(tmp_path / "private")
    assert record["refused"] == dict.fromkeys(NAMES, "budget-exhausted")


def test_institutions_do_not_share_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='found "north" 2 times'):
        federation(tmp_path, "institutions.south.dataset=north")


def test_one_spent_budget_is_a_refusal_and_the_others_go_on(tmp_path: Path) -> None:
    config = federation(tmp_path / "data", "institutions.south.epsilon=0.3", "federation.min_institutions=2")
    summary = play(config, folder=tmp_path / "run")
    assert (answered(summary), summary["stopped_early"]) == ([2, 0, 2], None)
    assert summary["institutions"]["south"]["refusals"] == {"budget-exhausted": 2}
    assert ledger_of(tmp_path / "run", "south") == ()


def test_without_its_quorum_a_run_stops_and_can_be_resumed(tmp_path: Path) -> None:
    config = federation(
        tmp_path / "data", *OFF, "federation.rounds=5", "federation.min_institutions=3",
        "institutions.south.faults.drop_rounds=[2, 3, 4]",
    )  # fmt: skip
    with pytest.raises(QuorumNotReached, match=r"at least 3 .*south: missing"):
        play(config, folder=tmp_path / "run")
    assert np.array_equal(adapter_of(tmp_path / "run", 3), adapter_of(tmp_path / "run", 4))
    assert not (tmp_path / "run" / "summary.json").exists()
    summary = play(config, folder=tmp_path / "run", resume=True)
    assert [record["quorum"] for record in records_of(tmp_path / "run")] == [True, False, False, False, True]
    assert (summary["rounds_done"], summary["institutions"]["south"]["rounds_missing"]) == (5, 3)


def test_a_finished_run_resumed_trains_nothing_and_ends_the_same(played: Played, tmp_path: Path) -> None:
    run = Path(shutil.copytree(played.folder, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    heard = Heard()
    summary = play(played.config, folder=run, resume=True, observer=heard)
    assert [kind for kind, _ in heard.events] == ["run_started", "run_finished"]
    assert {path: path.read_bytes() for path in before} == before
    assert summary == played.summary


def test_patience_stops_early(tmp_path: Path) -> None:
    config = federation(
        tmp_path / "data", *OFF, "federation.rounds=9", "evaluation.patience=2", "training.learning_rate=1e-9"
    )
    summary = play(config, folder=tmp_path / "run")
    assert summary["stopped_early"] == "patience"
    assert summary["rounds_done"] == summary["best_round"] + 2 < 9


def test_an_unknown_engine_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='expected engine "local" or "flower", found "carrier-pigeon"'):
        play(federation(tmp_path / "data", *OFF), folder=tmp_path / "run", engine="carrier-pigeon")
    assert not (tmp_path / "run").exists()


def test_variants_are_runs_of_their_own_compared_on_top_and_resumed_one_by_one(tmp_path: Path) -> None:
    body = federation_body(tmp_path / "data")
    body["variants"] = {"slow": {"training.learning_rate": 0.001}, "fast": {"training.learning_rate": 0.05}}
    body["outcome"] = {"checks": [{"figure": "fast.rounds_done", "equals": 1.0, "of": "slow.rounds_done"}]}
    config = parse_config(body, folder=tmp_path / "data", overrides=(*OFF, "federation.rounds=1"))

    class EndBefore(Observer):
        def run_started(self, name: str, rounds: int, institutions: Sequence[str]) -> None:
            if name == "tiny: fast":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(config, folder=tmp_path / "run", observer=EndBefore())
    slow = (tmp_path / "run" / "slow" / "metrics.jsonl").read_bytes()
    assert not (tmp_path / "run" / "summary.json").exists()
    summary = play(config, folder=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "slow" / "metrics.jsonl").read_bytes() == slow
    assert summary["checks"] == [
        {"figure": "fast.rounds_done", "bound": "equals 1.0 x slow.rounds_done", "found": 1, "holds": True}
    ]
    assert list(summary["variants"]) == ["slow", "fast"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


def test_a_start_is_warmed_up_on_public_rows_alone(tmp_path: Path) -> None:
    setup = Setup(federation(tmp_path / "data", *OFF))
    cold = start_adapter(setup)
    assert np.array_equal(cold, setup.model.start_vector())
    warm = "continual.warm_start_steps=3"
    warmed = start_adapter(Setup(federation(tmp_path / "data", *OFF, warm)))
    assert np.abs(warmed - cold).max() > 0
    assert np.array_equal(start_adapter(Setup(federation(tmp_path / "data", *OFF, warm))), warmed)
    other = {"north": rows_of(7)}
    assert np.array_equal(start_adapter(Setup(federation(tmp_path / "data", *OFF, warm, rows=other))), warmed)


def test_a_warm_start_without_rows_of_no_task_says_what_is_missing(tmp_path: Path) -> None:
    config = federation(
        tmp_path / "data", *OFF, "continual.warm_start_steps=3", "data.task_column=hospital", "training.batch_size=4",
        'continual.tasks=["north", "south"]', "continual.rounds_per_task=[1, 1]",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="warm_start_steps = 0"):
        start_adapter(Setup(config))


def test_the_coordinator_evaluates_every_task_begun_so_far(tmp_path: Path) -> None:
    tasks = (
        "data.task_column=hospital", "training.batch_size=4", 'continual.tasks=["north", "south"]',
        "continual.rounds_per_task=[1, 1]",
    )  # fmt: skip
    setup = Setup(federation(tmp_path / "data", *OFF, *tasks))
    evaluate, start = evaluator(setup), setup.model.start_vector()
    first, second = evaluate(start, 0), evaluate(start, 1)
    assert list(first.tasks) == ["north"]
    assert list(second.tasks) == ["north", "south"]
    assert (first.current, second.current) == (second.tasks["north"], second.tasks["south"])
    assert first.reference is None
    plain = evaluator(Setup(federation(tmp_path / "plain", *OFF)))(start, 0)
    assert plain.tasks == {}
    assert plain.reference == plain.current, "here the reference rows are the evaluation's"


def test_a_line_of_metrics_never_derives_from_private_labels(tmp_path: Path) -> None:
    """The same run with every institution's rows relabelled has the same figures before round 1 and the same form."""
    relabelled = {
        name: [row | {"label": "cab"["abc".index(row["label"])]} for row in rows_of(n)] for n, name in enumerate(NAMES)
    }
    runs = []
    for name, rows in (("one", None), ("two", relabelled)):
        config = federation(tmp_path / name, *OFF, "federation.rounds=1", rows=rows)
        write_jsonl(tmp_path / name / "public.jsonl", rows_of(50))
        runs.append(play(config, folder=tmp_path / name / "run"))
    assert runs[0]["start"] == runs[1]["start"]
    assert runs[0]["final"] != runs[1]["final"]
    assert runs[0]["bytes_up"] == runs[1]["bytes_up"]
