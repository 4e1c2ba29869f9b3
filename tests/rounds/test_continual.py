"""The Fisher between tasks: the private one charged once and looked at once, whatever goes wrong in between; the public
one computed once for all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedft.rounds.continual
import fedft.rounds.institution
from fedft.assembly.planning import institution_plan
from fedft.errors import PrivacyBudgetExhausted, StorageError
from fedft.ledger.store import Ledger
from fedft.model.vector import vector_digest
from fedft.privacy.events import DpSgdRound, GaussianRelease, PrivacyEvent
from fedft.rounds.continual import OnlineEwc, shared_public_fisher
from fedft.rounds.plan import RoundPlan, RoundRequest
from fedft.simulation.institutions import make_institution, public_fisher_of
from fedft.simulation.setup import Setup
from fedft.training.ewc import Consolidation, load_consolidation
from fedft.training.fisher import Fisher
from fedft.types import AdapterVector
from fedft.update.release import Refusal
from tests.federation import OFF, federation, rows_of

CONTINUAL = (
    "continual.method=ewc", "continual.strength=1.0", "continual.fisher=private-dp", "data.task_column=hospital",
    'continual.tasks=["north", "south"]', "continual.rounds_per_task=[1, 8]", "training.batch_size=4",
    "federation.rounds=9",
)  # fmt: skip


class Home:
    """One institution of a federation of two tasks, started anew for every answer, as after a crash."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.setup = Setup(federation(folder / "data", *CONTINUAL, **options))
        self.folder = folder

    def answer(self, number: int, adapter: AdapterVector | None = None) -> bytes | Refusal:
        with Ledger.open(self.folder / "ledger.sqlite") as ledger:
            setup = self.setup
            plan = institution_plan(setup.config, setup.institution("north"))
            institution = make_institution(setup, plan, self.folder, "north", ledger, public_fisher_of(setup))
            return institution.answer(self.request(number, adapter))

    def request(self, number: int, adapter: AdapterVector | None = None) -> RoundRequest:
        model = self.setup.model
        adapter = model.start_vector() if adapter is None else adapter
        plan = RoundPlan(
            run="run", round=number, rounds=9, task=("north", "south")[min(number, 2) - 1],
            task_index=min(number, 2) - 1, cohort=("north",), layout_digest=model.layout.digest,
            adapter_digest=vector_digest(adapter), roles=self.setup.aggregation.trains, local_steps=2,
            first_step=2 * (number - 1), total_steps=18,
        )  # fmt: skip
        return RoundRequest(plan, adapter)

    def spent(self) -> list[type]:
        with Ledger.open(self.folder / "ledger.sqlite", read_only=True) as ledger:
            return [type(event) for event in ledger.events("north")]

    def released(self) -> list[str]:
        with Ledger.open(self.folder / "ledger.sqlite", read_only=True) as ledger:
            return [entry.fields["purpose"] for entry in ledger.entries() if entry.kind == "release"]

    @property
    def consolidation(self) -> Path:
        return self.folder / "institutions" / "north" / "consolidation-1"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def failing(*_: object, **__: object) -> None:
    raise StorageError("no space left")


def test_a_task_that_begins_costs_one_gaussian_release_and_an_answer_again_costs_nothing(home: Home) -> None:
    assert isinstance(home.answer(1), bytes)
    assert home.spent() == [DpSgdRound]
    first = home.answer(2)
    assert isinstance(first, bytes)
    assert home.spent() == [DpSgdRound, GaussianRelease, DpSgdRound]
    assert home.answer(2) == first
    assert home.spent() == [DpSgdRound, GaussianRelease, DpSgdRound]


def test_a_consolidation_that_was_never_saved_is_made_again_under_its_charge(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fedft.rounds.continual, "save_consolidation", failing)
        assert getattr(home.answer(2), "reason", None) == "storage"
    assert isinstance(home.answer(2), bytes)
    assert sorted(kind.__name__ for kind in home.spent()) == ["DpSgdRound", "GaussianRelease"]


def test_a_saved_consolidation_serves_after_a_crash_without_another_look(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fedft.rounds.institution, "train_locally", failing)
        assert getattr(home.answer(2), "reason", None) == "storage"
    monkeypatch.setattr(fedft.rounds.continual, "private_fisher", failing)
    assert isinstance(home.answer(2), bytes)


def test_a_lost_consolidation_is_never_made_again_for_free(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have shaped an update already: two different ones would be two releases for one charge."""
    with monkeypatch.context() as patch:
        patch.setattr(fedft.rounds.institution, "train_locally", failing)
        home.answer(2)
    before = home.spent()
    shutil.rmtree(home.consolidation)
    assert getattr(home.answer(2), "reason", None) == "ledger"
    assert home.spent() == before


def test_a_consolidation_saved_and_not_noted_is_noted_before_it_is_used_and_then_never_made_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash is between saving and noting, another in the training that used it; then the folder is lost."""
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record_release", failing)
        assert getattr(home.answer(2), "reason", None) == "storage"
    assert home.consolidation.is_dir()
    assert home.released() == []
    seen: list[list[str]] = []

    def crashing(*_: object, **__: object) -> None:
        seen.append(home.released())
        failing()

    with monkeypatch.context() as patch:
        patch.setattr(fedft.rounds.institution, "train_locally", crashing)
        assert getattr(home.answer(2), "reason", None) == "storage"
    assert seen == [["fisher-0"]]
    before = home.spent()
    shutil.rmtree(home.consolidation)
    assert getattr(home.answer(2), "reason", None) == "ledger"
    assert home.spent() == before


def test_a_noted_consolidation_is_used_in_later_rounds_whose_bytes_of_the_note_are_gone(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(home.answer(2), bytes)
    monkeypatch.setattr(fedft.rounds.continual, "private_fisher", failing)
    for number in range(3, 7):
        assert isinstance(home.answer(number), bytes)
    assert home.released() == ["fisher-0", *["update"] * 5]


def test_an_institution_without_rows_of_the_task_that_ended_trains_the_next(tmp_path: Path) -> None:
    home = Home(tmp_path, rows={"north": [row for row in rows_of(0) if row["hospital"] == "south"]})
    assert getattr(home.answer(1), "reason", None) == "wrong-plan"
    assert isinstance(home.answer(2), bytes)
    assert home.spent() == [DpSgdRound]


def test_a_fisher_that_cannot_be_paid_charges_no_update_that_would_wait_for_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every round of the task would be charged and none answered."""

    def no_room_for_fisher(past: Sequence[PrivacyEvent], event: PrivacyEvent, **_: Any) -> float:
        if isinstance(event, GaussianRelease):
            raise PrivacyBudgetExhausted("expected room")
        return 0.0

    monkeypatch.setattr(fedft.rounds.institution, "require_budget_for", no_room_for_fisher)
    assert isinstance(home.answer(1), bytes)
    assert getattr(home.answer(2), "reason", None) == "budget-exhausted"
    assert home.spent() == [DpSgdRound]


def test_the_anchor_is_the_adapter_that_the_task_began_with_also_after_a_restart(home: Home) -> None:
    began = home.setup.model.start_vector() + np.float32(0.01)
    home.answer(2, began)
    kept = load_consolidation(home.consolidation)
    assert np.array_equal(kept.anchor, began)
    assert set(kept.fisher) == {module for module, _, _ in home.setup.model.layout.lora_pairs()} | {
        "head.weight", "head.bias",
    }  # fmt: skip
    assert all(value.shape == () and value >= 0 for value in kept.fisher.values())


PUBLIC = (
    *OFF, "continual.method=ewc", "continual.strength=1.0", "continual.decay=0.5", "data.task_column=hospital",
    'continual.tasks=["north", "south"]', "continual.rounds_per_task=[1, 1]", "training.batch_size=4",
)  # fmt: skip


class Counting:
    """A public Fisher of ones times the task's index plus one, and who asked for it."""

    def __init__(self, setup: Setup, *, nothing_before: int = 0) -> None:
        self._layout, self._nothing_before = setup.model.layout, nothing_before
        self.asked: list[int] = []

    def __call__(self, adapter: AdapterVector, task_index: int) -> Fisher | None:
        self.asked.append(task_index)
        if task_index < self._nothing_before:
            return None
        sizes: dict[str, tuple[int, ...]] = {
            module: (b.shape[0], a.shape[1]) for module, a, b in self._layout.lora_pairs()
        }
        sizes |= {t.name: t.shape for t in self._layout.tensors if t.role == "head"}
        return {name: np.full(shape, task_index + 1, np.float32) for name, shape in sizes.items()}


def ewc(folder: Path, source: Any) -> OnlineEwc:
    return OnlineEwc(folder, strength=1.0, decay=0.5, tasks=("north", "south"), source=source)


def asked_of(setup: Setup, index: int, adapter: AdapterVector) -> RoundRequest:
    plan = RoundPlan(
        run="run", round=index + 1, rounds=3, task=("north", "south")[index], task_index=index, cohort=("north",),
        layout_digest=setup.model.layout.digest, adapter_digest=vector_digest(adapter), roles=setup.aggregation.trains,
        local_steps=2, first_step=0, total_steps=6,
    )  # fmt: skip
    return RoundRequest(plan, adapter)


def test_online_ewc_adds_up_over_tasks_and_is_saved_once_for_each(tmp_path: Path) -> None:
    setup = Setup(federation(tmp_path / "data", *PUBLIC))
    counting, start = Counting(setup), setup.model.start_vector()
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        plan = institution_plan(setup.config, setup.institution("north"))
        north = make_institution(setup, plan, tmp_path, "north", ledger, counting)
        first, second = asked_of(setup, 0, start), asked_of(setup, 1, start + np.float32(1))
        kept: list[Consolidation] = []
        for folder in ("one", "one", "two"):
            consolidator = ewc(tmp_path / folder, counting)
            assert consolidator.penalty(north, first) is consolidator.penalty(north, first)
            consolidator.penalty(north, second)
            kept.append(load_consolidation(tmp_path / folder / "consolidation-1"))
        assert ledger.events("north") == ()
    assert counting.asked == [0, 1, 0, 1], "a restart in the same folder asks for nothing"
    for found in kept:
        assert np.array_equal(found.anchor, start + np.float32(1))
        assert all(np.array_equal(value, np.full(value.shape, 0.5 * 1 + 2)) for value in found.fisher.values())


def test_without_anything_to_keep_there_is_no_penalty(tmp_path: Path) -> None:
    setup = Setup(federation(tmp_path / "data", *PUBLIC))
    start = setup.model.start_vector()
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        plan = institution_plan(setup.config, setup.institution("north"))
        north = make_institution(setup, plan, tmp_path, "north", ledger, Counting(setup))
        consolidator = ewc(tmp_path / "none", Counting(setup, nothing_before=1))
        assert consolidator.penalty(north, asked_of(setup, 0, start)) is None
        assert not (tmp_path / "none" / "consolidation-0").exists()
        assert consolidator.penalty(north, asked_of(setup, 1, start)) is not None
        later = ewc(tmp_path / "later", Counting(setup))
        assert later.penalty(north, asked_of(setup, 0, start)) is not None
        gone = ewc(tmp_path / "later", Counting(setup, nothing_before=2))
        assert gone.penalty(north, asked_of(setup, 1, start)) is not None, "what was kept before still counts"


def test_the_public_fisher_is_computed_once_for_an_adapter_and_task(tmp_path: Path) -> None:
    setup = Setup(federation(tmp_path / "data", *PUBLIC))
    counting = Counting(setup)
    shared, start = shared_public_fisher(counting), setup.model.start_vector()
    first = shared(start, 1)
    assert shared(start.copy(), 1) is first
    shared(start, 0)
    shared(start + np.float32(1), 1)
    assert counting.asked == [1, 0, 1]


def test_the_public_fisher_is_of_what_came_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the task before, on its own reference rows; before the first task of rows of no task, if there are any."""
    setup = Setup(federation(tmp_path / "data", *PUBLIC))
    seen: list[tuple[Any, bytes]] = []

    def noted(model: Any, rows: Any, **_: Any) -> Fisher:
        seen.append((rows, model.read_vector().tobytes()))
        return {}

    monkeypatch.setattr("fedft.assembly.institution.public_fisher", noted)
    adapter = setup.model.start_vector() + np.float32(0.5)
    fisher = public_fisher_of(setup)
    assert fisher(adapter, 0) is None
    assert fisher(adapter, 1) == {}
    assert seen == [(setup.reference["north"], adapter.tobytes())]
