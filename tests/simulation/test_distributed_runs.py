"""Runs whose noise is added in shares: who may play them, that they resume, and what the user is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from fedft.assembly.planning import assumed_plan
from fedft.config import FederationConfig, load_config
from fedft.config.template import template
from fedft.display.ledger import read_story, story_view
from fedft.display.tables import plan_table
from fedft.errors import ConfigError, UnreachableEpsilon
from fedft.rounds.coordinator import Coordinator
from fedft.rounds.masking import least_honest
from fedft.secagg.graph import shape_for
from fedft.simulation.planning import plan_of
from fedft.simulation.run import play
from tests.federation import UNITS, adapter_of, records_of
from tests.simulation.test_masked_runs import FOUR, MASKED, Faults, four

SHARED = (
    MASKED,
    "privacy.mode=distributed",
    f"privacy.max_units={UNITS}",
    "training.local_steps=1",
    "training.optimizer=sgd",
    "aggregation.method=ffa_lora",
)


def shared(folder: Path, *overrides: str, faults: Faults | None = None) -> FederationConfig:
    return four(folder, *SHARED, *overrides, faults=faults)


def printed(view: RenderableType, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(view)
    return console.export_text()


@pytest.mark.parametrize("optimizer", ["plain", "momentum", "adam"])
def test_the_server_takes_the_steps(optimizer: str, tmp_path: Path) -> None:
    options = (f"aggregation.server_optimizer={optimizer}", "training.scheduler=linear", "federation.rounds=3")
    play(shared(tmp_path, *options), folder=tmp_path / "run")
    records = records_of(tmp_path / "run")
    assert all(record["updates"] == sorted(FOUR) for record in records)
    first, last = adapter_of(tmp_path / "run", 2), adapter_of(tmp_path / "run", 3)
    assert (first != last).any()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    north = summary["institutions"]["north"]
    assert north["epsilon"] <= 8.0 < north["local_epsilon"]
    assert summary["privacy_mode"] == "distributed"


def test_the_rate_follows_the_schedule(tmp_path: Path) -> None:
    """Linear to 0: the third of three steps is a third of the rate, and so is Adam's third move at most."""
    play(
        shared(
            tmp_path,
            "aggregation.server_optimizer=adam",
            "aggregation.server_momentum=0.0",
            "training.scheduler=linear",
            "federation.rounds=3",
            "training.learning_rate=0.3",
        ),
        folder=tmp_path / "run",
    )
    moved = abs(adapter_of(tmp_path / "run", 3) - adapter_of(tmp_path / "run", 2)).max()
    assert moved == pytest.approx(0.1 * 3**0.5, rel=0.05)  # with v of three gradients, √(g²/v̂) is at most √3


def test_a_killed_run_goes_on_and_counts_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> Any:
        raise Killed

    config = shared(tmp_path, "aggregation.server_optimizer=adam", "federation.rounds=3")
    with monkeypatch.context() as patched:
        calls = iter(range(9))
        commit = Coordinator._commit
        patched.setattr(Coordinator, "_commit", lambda self, entry: kill() if next(calls) == 1 else commit(self, entry))
        with pytest.raises(Killed):
            play(config, folder=tmp_path / "run")
    play(config, folder=tmp_path / "run", resume=True)
    records = records_of(tmp_path / "run")
    assert [record["round"] for record in records] == [1, 2, 3]
    ledger = tmp_path / "run" / "institutions" / "north" / "ledger.sqlite"
    (account,) = read_story("north", ledger).accounts
    assert account.events == 3
    assert account.epsilon == records[-1]["epsilon"]["north"]
    assert account.epsilon is not None
    assert account.local_epsilon is not None
    assert account.local_epsilon > account.epsilon
    text = printed(story_view(read_story("north", ledger)), width=200)
    assert "in the sum of 2, rate 0.2" in text
    assert "if secure aggregation failed" in text


def test_a_plan_says_what_holds_alone(tmp_path: Path) -> None:
    plan = plan_of(shared(tmp_path))
    north = plan.institutions["north"]
    assert north.planned_epsilon is not None
    assert north.local_epsilon is not None
    assert north.planned_epsilon <= 8.0 < north.local_epsilon
    assert north.sampling_rate == 8 / UNITS
    text = printed(plan_table(plan.as_json()), width=160)
    assert "alone: what would hold if secure aggregation failed" in text


def test_sizes_beyond_the_largest_are_refused_in_a_plan_without_rows(tmp_path: Path) -> None:
    config = shared(tmp_path)
    small, large = assumed_plan(config, 5), assumed_plan(config, 41)
    assert small.plan is not None
    assert small.plan.noise_multiplier is not None
    assert (large.refusal, large.because) == ("wrong-plan", "privacy.max_units is 40")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.local_steps=2", r"training\.local_steps = 1"),
        ("training.optimizer=adamw", r"training\.optimizer = .sgd"),
        ("training.weight_decay=0.1", r"training\.weight_decay = 0"),
        ("training.batch_size=41", r"training\.batch_size of at most privacy\.max_units = 40"),
        ("continual.method=ewc", r"continual\.method = .none"),
        ("aggregation.weights={north=1.0,south=1.0,west=1.0,east=2.0}", r"no aggregation\.weights"),
        ("secure_aggregation.range=1.0", r"no secure_aggregation\.range"),
        ("institutions.north.batch_size=4", r"institutions\.north\.batch_size"),
        ("privacy.max_units=", r"mode .distributed. needs max_units"),
        ("training.max_gradient_norm=1.0", r"no training\.max_gradient_norm with privacy\.mode = .distributed"),
    ],
)
def test_what_does_not_go_with_it_is_said(override: str, words: str, tmp_path: Path) -> None:
    more = ("continual.strength=1.0",) if override.startswith("continual") else ()
    with pytest.raises(ConfigError, match=words):
        shared(tmp_path, override, *more)


def test_its_keys_are_for_it_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"takes no max_units or colluding"):
        four(tmp_path, "privacy.max_units=40")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("privacy.colluding=2",), r"privacy\.colluding of at most 1 for 4 institutions of which 3 are needed"),
        (("secure_aggregation.ring_bits=16", "privacy.epsilon=0.02"), r"raise secure_aggregation\.ring_bits"),
    ],
)
def test_what_masks_do_not_bear_is_said_before_anything_is_trained(
    overrides: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        play(shared(tmp_path, *overrides), folder=tmp_path / "run")
    assert not list((tmp_path / "run").glob("**/ledger.sqlite"))


def test_an_epsilon_that_no_noise_reaches_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreachableEpsilon):
        play(shared(tmp_path, "privacy.epsilon=1e-6", "privacy.delta=1e-9"), folder=tmp_path / "run")


def test_over_how_many_a_sum_goes() -> None:
    """Four of which three are needed: one may collude, one may be left out of a sum."""
    assert least_honest(shape_for(4)) == least_honest(shape_for(4), 1) == 2
    assert least_honest(shape_for(4), 0) == 3
    assert least_honest(shape_for(4, 4), 0) == 4
    assert least_honest(shape_for(3)) == 2
    with pytest.raises(ConfigError, match="at most 32 institutions"):
        least_honest(shape_for(200))


def test_the_template_names_the_mode(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(template())
    assert load_config(tmp_path / "f.toml").privacy.mode == "dp-sgd"
    assert "distributed" in template()


def test_fed_svd_turns_what_was_summed(tmp_path: Path) -> None:
    play(
        shared(tmp_path, "aggregation.method=fed_svd", "aggregation.server_optimizer=momentum"), folder=tmp_path / "run"
    )
    assert all(record["quorum"] for record in records_of(tmp_path / "run"))
