"""The end of a run: what is said of quality, budgets, checks, and what to do next."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from fedft.display.summary import checks_hold, next_steps, summary_view
from fedft.display.tables import findings_table, metrics_table, plan_table
from fedft.doctor import Finding


def text_of(view: RenderableType, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(view)
    return console.export_text()


def summary(**values: Any) -> dict[str, Any]:
    """What summary.json holds of a run."""
    institution = {
        "rows": 900, "units": 400, "epsilon": 7.991, "cap": 8.0, "delta": 1e-5, "rounds_answered": 3,
        "rounds_missing": 1, "refusals": {"budget-exhausted": 2},
    }  # fmt: skip
    plain = {
        "name": "hospitals", "rounds_done": 6, "stopped_early": None, "metric": "accuracy", "best_round": 5,
        "start": {"accuracy": 0.25, "loss": 1.5, "rows": 40}, "final": {"accuracy": 0.75, "loss": 0.5, "rows": 40},
        "best": {"accuracy": 0.8, "loss": 0.6, "rows": 40}, "forgetting": {}, "institutions": {"north": institution},
        "bytes_up": 1_200_000, "bytes_down": 2_400_000, "seconds": 125.0, "parameters_trained": 8452,
    }  # fmt: skip
    return plain | values


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_quality_goes_from_start_to_end() -> None:
    lines = words(text_of(summary_view(summary())))
    assert ["accuracy", "0.250", "0.750", "+0.500", "0.800"] in lines
    assert ["loss", "1.500", "0.500", "-1.000", "0.600"] in lines
    assert ["hospitals:", "6", "rounds", "in", "2:05"] in lines


def test_each_budget_and_who_sat_out() -> None:
    text = text_of(summary_view(summary(stopped_early="patience")))
    assert "8.00 of 8" in text
    assert "1e-05" in text
    assert "budget-exhausted x2, missing x1" in text
    assert "stopped early: patience" in text
    assert "1.2 MB up, 2.4 MB down; 8,452 parameters trained" in text


def test_what_an_institution_elsewhere_spent_is_in_its_own_ledger() -> None:
    north = {**summary()["institutions"]["north"], "epsilon": None, "cap": None, "epsilon_asked": 8.0}
    text = text_of(summary_view(summary(engine="superlink", institutions={"north": north})), width=160)
    assert "at most 8.00 asked for; spent: its own ledger" in text
    assert "no guarantee" not in text
    off = {**north, "epsilon_asked": None, "delta": None}
    assert "no guarantee" in text_of(summary_view(summary(institutions={"north": off})), width=160)


def test_rows_and_units_of_an_institution_are_not_shown() -> None:
    text = text_of(summary_view(summary()), width=200)
    assert "900" not in text
    assert "400" not in text


@pytest.mark.parametrize("epsilon", [None, math.inf])
def test_no_guarantee_is_called_so(epsilon: float | None) -> None:
    institution: dict[str, Any] = {"epsilon": epsilon, "cap": None, "delta": None, "rounds_answered": 6, "refusals": {}}
    assert "no guarantee" in text_of(summary_view(summary(institutions={"north": institution})))


def test_checks_say_whether_they_hold() -> None:
    good = {"figure": "final.accuracy", "bound": "at least 0.7", "found": 0.75, "holds": True}
    bad = {"figure": "final.loss", "bound": "at most 0.1", "found": 0.5, "holds": False}
    text = text_of(summary_view(summary(checks=[good, bad])))
    assert "holds: final.accuracy at least 0.7, found 0.750" in text
    assert "DOES NOT HOLD: final.loss at most 0.1, found 0.500" in text
    assert checks_hold(summary(checks=[good]))
    assert checks_hold(summary())
    assert not checks_hold(summary(checks=[good, bad]))


def test_variants_stand_side_by_side() -> None:
    with_ewc = summary(forgetting={"messages": 0.02})
    without = summary(final={"accuracy": 0.76}, forgetting={"messages": 0.31})
    text = text_of(summary_view({"name": "continual", "variants": {"ewc": with_ewc, "without": without}}), width=120)
    assert ["ewc", "6", "0.250", "0.750", "0.800", "8.00", "0.020"] in words(text)
    assert ["without", "6", "0.250", "0.760", "0.800", "8.00", "0.310"] in words(text)


def test_next_steps_can_be_copied(tmp_path: Path) -> None:
    run, log = tmp_path / "my run", tmp_path / "log.txt"
    steps = next_steps(summary(), run, log)
    assert f"report   {run}/report.html" in steps
    assert f"next     fedft evaluate '{run}'" in steps
    assert not any("log.txt" in line for line in steps)
    log.touch()
    variants = next_steps({"variants": {"ewc": summary()}}, run, log)
    assert f"report   {run}/report.html" in variants
    assert f"adapter  {run}/ewc/adapter" in variants
    assert f"log      {log}" in variants


def plan(**institution: Any) -> dict[str, Any]:
    north = {
        "rows": 900, "units": 400, "batch_size": 32, "sampling_rate": 0.08, "steps": 20, "epsilon": 8.0, "delta": 1e-5,
        "cap": 8.0, "clip_norm": 1.0, "noise_multiplier": 0.919, "planned_epsilon": 7.99, "affordable_rounds": 4,
    }  # fmt: skip
    return {
        "name": "hospitals", "rounds": 4, "steps_per_round": 5, "mode": "dp-sgd", "aggregation": "fed_svd",
        "roles": ("lora_B", "head"), "parameters_base": 6832, "parameters_adapter": 1075, "parameters_trained": 563,
        "bytes_up_per_update": 6432, "bytes_down_per_institution": 4300, "institutions": {"north": north | institution},
        "unit": "patient", "tasks": (), "asked": None, "assumed": (),
    }  # fmt: skip


def test_a_plan_names_noise_epsilon_bytes_and_parameters() -> None:
    text = text_of(plan_table(plan()), width=100)
    row = ["north", "400", "32", "0.080", "20", "0.919", "7.99", "8", "1e-05"]
    assert row in words(text)
    assert "563 parameters trained" in text
    assert "6.4 kB up and 4.3 kB down" in text
    assert "refuses" not in text


def test_a_plan_says_who_cannot_afford_it() -> None:
    assert "north can afford 2 rounds within its cap" in text_of(plan_table(plan(cap=4.0, affordable_rounds=2)))


def test_a_plan_without_privacy_says_so() -> None:
    text = text_of(plan_table(plan() | {"mode": "off"}))
    assert 'privacy.mode = "off": no guarantee to anyone' in text
    assert "noise" not in text


def assumed(units: int, noise: float, *epsilons: float) -> dict[str, Any]:
    north = plan()["institutions"]["north"] | {"units": units, "sampling_rate": 32 / units, "noise_multiplier": noise}
    return {"units": units, "plan": north, "epsilon_after": tuple(enumerate(epsilons, start=1)), "refusal": None}


def test_a_plan_without_rows_says_what_is_asked_and_what_it_means_for_some_sizes() -> None:
    small = {"units": 20, "plan": None, "epsilon_after": (), "refusal": "data", "because": "a step takes 32 on average"}
    asked = plan()["institutions"]["north"]
    sizes = (assumed(400, 0.919, 4.0, 7.991), small, assumed(2000, 0.6, 5.0, 7.99))
    text = text_of(plan_table(plan() | {"institutions": {}, "asked": asked, "assumed": sizes}), width=200)
    assert "asked of each institution: 20 steps, each with 32 units on average; epsilon 8 at delta 1e-05" in text
    assert "(a unit is a patient)" in text
    assert ["units", "sampling", "noise", "after", "1", "after", "2"] in words(text)
    assert ["400", "0.080", "0.919", "4.00", "8.00"] in words(text)
    assert ["2,000", "0.016", "0.600", "5.00", "7.99"] in words(text)
    assert "20 units: refused (data): a step takes 32 on average" in text
    assert "the sizes are assumed" in text
    assert "institution  " not in text
    several = plan() | {"asked": asked, "assumed": sizes, "tasks": ("a", "b"), "unit": None}
    assert "(a unit is a row; so many in each task)" in text_of(plan_table(several), width=200)


def test_a_plan_without_rows_or_privacy_says_both() -> None:
    plain = assumed(400, 0.9) | {"epsilon_after": ()}
    text = text_of(plan_table(plan() | {"asked": plan()["institutions"]["north"], "assumed": (plain,), "mode": "off"}))
    assert ["400", "0.080"] in words(text)
    assert 'privacy.mode = "off": no guarantee to anyone' in text
    assert "noise" not in text.replace("and so its noise", "")
    assert "epsilon" not in text


def test_metrics_and_findings() -> None:
    text = text_of(metrics_table({"loss": 0.5, "perplexity": 1.6487, "rows": 40.0}, "clinics", 3))
    assert "clinics, adapter of round 3 on 40 rows" in text
    assert ["perplexity", "1.649"] in words(text)
    assert ["torch", "not", "installed", "missing"] in words(
        text_of(findings_table([Finding("torch", "missing", "not installed")]))
    )
