"""What a run will cost, said before: and what it then costs is that, or less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedft.rounds.institution
from fedft.assembly.planning import guarantee_of
from fedft.ledger.store import Ledger
from fedft.privacy.accountant import calibrate, epsilon_of
from fedft.privacy.events import DpSgdRound, GaussianRelease
from fedft.rounds.terms import Guarantee
from fedft.simulation.planning import plan_of
from fedft.simulation.run import play
from fedft.simulation.setup import Setup
from fedft.update.envelope import MAX_ROUND, seal
from fedft.update.wire import body_size
from tests.federation import BATCH, NAMES, OFF, PRIVATE, ROWS, federation, records_of, rows_of

EPSILON, DELTA = 8.0, 1e-3
FISHER = (
    "continual.method=ewc", "continual.strength=1.0", "continual.fisher=private-dp",
    "continual.fisher_noise_multiplier=3", "data.task_column=hospital", 'continual.tasks=["north", "south"]',
    "continual.rounds_per_task=[1, 2]", "training.batch_size=4", "federation.rounds=3",
)  # fmt: skip
SAME = dict.fromkeys(NAMES, rows_of(0))
"""The same rows for all: one calibration serves three."""


def units_of(number: int) -> int:
    return len({row["patient"] for row in rows_of(number)})


def test_noise_steps_and_rates_are_the_accountants(tmp_path: Path) -> None:
    assert (PRIVATE["epsilon"], PRIVATE["delta"]) == (EPSILON, DELTA)
    plan = plan_of(federation(tmp_path, "federation.rounds=5", "institutions.south.batch_size=4"))
    for number, name in enumerate(NAMES):
        found, batch = plan.institutions[name], 4 if name == "south" else BATCH
        rate = batch / units_of(number)
        noise = calibrate(epsilon=EPSILON, delta=DELTA, sampling_rate=rate, steps=10)
        assert (found.rows, found.units, found.batch_size, found.steps) == (ROWS, units_of(number), batch, 10)
        assert (found.sampling_rate, found.noise_multiplier) == (rate, noise)
        assert found.planned_epsilon == epsilon_of([DpSgdRound(noise, rate, 2)] * 5, DELTA)
        assert 0.9 * EPSILON < found.planned_epsilon <= EPSILON
        assert (found.epsilon, found.delta, found.cap, found.clip_norm) == (EPSILON, DELTA, EPSILON, 1.0)
        assert found.affordable_rounds == 5
        assert guarantee_of(found) == Guarantee(EPSILON, DELTA, 1.0, noise)


def test_without_privacy_there_is_nothing_to_promise(tmp_path: Path) -> None:
    plan = plan_of(federation(tmp_path, *OFF))
    assert plan.mode == "off"
    found = plan.institutions["north"]
    assert {found.epsilon, found.cap, found.noise_multiplier, found.planned_epsilon, found.affordable_rounds} == {None}
    assert guarantee_of(found) is None


def test_nothing_is_trained_written_or_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(fedft.rounds.institution, "train_locally", never)
    config = federation(tmp_path, rows=SAME)
    before = sorted(tmp_path.rglob("*"))
    json.dumps(plan_of(config).as_json())
    assert sorted(tmp_path.rglob("*")) == before


def test_parameters_are_those_of_the_model(tmp_path: Path) -> None:
    config = federation(tmp_path)
    setup, plan = Setup(config), plan_of(config)
    layout = setup.model.layout
    assert plan.parameters_adapter == layout.size
    assert plan.parameters_trained == layout.only(("lora_B", "head")).size < layout.size
    adapter = {id(parameter) for parameter in setup.model.named_adapter_parameters().values()}
    base = sum(parameter.numel() for parameter in setup.model.parameters() if id(parameter) not in adapter)
    assert plan.parameters_base == base
    assert plan.bytes_down_per_institution == body_size("adapter", layout.size, "float32")


def test_no_message_is_longer_than_planned(tmp_path: Path) -> None:
    """Not even under the longest names that a federation may have; and the plan is no wild guess."""
    config = federation(tmp_path, *OFF, "federation.rounds=1")
    plan = plan_of(config)
    summary = play(config, folder=tmp_path / "run")
    (record,) = records_of(tmp_path / "run")
    assert record["bytes_up"] <= len(NAMES) * plan.bytes_up_per_update
    assert record["bytes_down"] == len(NAMES) * plan.bytes_down_per_institution
    assert (summary["bytes_up"], summary["parameters_trained"]) == (record["bytes_up"], plan.parameters_trained)
    longest = seal(
        run="r" * 128, round=MAX_ROUND, institution="i" * 64, plan_digest="f" * 64, layout_digest="f" * 64,
        delta=np.zeros(plan.parameters_trained, np.float32),
    )  # fmt: skip
    assert len(longest) <= plan.bytes_up_per_update <= 4 * plan.parameters_trained + 5000


def test_an_institution_answers_as_many_rounds_as_its_cap_affords(tmp_path: Path) -> None:
    """North's cap is between what one and two rounds cost, south's exactly what two do, west's below one."""
    plain = plan_of(federation(tmp_path, rows=SAME)).institutions["north"]
    assert plain.noise_multiplier is not None
    assert plain.sampling_rate is not None
    costs = [epsilon_of([DpSgdRound(plain.noise_multiplier, plain.sampling_rate, 2 * n)], DELTA) for n in (1, 2)]
    caps = {"north": (costs[0] + costs[1]) / 2, "south": costs[1], "west": 0.9 * costs[0]}
    words = [f"institutions.{name}.epsilon={cap!r}" for name, cap in caps.items()]
    config = federation(tmp_path, "federation.rounds=2", *words, rows=SAME)
    plan, summary = plan_of(config), play(config, folder=tmp_path / "run")
    for name, rounds in (("north", 1), ("south", 2), ("west", 0)):
        found = summary["institutions"][name]
        assert plan.institutions[name].affordable_rounds == found["rounds_answered"] == rounds
        assert found["epsilon"] <= caps[name] == found["cap"]
        assert found["refusals"] == ({"budget-exhausted": 2 - rounds} if rounds < 2 else {})


def events_of(run: Path, name: str) -> list[Any]:
    with Ledger.open(run / "institutions" / name / "ledger.sqlite", read_only=True) as ledger:
        return list(ledger.events(name))


def test_looking_back_is_planned_for_and_comes_to_what_was_planned(tmp_path: Path) -> None:
    """West has no rows of the first task, so it has nothing to look back on, and its updates need less noise."""
    only_south = [row for row in rows_of(0) if row["hospital"] == "south"]
    config = federation(tmp_path, *FISHER, rows=SAME | {"west": only_south})
    plan = plan_of(config)
    play(config, folder=tmp_path / "run")
    for name, releases in (("north", 1), ("south", 1), ("west", 0)):
        events, planned = events_of(tmp_path / "run", name), plan.institutions[name].planned_epsilon
        assert sum(isinstance(event, GaussianRelease) for event in events) == releases
        assert epsilon_of(events, DELTA) == planned
        assert planned is not None
        assert planned <= EPSILON
    assert [plan.institutions[name].affordable_rounds for name in NAMES] == [3, 3, 2]


def test_what_a_cap_affords_counts_looking_back_when_it_happens(tmp_path: Path) -> None:
    """North's cap cannot pay its Fisher: the second task is refused there, and nothing is charged for it."""
    costly = "continual.fisher_noise_multiplier=0.75"
    config = federation(tmp_path, *FISHER, costly, "institutions.north.epsilon=5", rows=SAME)
    plan = plan_of(config)
    play(config, folder=tmp_path / "run")
    updates = [record["updates"] for record in records_of(tmp_path / "run")]
    assert plan.institutions["north"].affordable_rounds == 1
    assert updates == [list(NAMES), ["south", "west"], ["south", "west"]]
    assert [type(event) for event in events_of(tmp_path / "run", "north")] == [DpSgdRound]
