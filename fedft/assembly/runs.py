"""A run folder's configuration, and the run's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from fedft import __version__
from fedft.config import FederationConfig, parse_config
from fedft.rounds.run_folder import RunFolder

_OF_THE_RUN = ("fedft_version", "run")


def as_written(config: FederationConfig, *, run: str | None) -> dict[str, Any]:
    """What config.json holds."""
    return {"fedft_version": __version__, "run": run, **config.model_dump(mode="json")}


def resume_config(folder: Path) -> FederationConfig:
    """The configuration that a run folder was started with, variants included. Raises ConfigError and StorageError."""
    body = RunFolder(folder).config()
    return parse_config({key: value for key, value in body.items() if key not in _OF_THE_RUN}, folder=folder)


def run_name(config: FederationConfig, folder: Path, *, resume: bool) -> str:
    """Names the run in every ledger: never used twice, and the same when resumed."""
    if resume:
        return str(RunFolder(folder).config()["run"])
    return f"{config.federation.name}/{uuid4().hex[:16]}"
