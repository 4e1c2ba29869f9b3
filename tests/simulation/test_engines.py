"""Two homes for simulated institutions, one run: the same bits, the same charges, the same refusals."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedft.assembly.planning
import fedft.flower.ray_engine
import fedft.simulation.engines
from fedft.config import Faults
from fedft.errors import ConfigError, LedgerLocked, QuorumNotReached
from fedft.flower.local_grid import LocalGrid
from fedft.ledger.store import Ledger
from fedft.rounds.institution import Institution
from fedft.simulation.engines import LocalEngine
from fedft.simulation.faults import Dropped, FaultyInstitution
from fedft.simulation.institutions import dataset_of, ledger_path
from fedft.simulation.planning import plan_from
from fedft.simulation.run import play
from fedft.simulation.run_keys import make_keys
from fedft.simulation.setup import Setup
from fedft.update.envelope import open_envelope
from fedft.update.release import Refusal
from tests.federation import NAMES, OFF, adapter_of, federation, institution_at, records_of, request_of, rows_of

HAS_RAY = importlib.util.find_spec("ray") is not None
TWO = (
    *OFF, 'institutions=[{name="north", data="north.jsonl"}, {name="south", data="south.jsonl"}]',
    "simulation.threads=1", "training.scheduler=cosine", "adapter.dropout=0.1",
)  # fmt: skip


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install fedft[ray]")
def test_flowers_runtime_ends_with_the_bits_of_the_local_engine(tmp_path: Path) -> None:
    """A node that does not answer in round 2 included: it is missing in both."""
    config = federation(tmp_path / "data", *TWO, "institutions.south.faults.drop_rounds=[2]")
    summaries = [play(config, folder=tmp_path / engine, engine=engine) for engine in ("local", "flower")]
    local, flower = (records_of(tmp_path / engine) for engine in ("local", "flower"))
    assert [record["updates"] for record in local] == [["north", "south"], ["north"]]
    for key in ("updates", "refused", "missing", "bytes_up", "bytes_down", "evaluation", "update_norm"):
        assert [record[key] for record in local] == [record[key] for record in flower], key
    for number in (1, 2):
        assert np.array_equal(adapter_of(tmp_path / "local", number), adapter_of(tmp_path / "flower", number))
    assert summaries[0]["final"] == summaries[1]["final"]
    for name in ("north", "south"):
        path = Path("institutions") / name / "ledger.sqlite"
        with Ledger.open(tmp_path / "local" / path) as one, Ledger.open(tmp_path / "flower" / path) as two:
            assert one.events(name) == two.events(name) != ()


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install fedft[ray]")
def test_flowers_runtime_masks_like_the_local_engine(tmp_path: Path) -> None:
    """Each message to an actor of its own: keys, masked update and shares come from what the institution stored."""
    config = federation(tmp_path / "data", *OFF, "secure_aggregation.enabled=true")
    for engine in ("local", "flower"):
        play(config, folder=tmp_path / engine, engine=engine)
    for record in records_of(tmp_path / "flower"):
        assert record["secure_aggregation"]["uploaded"] == sorted(NAMES)
        assert record["secure_aggregation"]["silent"] == []
    assert adapter_of(tmp_path / "local").tobytes() == adapter_of(tmp_path / "flower").tobytes()


def test_without_ray_it_says_what_to_install_before_a_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install \"fedft\[ray\]\""):
        fedft.flower.ray_engine.play_on_ray(lambda grid: None, None, 1, gpus=False)  # type: ignore[arg-type]
    monkeypatch.undo()
    config = federation(tmp_path / "data", *OFF)

    def no_ray() -> None:
        raise ConfigError("expected Ray")

    monkeypatch.setattr(fedft.simulation.engines, "require_ray", no_ray)
    with pytest.raises(ConfigError, match="expected Ray"):
        play(config, folder=tmp_path / "run", engine="flower")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's engine without Ray: actors in this process, everything else as it is."""

    def play_here(run: Callable[[Any], object], app: Any, nodes: int, *, gpus: bool) -> None:
        run(LocalGrid(app, nodes))

    monkeypatch.setattr(fedft.simulation.engines, "play_on_ray", play_here)
    monkeypatch.setattr(fedft.simulation.engines, "require_ray", lambda: None)


@pytest.mark.usefixtures("in_process")
def test_actors_charge_and_refuse_like_institutions_at_home(tmp_path: Path) -> None:
    rows = dict.fromkeys(NAMES, rows_of(0))
    config = federation(tmp_path / "data", "institutions.south.epsilon=0.2", rows=rows)
    one = play(config, folder=tmp_path / "local")
    two = play(config, folder=tmp_path / "flower", engine="flower")
    local, flower = records_of(tmp_path / "local"), records_of(tmp_path / "flower")
    for key in ("updates", "refused", "missing", "bytes_up", "bytes_down", "cap"):
        assert [record[key] for record in local] == [record[key] for record in flower], key
    assert [record["epsilon"] for record in local] == [record["epsilon"] for record in flower]
    assert one["institutions"]["north"] == two["institutions"]["north"]
    assert two["seconds_outside_training_fraction"] is None


@pytest.mark.usefixtures("in_process")
def test_actors_are_told_their_plan_and_calibrate_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated: list[float] = []

    def counted(**budget: Any) -> float:
        calibrated.append(budget["sampling_rate"])
        return 1.0

    monkeypatch.setattr(fedft.assembly.planning, "calibrate", counted)
    play(federation(tmp_path / "data"), folder=tmp_path / "run", engine="flower")
    assert [record["updates"] for record in records_of(tmp_path / "run")] == [list(NAMES)] * 2
    assert len(calibrated) == len(NAMES)


@pytest.mark.usefixtures("in_process")
def test_actors_look_back_once_and_remember(tmp_path: Path) -> None:
    tasks = (
        "data.task_column=hospital", 'continual.tasks=["north", "south"]', "continual.rounds_per_task=[1, 2]",
        "federation.rounds=3", "training.batch_size=4", "continual.method=ewc", "continual.strength=1.0",
    )  # fmt: skip
    config = federation(tmp_path / "data", *OFF, *tasks)
    for engine in ("local", "flower"):
        play(config, folder=tmp_path / engine, engine=engine)
    assert np.array_equal(adapter_of(tmp_path / "local"), adapter_of(tmp_path / "flower"))
    kept = [sorted((tmp_path / engine / "institutions").glob("*/consolidation-*")) for engine in ("local", "flower")]
    assert [len(found) for found in kept] == [3, 3]


@pytest.mark.usefixtures("in_process")
def test_an_actor_that_cannot_load_is_a_refusal_and_the_others_go_on(tmp_path: Path) -> None:
    config = federation(tmp_path / "data", *OFF)

    class Moved(Setup):
        """The rows of south are gone when an actor looks for them."""

        def institution(self, name: str) -> Any:
            if name == "south":
                raise OSError(2, "no such file: zq7canary")
            return super().institution(name)

    fedft.simulation.engines._actor_setup.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fedft.simulation.engines, "Setup", Moved)
        play(config, folder=tmp_path / "run", engine="flower")
    fedft.simulation.engines._actor_setup.cache_clear()
    assert [record["refused"] for record in records_of(tmp_path / "run")] == [{"south": "storage"}] * 2
    assert "zq7canary" not in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("engine", ["local", "flower"])
@pytest.mark.usefixtures("in_process")
def test_what_the_coordinator_raises_comes_out(engine: str, tmp_path: Path) -> None:
    config = federation(tmp_path / "data", *OFF, "federation.rounds=9", "aggregation.max_update_norm=1e-9")
    with pytest.raises(QuorumNotReached):
        play(config, folder=tmp_path / "run", engine=engine)


def test_ledgers_are_closed_when_a_home_is_left_or_cannot_be_entered(tmp_path: Path) -> None:
    setup = Setup(federation(tmp_path / "data", *OFF))
    plan, run = plan_from(setup), tmp_path / "run"
    make_keys(run, NAMES)
    with (
        LocalEngine(setup, plan, run),
        pytest.raises(LedgerLocked),
        Ledger.open(ledger_path(setup.config, run, "west")),
    ):
        pass
    with Ledger.open(ledger_path(setup.config, run, "south")), pytest.raises(LedgerLocked):
        LocalEngine(setup, plan, run).__enter__()
    for name in NAMES:
        with Ledger.open(ledger_path(setup.config, run, name)):
            pass


def test_a_ledger_is_the_institutions_in_a_run_and_the_data_sets_across_runs(tmp_path: Path) -> None:
    config = federation(tmp_path, "institutions.south.dataset=triage")
    assert (dataset_of(config, "north"), dataset_of(config, "south")) == ("north", "triage")
    assert (
        ledger_path(config, tmp_path / "run", "south") == tmp_path / "run" / "institutions" / "south" / "ledger.sqlite"
    )
    shared = federation(tmp_path, "institutions.south.dataset=triage", f"simulation.ledger_dir={tmp_path / 'kept'}")
    assert ledger_path(shared, tmp_path / "run", "south") == tmp_path / "kept" / "triage.sqlite"
    assert ledger_path(shared, tmp_path / "run", "north") == tmp_path / "kept" / "north.sqlite"


def faulty(setup: Setup, ledger: Ledger, **faults: Any) -> FaultyInstitution:
    institution: Institution = institution_at(setup, ledger, guarantee=None)
    return FaultyInstitution(institution, Faults(**faults), seed=3)


def test_a_drop_is_before_any_charge_and_by_chance_the_same_every_time(tmp_path: Path) -> None:
    setup = Setup(federation(tmp_path / "data"))
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(Dropped):
            faulty(setup, ledger, drop_rounds=(1,)).answer(request_of(setup, 1))
        assert ledger.events("north") == ()
        assert isinstance(faulty(setup, ledger, drop_rounds=(1,)).answer(request_of(setup, 2)), bytes)

        def dropped(probability: float) -> list[int]:
            found = []
            for number in range(3, 9):
                try:
                    faulty(setup, ledger, drop_probability=probability).answer(request_of(setup, number))
                except Dropped:
                    found.append(number)
            return found

        some = dropped(0.5)
        assert 0 < len(some) < 6
        assert dropped(0.5) == some
        assert (dropped(0.0), dropped(1.0)) == ([], list(range(3, 9)))


def test_a_corrupt_round_sends_nan_and_a_refusal_stays_a_refusal(tmp_path: Path) -> None:
    setup = Setup(federation(tmp_path / "data"))
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        corrupt = faulty(setup, ledger, corrupt_rounds=(1, 2))
        request = request_of(setup, 1)
        answer = corrupt.answer(request)
        assert isinstance(answer, bytes)
        size = setup.model.layout.only(request.plan.roles).size
        assert np.isnan(open_envelope(answer, expected_size=size).delta).all()
        stored = ledger.stored_release("run", 1, "update")
        assert stored is not None
        assert np.isfinite(open_envelope(stored, expected_size=size).delta).all()
        assert isinstance(corrupt.answer(request_of(setup, 2, task="surgery")), Refusal)


def test_in_8_bits_a_run_sends_a_quarter_and_learns_as_well(tmp_path: Path) -> None:
    """Also resumed bit for bit: what was sent is a function of the state."""
    runs = {}
    for encoding in ("float32", "mxint8"):
        config = federation(tmp_path / "data", *OFF, f"aggregation.encoding={encoding}", "federation.rounds=4")
        runs[encoding] = play(config, folder=tmp_path / encoding)
    assert runs["mxint8"]["bytes_up"] < 0.6 * runs["float32"]["bytes_up"]
    assert runs["mxint8"]["bytes_down"] < 0.4 * runs["float32"]["bytes_down"]
    assert runs["mxint8"]["final"]["loss"] == pytest.approx(runs["float32"]["final"]["loss"], abs=0.02)
    again = play(
        federation(tmp_path / "data", *OFF, "aggregation.encoding=mxint8", "federation.rounds=4"),
        folder=tmp_path / "again",
    )
    assert np.array_equal(adapter_of(tmp_path / "again"), adapter_of(tmp_path / "mxint8"))
    assert again["final"] == runs["mxint8"]["final"]
