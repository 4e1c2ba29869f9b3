"""The commands on a real federation: init, plan, simulate, resume, evaluate, predict, export, ledger, report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import CHECKS, federation_file, fedft
from tests.federation import NAMES, records_of
from tests.tiny import classification_rows, tiny_bert, write_jsonl


def test_init_writes_a_file_that_loads_and_never_overwrites(tmp_path: Path) -> None:
    from fedft.config import load_config

    file = tmp_path / "new.toml"
    assert fedft("init", file).exit_code == 0
    load_config(file)
    file.write_text("mine")
    result = fedft("init", file)
    assert result.exit_code == 1
    assert file.read_text() == "mine"
    assert fedft("init", tmp_path / "no" / "folder.toml").stderr.startswith("error: No such file or directory")


def test_the_file_of_init_can_be_planned_once_its_data_are_there(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    assert fedft("init", file).exit_code == 0
    assert "expected a data file at" in fedft("plan", file).stderr
    write_jsonl(tmp_path / "train.jsonl", classification_rows(600))
    write_jsonl(tmp_path / "evaluation.jsonl", classification_rows(40, seed=1))
    (tmp_path / "base").mkdir()
    result = fedft("plan", file, "--set", f"model.base={tiny_bert(tmp_path / 'base')}", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["institutions"]) == 4


def test_plan_says_what_a_run_will_cost_and_trains_nothing(tmp_path: Path) -> None:
    file = federation_file(tmp_path)
    shown = fedft("plan", file)
    assert shown.exit_code == 0, shown.output
    for words in (*NAMES, "noise", "sampling", "parameters trained", "per institution"):
        assert words in shown.stdout
    plan = json.loads(fedft("plan", file, "--json", "--set", "privacy.epsilon=3.0").stdout)
    assert plan["institutions"]["north"]["epsilon"] == 3.0
    assert plan["institutions"]["north"]["planned_epsilon"] <= 3.0
    assert {path.name for path in tmp_path.iterdir()} == {
        "base", "federation.toml", "public.jsonl", *(f"{name}.jsonl" for name in NAMES)
    }  # fmt: skip


def test_simulate_prints_rounds_summary_and_what_next(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = fedft("simulate", federation_file(tmp_path), "--folder", run)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert sum(line.startswith("round 2 of 2: 3 of 3 updates") for line in lines) == 1
    assert sum(line.startswith("round 2 of 2: on public data accuracy") for line in lines) == 1
    assert "holds: rounds_done equals 2.0, found 2" in lines
    assert f"next     fedft evaluate {run}" in lines
    assert not (run / "log.txt").exists()
    assert (run / "report.html").is_file()
    assert (run / "adapter" / "adapter_model.safetensors").is_file()


def test_a_check_that_does_not_hold_is_exit_code_4(tmp_path: Path) -> None:
    extra = '[outcome]\nchecks = [{ figure = "final.accuracy", at_least = 2.0 }]\n'
    result = fedft("simulate", federation_file(tmp_path, extra), "--folder", tmp_path / "run")
    assert result.exit_code == 4
    assert "DOES NOT HOLD: final.accuracy at least 2.0" in result.stdout


def test_why_an_institution_refused_is_in_the_log_not_on_the_terminal(tmp_path: Path) -> None:
    file = federation_file(tmp_path, CHECKS)
    run = tmp_path / "run"
    result = fedft("simulate", file, "--folder", run, "--set", "institutions.south.epsilon=0.5")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "refused: south (budget-exhausted)" in result.stdout
    assert "budget-exhausted x2" in result.stdout
    assert f"log      {run / 'log.txt'}" in result.stdout.splitlines()
    assert "south refuses round 1: " in (run / "log.txt").read_text()


def test_a_run_is_not_overwritten_and_not_resumed_as_another(finished: Path) -> None:
    file = finished.parent / "federation.toml"
    again = fedft("simulate", file, "--folder", finished)
    assert again.exit_code == 1
    assert again.stderr.startswith("error: expected a new folder")
    other = fedft("simulate", file, "--set", "federation.rounds=3", "--resume", finished)
    assert other.exit_code == 1
    assert "expected the configuration that the run was started with" in other.stderr
    assert fedft("simulate", file, "--resume", finished).exit_code == 0


def test_variants_alone_or_together(tmp_path: Path) -> None:
    extra = '[variants.slow]\n"training.learning_rate" = 0.001\n[variants.fast]\n"training.learning_rate" = 0.05\n'
    file = federation_file(tmp_path, extra)
    both = fedft("simulate", file, "--folder", tmp_path / "both", "--set", "federation.rounds=1")
    assert both.exit_code == 0, both.output
    assert "tiny: slow: 1 rounds" in both.stdout
    assert (tmp_path / "both" / "fast" / "report.html").is_file()
    result = fedft("evaluate", tmp_path / "both")
    assert result.exit_code == 1
    assert f"found one with the variants slow, fast: name one, as {tmp_path / 'both' / 'slow'}" in result.stderr
    assert fedft("evaluate", tmp_path / "both" / "slow").exit_code == 0
    unknown = fedft("simulate", file, "--variant", "medium", "--folder", tmp_path / "one")
    assert unknown.exit_code == 1
    assert "slow, fast" in unknown.stderr
    alone = fedft("simulate", file, "--variant", "fast", "--folder", tmp_path / "one", "--set", "federation.rounds=1")
    assert alone.exit_code == 0, alone.output
    assert not (tmp_path / "one" / "slow").exists()


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fedft", "simulate", str(federation_file(tmp_path)), "--folder", str(run)]
    listening = ["env", "--default-signal=INT"]  # what a shell starts in the background ignores it, and so its children
    process = subprocess.Popen(
        [*listening, *command, "--set", "federation.rounds=12", "--set", "outcome.checks=[]"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert next(line for line in process.stdout if line.startswith("round 1 of 12"))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error == f"interrupted; what is done is kept; go on with: fedft simulate --resume {run}\n"
    before = len(records_of(run))
    result = fedft("simulate", "--resume", run)
    assert result.exit_code == 0, result.output
    assert 1 <= before < len(records_of(run)) == 12
    assert f"round {before + 1} of 12: 3 of 3 updates" in result.stdout


def test_evaluate_gives_the_best_rounds_figures(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    metrics = json.loads(fedft("evaluate", finished, "--json").stdout)
    assert metrics == pytest.approx(summary["best"])
    shown = fedft("evaluate", finished, "--data", finished.parent / "north.jsonl")
    assert shown.exit_code == 0, shown.output
    assert "on 90 rows" in shown.stdout


def test_predict_answers_each_text_and_each_row(finished: Path, tmp_path: Path) -> None:
    result = fedft("predict", finished, "w1 w2 w3", "w50 w51")
    answers = [line.split("\t") for line in result.stdout.splitlines()]
    assert len(answers) == 2
    assert all(label in "abc" and 0 < float(probability) <= 1 for label, probability in answers)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "w1 w2 w3"}\n{"text": "w50 w51"}\n')
    from_file = [json.loads(line) for line in fedft("predict", finished, "--data", rows, "--json").stdout.splitlines()]
    assert [(row["row"], row["answer"]) for row in from_file] == [(1, answers[0][0]), (2, answers[1][0])]


def test_predict_with_an_unknown_column_or_file(finished: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"words": "secret-words"}\n')
    result = fedft("predict", finished, "--data", rows)
    assert result.exit_code == 1
    assert "secret-words" not in result.output
    assert fedft("predict", finished, "--data", tmp_path / "none.jsonl").exit_code == 1


def test_export_writes_a_new_folder_only(finished: Path, tmp_path: Path) -> None:
    assert fedft("export", finished, "--to", tmp_path / "adapter").exit_code == 0
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert fedft("export", finished, "--to", tmp_path / "merged", "--merged").exit_code == 0
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "thesis.txt").write_text("years of work")
    result = fedft("export", finished, "--to", kept)
    assert result.exit_code == 1
    assert "expected a new or empty folder" in result.stderr
    assert (kept / "thesis.txt").read_text() == "years of work"


def test_ledger_show_adds_up_to_the_runs_epsilon(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    stories = json.loads(fedft("ledger", "show", finished, "--json").stdout)
    assert [story["institution"] for story in stories] == list(NAMES)
    for story in stories:
        (account,) = story["accounts"]
        assert account["events"] == 2
        assert account["epsilon"] == summary["institutions"][story["institution"]]["epsilon"]
    shown = fedft("ledger", "show", finished, "--institution", "south")
    assert "data set south: 2 events charged, epsilon" in shown.stdout
    assert "north" not in shown.stdout
    assert fedft("ledger", "show", finished, "--institution", "nobody").exit_code == 1


def test_an_altered_ledger_is_an_error(finished: Path, tmp_path: Path) -> None:
    source = finished / "institutions" / "north"
    for name in ("ledger.sqlite", "ledger.sqlite.head"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    body = bytearray((tmp_path / "ledger.sqlite").read_bytes())
    place = body.index(b'"noise_multiplier"')
    body[place + 1] ^= 1
    (tmp_path / "ledger.sqlite").write_bytes(bytes(body))
    result = fedft("ledger", "show", tmp_path / "ledger.sqlite")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_report_writes_it_anew(finished: Path) -> None:
    (finished / "report.html").unlink()
    result = fedft("audit", "report", finished)
    assert result.exit_code == 0, result.output
    assert (finished / "report.html").is_file()
