"""A run killed by SIGKILL at any moment goes on: the same bits without privacy, each event once with it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedft.aggregation.base import RunningSum
from fedft.config import FederationConfig
from fedft.ledger.store import Ledger
from fedft.rounds.progress import Observer
from fedft.simulation.planning import plan_of
from fedft.simulation.run import play
from fedft.simulation.setup import Setup
from fedft.update.envelope import open_envelope
from tests.dying import KILLED, processes
from tests.federation import NAMES, OFF, adapter_of, federation, records_of, rows_of
from tests.simulation.killed_run import POINTS, play_in_child

ROUNDS = 14
KILLS = 10
SAME = dict.fromkeys(NAMES, rows_of(0))
UNPROTECTED = (
    *OFF, "adapter.dropout=0.1", "training.scheduler=cosine", "aggregation.server_optimizer=momentum",
    "continual.method=ewc", "continual.strength=0.5", "continual.warm_start_steps=2",
)  # fmt: skip
"""All that a later round could depend on: seeds, schedule, the server's momentum, turned axes, a consolidation."""


class Whole:
    """The run that nobody killed, with its adapter after every round."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.config = federation(
            folder / "data", f"federation.rounds={ROUNDS}", "simulation.threads=1", *overrides, rows=SAME
        )
        self.adapters: dict[int, npt.NDArray[np.float32]] = {}
        run = folder / "run"

        class Keeping(Observer):
            def round_finished(inner, record: Mapping[str, Any]) -> None:  # noqa: N805
                self.adapters[record["round"]] = adapter_of(run, record["round"])

        self.noise = plan_of(self.config).institutions["north"].noise_multiplier
        self.summary = play(self.config, folder=run, observer=Keeping())
        self.records = timeless(run)


@pytest.fixture(scope="module")
def unprotected(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("unprotected"), *UNPROTECTED)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("private"), "aggregation.method=ffa_lora")


def timeless(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if not k.startswith("seconds")} for record in records_of(run)]


def finished_rounds(run: Path) -> int:
    return max((int(path.name[6:]) for path in (run / "checkpoints").glob("round-*")), default=0)


def intents(run: Path) -> Counter[tuple[str, int]]:
    """How often each institution was charged for each round."""
    found: Counter[tuple[str, int]] = Counter()
    for name in NAMES:
        path = run / "institutions" / name / "ledger.sqlite"
        if path.exists():
            with Ledger.open(path, read_only=True) as ledger:
                charged = [entry.fields["round"] for entry in ledger.entries() if entry.kind == "intent"]
            found.update((name, number) for number in charged)
    return found


class Bits:
    """What must hold after every death of a run without privacy: its state is one of the whole run's."""

    def __init__(self, whole: Whole, run: Path) -> None:
        self._whole, self._run = whole, run

    def after_death(self) -> None:
        if rounds := finished_rounds(self._run):
            assert np.array_equal(adapter_of(self._run, rounds), self._whole.adapters[rounds])

    def at_the_end(self) -> None:
        assert np.array_equal(adapter_of(self._run), self._whole.adapters[ROUNDS])
        assert timeless(self._run) == self._whole.records


class Events:
    """With privacy: every charge once, none lost, and the adapter is made of the bytes that the ledgers recorded."""

    def __init__(self, whole: Whole, run: Path) -> None:
        self._whole, self._run = whole, run
        self._charged: Counter[tuple[str, int]] = Counter()
        setup = Setup(whole.config)
        self._layout, self._roles = setup.model.layout, setup.aggregation.trains

    def after_death(self) -> None:
        charged = intents(self._run)
        assert set(charged.values()) <= {1}
        assert self._charged <= charged
        self._charged = charged
        if (rounds := finished_rounds(self._run)) > 1:
            self._made_of_what_was_recorded(rounds)

    def _made_of_what_was_recorded(self, rounds: int) -> None:
        trained = self._layout.only(self._roles)
        total = RunningSum(trained.size)
        for name in NAMES:
            with Ledger.open(self._run / "institutions" / name / "ledger.sqlite", read_only=True) as ledger:
                run = next(entry.fields["run"] for entry in ledger.entries() if entry.kind == "intent")
                stored = ledger.stored_release(run, rounds, "update")
            assert stored is not None
            total.add(open_envelope(stored, expected_size=trained.size).delta)
        before = adapter_of(self._run, rounds - 1)
        part = (self._layout.part(before, self._roles) + total.mean().astype(np.float64)).astype(np.float32)
        after = self._layout.with_part(before, self._roles, part)
        assert np.array_equal(adapter_of(self._run, rounds), after)

    def at_the_end(self) -> None:
        self.after_death()
        assert self._charged == {(name, number): 1 for name in NAMES for number in range(1, ROUNDS + 1)}
        records = records_of(self._run)
        assert [record["round"] for record in records] == list(range(1, ROUNDS + 1))
        assert [record["epsilon"] for record in records] == [record["epsilon"] for record in self._whole.records]


Check = Callable[[Whole, Path], Bits | Events]


@pytest.fixture(params=["unprotected", "private"])
def told(request: pytest.FixtureRequest) -> tuple[Whole, Check]:
    return request.getfixturevalue(request.param), Bits if request.param == "unprotected" else Events


def test_killed_at_every_step_it_goes_on(told: tuple[Whole, Check], tmp_path: Path) -> None:
    """One run, dying at each point in turn, always a little further on."""
    whole, check = told
    holds = check(whole, tmp_path / "run")
    for point in POINTS:
        code = play_in_child(whole.config, tmp_path / "run", noise=whole.noise, point=point)
        assert code == KILLED, f"{point} was never reached"
        holds.after_death()
    assert play_in_child(whole.config, tmp_path / "run", noise=whole.noise) == 0
    holds.at_the_end()
    assert (tmp_path / "run" / "summary.json").exists()


def a_session(config: FederationConfig, run: Path, noise: float | None) -> float:
    """Seconds that a whole run takes in a child of a fork server that is there."""
    ready = processes.Process(target=time.time)
    ready.start()
    ready.join()
    begun = time.monotonic()
    assert play_in_child(config, run, noise=noise) == 0
    return time.monotonic() - begun


def test_killed_at_random_moments_it_goes_on(told: tuple[Whole, Check], tmp_path: Path) -> None:
    """Each session lives for up to a third of the run; a run that ends before its death is checked and begun anew."""
    whole, check = told
    seconds = a_session(whole.config, tmp_path / "timed", whole.noise)
    rng = np.random.default_rng()
    kills = runs = 0
    holds, run = check(whole, tmp_path / "0" / "run"), tmp_path / "0" / "run"
    while kills < KILLS:
        code = play_in_child(whole.config, run, noise=whole.noise, after_s=float(rng.uniform(0, seconds / 3)))
        if code == 0:
            holds.at_the_end()
            runs += 1
            assert runs < KILLS, "runs end before their deaths"
            run = tmp_path / str(runs) / "run"
            holds = check(whole, run)
            continue
        assert code == KILLED
        kills += 1
        holds.after_death()
    assert play_in_child(whole.config, run, noise=whole.noise) == 0
    holds.at_the_end()


def test_a_run_that_died_before_it_was_one_can_be_begun(tmp_path: Path, unprotected: Whole) -> None:
    """Nothing but a temporary file is left of it."""
    run = tmp_path / "run"
    run.mkdir()
    (run / ".config.json.tmp").write_text('{"run": "ti')
    play(unprotected.config, folder=run)
    assert np.array_equal(adapter_of(run), unprotected.adapters[ROUNDS])
