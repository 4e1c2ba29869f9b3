"""Short folders, and everything as one user unless a test says otherwise."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedft.deployment import rehearse


@pytest.fixture(scope="session", autouse=True)
def one_user() -> Iterator[None]:
    """The agents of these tests run as whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearse, "_may_choose_users", lambda: False)
        yield


@pytest.fixture
def short() -> Iterator[Path]:
    """A socket's path may have a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="fedft-") as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="module")
def short_for_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fedft-") as folder:
        yield Path(folder).resolve()
