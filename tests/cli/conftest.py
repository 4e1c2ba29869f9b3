"""One finished run for the commands that only read one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import federation_file, fedft


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a private run of two rounds; read it only."""
    folder = tmp_path_factory.mktemp("finished")
    result = fedft("simulate", federation_file(folder), "--folder", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"
