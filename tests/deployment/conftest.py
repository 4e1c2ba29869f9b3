"""A folder for an agent's socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.fake_agent import home


@pytest.fixture
def folder() -> Iterator[Path]:
    with home() as path:
        yield path
