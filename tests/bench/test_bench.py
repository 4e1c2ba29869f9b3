"""Every benchmark's short form runs, prints one JSON object as its last line, and writes the same one when asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def result_of(script: str, *options: str, write: Path) -> dict[str, Any]:
    """What ``bench/SCRIPT --quick`` prints last, which must be what it writes."""
    command = [sys.executable, str(ROOT / "bench" / script), "--quick", *options, "--write", str(write)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=False, env=environment, cwd=write.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result == json.loads(write.read_text())
    assert result["name"] == script.removesuffix(".py")
    assert result["command"].startswith(f"python bench/{script} --quick")
    assert str(ROOT) not in json.dumps(result)
    assert "torch" in result["versions"]
    return result


def test_aggregation_is_flat_in_memory_and_linear_in_time(tmp_path: Path) -> None:
    result = result_of("scale.py", write=tmp_path / "scale.json")
    assert [of["institutions"] for of in result["rounds"]] == [4, 16, 64]
    assert result["ratio"] < 1.1
    assert max(of["memory_of_round_mib"] for of in result["rounds"]) < 8 * result["update_mib"]
    assert result["time_linearity"] < 5, "an update among 64 may not cost several times one among 4"


def test_a_private_step_is_compared_with_a_plain_one(tmp_path: Path) -> None:
    result = result_of("dp_step.py", "--shape", "small", write=tmp_path / "dp_step.json")
    assert 0.5 < result["ratio"] < 2.5
    assert result["trained_values"] == 3 * 2 * 8 * 128 + 77 * 129
    assert set(result["peak_mib"]) == {"plain", "dp"}


def test_recomputing_a_made_run_confirms_it(tmp_path: Path) -> None:
    result = result_of("recompute.py", write=tmp_path / "recompute.json")
    assert (result["institutions"], result["rounds"], result["exit_code"]) == (4, 50, 0)
    assert result["accounts"] == result["prv"] == 4
    assert 0 < result["recompute_cpu_s"] < 60
    assert 0 < result["peak_mib"] < 1024


def test_the_local_engine_says_what_it_spends_outside_training(tmp_path: Path) -> None:
    result = result_of("engine.py", "--without-ray", write=tmp_path / "engine.json")
    local = result["dp-sgd, tiny"]["local"]
    assert result["ratio"] is None
    assert 0 < result["outside_training"] < 1
    assert 0 < local["seconds_of_training"] < local["seconds_of_rounds"] < local["seconds_of_play"]
    assert local["seconds_of_play"] < local["seconds_of_process"]


def test_a_killed_coordinators_run_ends_with_the_undisturbed_bits(tmp_path: Path) -> None:
    result = result_of("faults.py", write=tmp_path / "faults.json")
    assert (result["kills"], result["identical"], result["charged_once"]) == (3, True, True)
    assert sum(result["died_after"].values()) == 3


def test_an_attack_sets_claims_beside_a_control(tmp_path: Path) -> None:
    result = result_of("attack.py", write=tmp_path / "attack.json")
    found = result["sets"]["instructions"]
    assert result["within"]
    assert set(found["claims"]) == {"8", "1"}
    assert found["claims"]["1"]["epsilon_claimed"] <= 1.0 < found["claims"]["8"]["epsilon_claimed"] <= 8.0
    assert found["control"]["epsilon_claimed"] is None
