"""The private Fisher between tasks: charged once, looked at once, whatever goes wrong in between."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import fedft.rounds.continual
import fedft.rounds.institution
from fedft.errors import StorageError
from fedft.ledger.store import Ledger
from fedft.model.vector import vector_digest
from fedft.privacy.events import DpSgdRound, GaussianRelease
from fedft.rounds.plan import RoundPlan, RoundRequest
from fedft.simulation.institutions import make_institution, public_fisher_of
from fedft.simulation.planning import institution_plan
from fedft.simulation.setup import Setup
from fedft.update.release import Refusal
from tests.federation import federation, rows_of

CONTINUAL = (
    "continual.method=ewc", "continual.strength=1.0", "continual.fisher=private-dp", "data.task_column=hospital",
    'continual.tasks=["north", "south"]', "continual.rounds_per_task=[1, 1]", "training.batch_size=4",
)  # fmt: skip


class Home:
    """One institution of a federation of two tasks, started anew for every answer, as after a crash."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.setup = Setup(federation(folder / "data", *CONTINUAL, **options))
        self.folder = folder

    def answer(self, number: int) -> bytes | Refusal:
        with Ledger.open(self.folder / "ledger.sqlite") as ledger:
            setup = self.setup
            plan = institution_plan(setup.config, setup.institution("north"))
            institution = make_institution(setup, plan, self.folder, "north", ledger, public_fisher_of(setup))
            return institution.answer(self.request(number))

    def request(self, number: int) -> RoundRequest:
        model = self.setup.model
        adapter = model.start_vector()
        plan = RoundPlan(
            run="run", round=number, rounds=2, task=("north", "south")[number - 1], task_index=number - 1,
            cohort=("north",), layout_digest=model.layout.digest, adapter_digest=vector_digest(adapter),
            roles=self.setup.aggregation.trains, local_steps=2, first_step=2 * (number - 1), total_steps=4,
        )  # fmt: skip
        return RoundRequest(plan, adapter)

    def spent(self) -> list[type]:
        with Ledger.open(self.folder / "ledger.sqlite", read_only=True) as ledger:
            return [type(event) for event in ledger.events("north")]

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


def test_an_institution_without_rows_of_the_task_that_ended_trains_the_next(tmp_path: Path) -> None:
    home = Home(tmp_path, rows={"north": [row for row in rows_of(0) if row["hospital"] == "south"]})
    assert getattr(home.answer(1), "reason", None) == "wrong-plan"
    assert isinstance(home.answer(2), bytes)
    assert home.spent() == [DpSgdRound]
