"""One institution over a fresh ledger, and trainings that are counted and can fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import fedft.rounds.institution
from fedft.ledger.store import Ledger
from fedft.rounds.institution import Institution
from fedft.simulation.setup import Setup
from tests.federation import federation, institution_at
from tests.rounds.trainings import Trainings


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(federation(tmp_path_factory.mktemp("data")))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened


@pytest.fixture
def north(setup: Setup, ledger: Ledger) -> Institution:
    return institution_at(setup, ledger)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    made = Trainings()
    monkeypatch.setattr(fedft.rounds.institution, "train_locally", made)
    return made
