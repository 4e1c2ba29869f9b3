"""Real data sets and models that lie beside the repository on some machines; a test that needs one skips without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared_data(*parts: str) -> Path:
    """The path below FEDFT_SHARED_DATA, or ../shared/data from the repository's root; skips the test when absent."""
    folder = Path(os.environ.get("FEDFT_SHARED_DATA") or ROOT.parent / "shared" / "data")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not there: set FEDFT_SHARED_DATA to the folder that holds it")
    return path
