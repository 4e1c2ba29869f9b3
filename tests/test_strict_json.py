"""Any reader can read the JSON that fedft writes: NaN and infinity are null, an infinite epsilon is said in words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fedft import strict_json
from fedft.evaluation.quality import evaluate
from fedft.ledger.store import Ledger
from fedft.privacy.events import UnprotectedRelease
from tests.cli.commands import federation_file, fedft


def refuse(constant: str) -> None:
    raise AssertionError(constant)


def strictly(text: str) -> Any:
    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_are_null_wherever_they_stand() -> None:
    value: dict[str, Any] = {"a": math.nan, "b": [math.inf, (1.5, -math.inf)], "c": {"d": math.nan}, "f": "NaN", "h": 3}
    expected = {"a": None, "b": [None, [1.5, None]], "c": {"d": None}, "f": "NaN", "h": 3}
    assert strictly(strict_json.dumps(value)) == strictly(strict_json.dumps(value, indent=2)) == expected
    assert math.isnan(value["a"]), "the value itself stays"


def without_a_number(*args: Any, **kwargs: Any) -> dict[str, float]:
    return {**evaluate(*args, **kwargs), "loss": math.nan, "macro_f1": math.inf}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose loss is no number, with an institution whose data set was used without privacy before."""
    for module in ("fedft.assembly.coordinator", "fedft.assembly.saved_run"):
        monkeypatch.setattr(f"{module}.evaluate", without_a_number)
    with Ledger.open(tmp_path / "kept" / "north.sqlite") as ledger:
        ledger.record_intent(
            run="earlier", round=1, purpose="update", dataset="north", plan_digest="0" * 64, event=UnprotectedRelease(),
            evidence={},
        )  # fmt: skip
    checks = '[outcome]\nchecks = [{ figure = "final.loss", at_most = 9.0 }, { figure = "rounds_done", equals = 2 }]\n'
    result = fedft(
        "simulate", federation_file(tmp_path, checks), "--folder", tmp_path / "run", "--set",
        f"simulation.ledger_dir={tmp_path / 'kept'}",
    )  # fmt: skip
    assert result.exit_code == 4, result.output
    return tmp_path / "run"


def test_every_file_of_a_run_is_strict_json_and_says_whose_epsilon_is_infinite(run: Path) -> None:
    files = [file for file in run.rglob("*.json*") if file.is_file()]
    assert {"config.json", "metrics.jsonl", "summary.json", "manifest.json", "quality.json"} <= {f.name for f in files}
    for file in files:
        for text in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            strictly(text)
    records = [strictly(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    summary = strictly((run / "summary.json").read_text())
    assert [(record["epsilon"]["north"], record["epsilon_infinite"]) for record in records] == [(None, ["north"])] * 2
    assert [record["refused"] for record in records] == [{"north": "budget-exhausted"}] * 2
    spent = summary["institutions"]
    assert (spent["north"]["epsilon"], spent["north"]["epsilon_infinite"]) == (None, True)
    assert spent["south"]["epsilon"] > 0
    assert not spent["south"]["epsilon_infinite"]
    assert (summary["final"]["loss"], summary["final"]["macro_f1"]) == (None, None)
    assert [(check["found"], check["holds"]) for check in summary["checks"]] == [(None, False), (2, True)]
    assert "north made an unprotected release: its epsilon is infinite" in (run / "report.html").read_text()


def test_a_finished_run_resumed_comes_to_the_same_summary(run: Path) -> None:
    before = strictly((run / "summary.json").read_text())
    assert fedft("simulate", "--resume", run).exit_code == 4
    after = strictly((run / "summary.json").read_text())
    assert after | {"seconds": None} == before | {"seconds": None}


def test_every_command_that_prints_json_prints_strict_json(run: Path) -> None:
    assert strictly(fedft("evaluate", run, "--json").stdout)["loss"] is None
    stories = strictly(fedft("ledger", "show", run, "--json").stdout)
    accounts = {story["institution"]: story["accounts"][0] for story in stories}
    assert (accounts["north"]["epsilon"], accounts["north"]["epsilon_infinite"]) == (None, True)
    assert (accounts["south"]["epsilon"] > 0, accounts["south"]["epsilon_infinite"]) == (True, False)
    assert strictly(fedft("plan", run.parent / "federation.toml", "--json").stdout)["institutions"]
    assert strictly(fedft("predict", run, "w1 w2", "--json").stdout)["answer"] in "abc"


@pytest.mark.parametrize("bound", ["at_least = inf", "at_most = nan", "equals = inf"])
def test_a_file_with_a_bound_that_json_could_not_keep_is_refused(bound: str, tmp_path: Path) -> None:
    file = federation_file(tmp_path, f'[outcome]\nchecks = [{{ figure = "final.loss", {bound} }}]\n')
    result = fedft("plan", file)
    assert result.exit_code == 1
    assert "to be a finite number" in result.stderr
