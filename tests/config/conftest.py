"""A small federation file on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.small import FILE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "federation.toml"
    path.write_text(FILE)
    return path
