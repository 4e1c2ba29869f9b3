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
from fedft.records.log import has_ended
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.simulation.engines import Engine, FlowerEngine, LocalEngine
from fedft.simulation.institutions import epsilon_alone
from fedft.simulation.planning import FederationPlan, plan_from
from fedft.simulation.run_keys import delete_keys, delete_mask_keys, make_keys, signer_of
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
        Go on from the last finished round in ``folder``; a run that has ended stays as it is.
    make_setup
        Another one than the file's own, where an audit adds rows; engine "local" alone plays it, and never a run that
        goes on from another's state.
    """
    observer = observer or Observer()
    if not config.variants:
        title = config.federation.name
        summary = _play_one(config, folder, engine, resume, observer, make_setup, title=title, outcome=True)
    else:
        if not resume:
            RunFolder(folder).create(as_written(config, run=None))
        summary = {"name": config.federation.name, "engine": engine, "variants": {}}
        for name in config.variants:
            inner = folder / name
            begun = resume and (inner / "config.json").exists()
            title = f"{config.federation.name}: {name}"
            summary["variants"][name] = _play_one(
                variant_config(config, name), inner, engine, begun, observer, make_setup, title=title, outcome=False
            )
        summary |= _outcome(config, summary)
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
    outcome: bool,
) -> dict[str, Any]:
    """The summary of one run, whose audit log ends with it. outcome: it holds what the file announces."""
    begun, store = time.perf_counter(), RunFolder(folder)
    if resume and has_ended(folder):
        delete_keys(folder)
        summary = store.summary()
        observer.run_started(title, config.federation.rounds, tuple(summary["institutions"]))
        return summary
    if config.simulation.threads is not None:
        torch.set_num_threads(config.simulation.threads)
    parent = store.parent()
    setup = make_setup(config) if parent is None else Setup(config, parent.without)
    plan = plan_from(setup)
    home = _engine(engine, setup, plan, folder)
    run = run_name(config, folder, resume=resume)
    if not resume:
        store.create(as_written(config, run=run))
    names = setup.institution_names
    with store.alone():
        make_keys(folder, names)
        observer.run_started(title, config.federation.rounds, names)
        with home as chosen:
            coordinator = make_coordinator(
                setup, run=run, cohort=names, store=store, observer=observer, signer=signer_of(folder, names)
            )
            chosen.play(coordinator, observer)
        setup.model.write_vector(coordinator.state.best)
        export_adapter(setup.model, folder / "adapter", labels=setup.labels)
        summary = summarize(
            setup,
            plan.institutions,
            coordinator,
            engine=engine,
            seconds=time.perf_counter() - begun,
            alone={name: epsilon_alone(config, folder, name) for name in names},
        )
        if outcome:
            summary |= _outcome(config, summary)
        store.write_summary(summary)
        delete_mask_keys(folder)
        coordinator.end()
        delete_keys(folder)
        return summary


def _outcome(config: FederationConfig, summary: dict[str, Any]) -> dict[str, Any]:
    return {"story": config.outcome.story, "checks": check_outcome(config.outcome.checks, summary)}


def _engine(name: str, setup: Setup, plan: FederationPlan, folder: Path) -> Engine:
    if name == "local":
        return LocalEngine(setup, plan, folder)
    if name == "flower":
        return FlowerEngine(setup, plan, folder)
    raise ConfigError(f'expected engine "local" or "flower", found "{name}": choose one of them')
