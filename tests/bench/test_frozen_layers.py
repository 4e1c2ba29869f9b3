"""The memory that benchmarks put in front of frozen layers: the same training, up to the rounding of float32."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fedft.rounds.run_folder import RunFolder
from fedft.simulation.run import play
from tests.federation import federation

FILE = Path(__file__).resolve().parents[2] / "bench" / "_frozen_layers.py"
OFF = 'privacy.mode="off"'
UPPER = ('adapter.target_modules=["1.attention.self.query", "1.output.dense"]', "adapter.rank=2")
HEAD = ('adapter.method="head"',)


@pytest.fixture
def frozen_layers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_frozen_layers", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "_frozen_layers", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("adapter", [UPPER, HEAD], ids=["last layer", "head"])
def test_training_with_the_memory_ends_with_the_same_adapter(
    adapter: tuple[str, ...], frozen_layers: ModuleType, tmp_path: Path
) -> None:
    config = federation(tmp_path, OFF, 'task.head_start="label-names"', *adapter)
    play(config, folder=tmp_path / "plain")
    with frozen_layers.keep_frozen_states():
        play(config, folder=tmp_path / "memory")
    plain, memory = (_adapter(tmp_path / name) for name in ("plain", "memory"))
    assert len(frozen_layers._MEMORY) == 1
    assert np.abs(plain).max() > 0.01
    np.testing.assert_allclose(memory, plain, rtol=0, atol=1e-4)


def test_the_memory_works_under_privacy(frozen_layers: ModuleType, tmp_path: Path) -> None:
    with frozen_layers.keep_frozen_states():
        summary = play(federation(tmp_path, *UPPER), folder=tmp_path / "run")
    assert summary["rounds_done"] == 2
    assert all(found["rounds_answered"] == 2 for found in summary["institutions"].values())


def _adapter(folder: Path) -> np.ndarray:
    kept = RunFolder(folder).latest()
    assert kept is not None
    return np.asarray(kept[0]["adapter"])
