"""A run folder's configuration, and the run's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from fedft import __version__
from fedft.config import FederationConfig, parse_config
from fedft.records.lineage import PARENT, Parent
from fedft.rounds.run_folder import RunFolder

_OF_THE_RUN = ("fedft_version", "run", PARENT)


def as_written(config: FederationConfig, *, run: str | None, parent: Parent | None = None) -> dict[str, Any]:
    """What config.json holds."""
    lineage = {} if parent is None else {PARENT: parent.as_json()}
    return {"fedft_version": __version__, "run": run, **lineage, **config.model_dump(mode="json")}


def resume_config(folder: Path, overrides: Sequence[str] = ()) -> FederationConfig:
    """The configuration that a run folder was started with, variants included. Raises ConfigError and StorageError.

    overrides: as of --set, where another run takes it over.
    """
    body = {key: value for key, value in RunFolder(folder).config().items() if key not in _OF_THE_RUN}
    return parse_config(body, folder=folder, overrides=overrides)


def run_name(config: FederationConfig, folder: Path, *, resume: bool) -> str:
    """Names the run in every ledger: never used twice, and the same when resumed."""
    if resume:
        return str(RunFolder(folder).config()["run"])
    return f"{config.federation.name}/{uuid4().hex[:16]}"
