"""Every scenario tells a story and announces what it checks; the two about things going wrong play out, shortened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedft.config import load_config, with_overrides
from fedft.simulation.run import play

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
EMBEDDED = sorted(path.name for path in SCENARIOS.glob("*.toml"))
SHORT = {
    "training.local_steps": 1,
    "training.batch_size": 16,
    "evaluation.max_rows": 80,
    "continual.warm_start_steps": 1,
    "simulation.threads": 1,
    "outcome.checks": (),
}


def played(name: str, folder: Path) -> dict[str, Any]:
    return play(with_overrides(load_config(SCENARIOS / name), SHORT), folder=folder / "run")


def test_the_stories_that_are_promised_are_there() -> None:
    promised = {"hospitals", "banks", "no-privacy", "tight-budget", "continual", "dropouts"}
    assert promised <= {name.removesuffix(".toml") for name in EMBEDDED}


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_scenario_loads_and_announces_what_it_checks(name: str) -> None:
    config = load_config(SCENARIOS / name)
    assert config.federation.name == name.removesuffix(".toml")
    assert len(config.outcome.story.split()) > 20
    assert config.outcome.checks
    assert all(Path(source).is_file() for source in (config.data.train, config.data.evaluation) if source)


def test_a_hospital_whose_budget_ends_refuses_and_the_others_go_on(tmp_path: Path) -> None:
    summary = played("tight-budget.toml", tmp_path)
    village, county = (summary["institutions"][name] for name in ("village", "county"))
    assert 0 < village["rounds_answered"] < 6
    assert village["refusals"] == {"budget-exhausted": 6 - village["rounds_answered"]}
    assert village["epsilon"] <= village["cap"] == 6.5
    assert county["rounds_answered"] == summary["rounds_done"] == 6


def test_a_run_finishes_with_its_quorum_whatever_drops_out(tmp_path: Path) -> None:
    summary = played("dropouts.toml", tmp_path)
    answered = {name: institution["rounds_answered"] for name, institution in summary["institutions"].items()}
    assert answered == {"emergency": 4, "village": 4, "county": 5, "university": 6}
    assert summary["institutions"]["county"]["refusals"].keys() == {"non-finite-update"}
    assert summary["rounds_done"] == 6
