"""A run's adapter back on its base model: the same adapter, or a clear error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedft.assembly.saved_run import open_run
from fedft.errors import ConfigError, LayoutMismatch, ModelError, StorageError
from fedft.model.checkpoint import read_checkpoint
from fedft.simulation.run import play
from tests.federation import federation
from tests.tiny import tiny_bert, tiny_llama, write_jsonl


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    play(federation(folder, "federation.rounds=1", "privacy.mode=off"), folder=folder / "run")
    return folder


@pytest.fixture
def copied(played: Path, tmp_path: Path) -> Path:
    """A copy to damage, of the run alone."""
    return Path(shutil.copytree(played / "run", tmp_path / "run"))


def test_the_model_holds_the_best_adapter(played: Path) -> None:
    run = open_run(played / "run")
    stored = read_checkpoint(played / "run" / "checkpoints" / "best")[0]["adapter"]
    assert np.array_equal(run.model.read_vector(), stored)
    assert np.abs(stored - run.model.start_vector()).max() > 0
    assert (run.labels, run.round) == (("a", "b", "c"), 1)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a run's folder"):
        open_run(tmp_path)


def test_a_run_without_a_finished_round(copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(StorageError, match="found none yet: go on with fedft simulate --resume"):
        open_run(copied)


def test_another_base_is_refused(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tiny_bert(tmp_path / "other", seed=5)
    body = json.loads((copied / "config.json").read_text())
    body["model"]["base"] = str(other)
    (copied / "config.json").write_text(json.dumps(body))
    with pytest.raises(ModelError, match="expected the base model with digest [0-9a-f]{12}"):
        open_run(copied)


def test_another_layout_is_refused(copied: Path) -> None:
    body = json.loads((copied / "config.json").read_text())
    body["adapter"]["alpha"] = 32.0
    (copied / "config.json").write_text(json.dumps(body))
    with pytest.raises(LayoutMismatch, match="scale 16.* found .* scale 2:"):
        open_run(copied)


def test_a_damaged_checkpoint_is_refused(copied: Path) -> None:
    (tensors,) = (copied / "checkpoints" / "best").glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(StorageError):
        open_run(copied)


def test_an_instruction_run_generates(tmp_path: Path) -> None:
    (tmp_path / "llama").mkdir()
    base = tiny_llama(tmp_path / "llama")
    rows = [{"instruction": f"w{n} w{n + 1}", "output": f"w{n + 2}"} for n in range(20)]
    for name in ("north", "public"):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    from fedft.config import parse_config

    body = {
        "federation": {"name": "generating", "rounds": 1},
        "model": {"base": str(base)},
        "task": {"kind": "instruction", "max_length": 48},
        "data": {"evaluation": "public.jsonl"},
        "training": {"local_steps": 1, "batch_size": 4, "learning_rate": 0.01},
        "privacy": {"mode": "off"},
        "institutions": [{"name": "north", "data": "north.jsonl"}],
    }
    play(parse_config(body, folder=tmp_path), folder=tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.labels is None
    assert run.evaluate()["perplexity"] > 1
    (one,) = run.answer(["w1 w2"], max_new_tokens=3)
    assert one.probability is None
    questions = write_jsonl(tmp_path / "questions.jsonl", [{"instruction": "w1 w2"}, {"instruction": "w3"}])
    assert run.answer_file(str(questions), max_new_tokens=3)[0] == one
