"""Two runs to verify: one that is kept for ever, and one whose keys are at hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit.verified import KEPT_FOR_EVER
from tests.made_run import MadeRun


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run of version 1, to be changed and put back."""
    return Path(shutil.copytree(KEPT_FOR_EVER, tmp_path_factory.mktemp("whole") / "run"))


@pytest.fixture
def made(tmp_path: Path) -> Iterator[MadeRun]:
    """Three rounds of two institutions, whose keys are at hand; not ended."""
    run = MadeRun(tmp_path / "run", 2, rounds=3)
    run.play(3)
    yield run
    run.close()
