"""Play a federation on one machine: the coordinator and every institution, over the messages of a real network.

With engine "local" all of them share this process and one base model, adapters swapped; with "flower" the institutions
live in the actors of Flower's simulation runtime. Rounds are the same in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fedft.assembly.coordinator import make_coordinator
from fedft.assembly.outcome import check_outcome, summarize
from fedft.assembly.runs import as_written, run_name
from fedft.config import FederationConfig, variant_config
from fedft.errors import ConfigError
from fedft.model.export import export_adapter
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.simulation.engines import Engine, FlowerEngine, LocalEngine
from fedft.simulation.planning import FederationPlan, plan_from
from fedft.simulation.run_keys import make_keys, signer_of
from fedft.simulation.setup import Setup


def play(
    config: FederationConfig,
    *,
    folder: Path,
    engine: str = "local",
    resume: bool = False,
    observer: Observer | None = None,
    make_setup: Callable[[FederationConfig], Setup] = Setup,
) -> dict[str, Any]:
    """Play a scenario, or every variant of it, and return what summary.json holds.

    Parameters
    ----------
    folder
        Of the run; with variants one folder of this for each.
    engine
        "local" or "flower".
    resume
        Go on from the last finished round in ``folder``.
    make_setup
        Another one than the file's own, where an audit adds rows; engine "local" alone plays it.
    """
    observer = observer or Observer()
    if not config.variants:
        summary = _play_one(config, folder, engine, resume, observer, make_setup, title=config.federation.name)
    else:
        if not resume:
            RunFolder(folder).create(as_written(config, run=None))
        summary = {"name": config.federation.name, "engine": engine, "variants": {}}
        for name in config.variants:
            inner = folder / name
            begun = resume and (inner / "config.json").exists()
            title = f"{config.federation.name}: {name}"
            summary["variants"][name] = _play_one(
                variant_config(config, name), inner, engine, begun, observer, make_setup, title=title
            )
    summary["story"] = config.outcome.story
    summary["checks"] = check_outcome(config.outcome.checks, summary)
    RunFolder(folder).write_summary(summary)
    observer.run_finished(summary)
    return summary


def _play_one(
    config: FederationConfig,
    folder: Path,
    engine: str,
    resume: bool,
    observer: Observer,
    make_setup: Callable[[FederationConfig], Setup],
    *,
    title: str,
) -> dict[str, Any]:
    begun = time.perf_counter()
    if config.simulation.threads is not None:
        torch.set_num_threads(config.simulation.threads)
    setup = make_setup(config)
    plan = plan_from(setup)
    home = _engine(engine, setup, plan, folder)
    store, run = RunFolder(folder), run_name(config, folder, resume=resume)
    if not resume:
        store.create(as_written(config, run=run))
    signer, names = None, setup.institution_names
    if config.secure_aggregation.enabled:
        make_keys(folder, names)
        signer = signer_of(folder, names)
    observer.run_started(title, config.federation.rounds, names)
    with home as chosen:
        coordinator = make_coordinator(setup, run=run, cohort=names, store=store, observer=observer, signer=signer)
        chosen.play(coordinator, observer)
    setup.model.write_vector(coordinator.state.best)
    export_adapter(setup.model, folder / "adapter", labels=setup.labels)
    summary = summarize(setup, plan.institutions, coordinator, engine=engine, seconds=time.perf_counter() - begun)
    store.write_summary(summary)
    return summary


def _engine(name: str, setup: Setup, plan: FederationPlan, folder: Path) -> Engine:
    if name == "local":
        return LocalEngine(setup, plan, folder)
    if name == "flower":
        return FlowerEngine(setup, plan, folder)
    raise ConfigError(f'expected engine "local" or "flower", found "{name}": choose one of them')
