"""How commands end: exit codes, one line on stderr, no traceback, nothing private; and how quickly they start."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedft.model.files import digest_of
from tests.cli.commands import federation_file, fedft
from tests.tiny import tiny_bert

CANARY = "patient-4711-has-measles"
COMMANDS = ("init", "plan", "simulate", "evaluate", "predict", "export", "audit", "ledger", "doctor", "version")


def test_help_names_every_command() -> None:
    result = fedft("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.stdout


@pytest.mark.parametrize("command", [*((name,) for name in COMMANDS), ("ledger", "show"), ("audit", "report")])
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = fedft(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "flwr", "opacus", "peft", "datasets", "dp_accounting", "numpy", "pydantic")
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fedft.cli import app\n"
        "assert CliRunner().invoke(app, ['simulate', '--help']).exit_code == 0\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"


def test_version() -> None:
    assert fedft("version").stdout.startswith("fedft 0.")


def test_an_error_is_one_line_on_stderr_of_a_real_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedft", "plan", str(tmp_path / "missing.toml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "missing.toml: expected a federation file, found none" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "training.learning_rat=1"), "learning_rate"),
        (("--set", "federation.rounds=0"), "federation.rounds"),
        (("--set", "model.base=nowhere/at-all"), "nowhere/at-all"),
        (("--set", "adapter.rank=4096"), "rank"),
        (("--set", "privacy.epsilon=1e-6", "--set", "privacy.delta=1e-12"), "epsilon"),
        (("--set", "privacy.delta=0.5"), "delta"),
        (("--set", "training.batch_size=4000"), "batch"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = fedft("plan", federation_file(tmp_path), *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("simulate",), ("simulate", "--resume", "x", "--set", "a=1"), ("predict", "x"),
        ("predict", "x", "text", "--data", "f"), ("unknown",), ("simulate", "f", "--engine", "other"), ("plan",),
        ("export", "x"), ("predict", "x", "text", "--max-new-tokens", "0"),
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    result = fedft(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def play(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("fedft.simulation.run.play", play)


def test_an_unforeseen_error_shows_its_type_and_nothing_of_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, ValueError(CANARY))
    result = fedft("simulate", federation_file(tmp_path), "--folder", tmp_path / "run")
    assert result.exit_code == 1
    assert "error: ValueError" in result.stderr
    assert CANARY not in result.output
    assert "Traceback" not in result.output


def test_the_traceback_is_there_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ValueError("wanted"))
    monkeypatch.setenv("FEDFT_TRACEBACK", "1")
    result = fedft("simulate", federation_file(tmp_path), "--folder", tmp_path / "run")
    assert isinstance(result.exception, ValueError)


def test_the_systems_own_errors_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, PermissionError(13, "Permission denied", "/somewhere"))
    result = fedft("simulate", federation_file(tmp_path), "--folder", tmp_path / "run")
    assert (result.exit_code, result.stderr) == (1, "error: Permission denied: /somewhere\n")


def test_an_interruption_before_the_run_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    result = fedft("simulate", federation_file(tmp_path), "--folder", tmp_path / "run")
    assert (result.exit_code, result.stderr) == (130, "interrupted; nothing was begun\n")


@pytest.mark.parametrize("command", [("evaluate",), ("predict", "."), ("audit report",), ("export", "--to", "x")])
def test_a_folder_that_is_no_run(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = fedft(*command[0].split(), tmp_path, *command[1:])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: expected a run")
    assert len(result.stderr.splitlines()) == 1


def test_doctor_is_a_table_or_json() -> None:
    result = fedft("doctor")
    assert result.exit_code in (0, 1)
    assert "processors" in result.stdout
    assert '"subject": "python"' in fedft("doctor", "--json").stdout


def test_doctor_prints_the_digest_that_a_policy_names(tmp_path: Path) -> None:
    digest = digest_of(tiny_bert(tmp_path))
    assert fedft("doctor", str(tmp_path)).stdout.strip() == digest
    assert json.loads(fedft("doctor", str(tmp_path), "--json").stdout) == {"model": str(tmp_path), "sha256": digest}
    refused = fedft("doctor", str(tmp_path / "none"))
    assert refused.exit_code != 0
    assert "expected a model's folder" in refused.stderr


def test_doctor_fails_when_something_required_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedft.doctor.requires", lambda name: ["surely-not-installed>=1"])
    monkeypatch.setattr(
        "fedft.doctor.version", lambda name: "1" if name == "fedft" else importlib.metadata.version(name)
    )
    result = fedft("doctor")
    assert result.exit_code == 1
    assert "surely-not-installed" in result.stdout
