"""Play a federation on one machine: the coordinator and every institution, over the messages of a real network.

With engine "local" all of them share this process and one base model, adapters swapped; with "flower" the institutions
live in the actors of Flower's simulation runtime. Rounds are the same in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from fedft import __version__
from fedft.aggregation.server_optimizer import server_optimizer
from fedft.config import FederationConfig, parse_config, variant_config
from fedft.errors import ConfigError
from fedft.evaluation.quality import evaluate, main_metric
from fedft.model.export import export_adapter
from fedft.model.label_names import with_label_names
from fedft.randomness import reproducible_rng
from fedft.rounds.coordinator import Coordinator, Evaluation, FederationTerms
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.simulation.engines import Engine, FlowerEngine, LocalEngine
from fedft.simulation.outcome import check_outcome, summarize
from fedft.simulation.planning import FederationPlan, plan_from
from fedft.simulation.setup import GENERAL, Setup
from fedft.training.local import LocalPlan, train_locally
from fedft.types import AdapterVector


def play(
    config: FederationConfig,
    *,
    folder: Path,
    engine: str = "local",
    resume: bool = False,
    observer: Observer | None = None,
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
    """
    observer = observer or Observer()
    if not config.variants:
        summary = _play_one(config, folder, engine, resume, observer, title=config.federation.name)
    else:
        if not resume:
            RunFolder(folder).create(_as_written(config, run=None))
        summary = {"name": config.federation.name, "engine": engine, "variants": {}}
        for name in config.variants:
            inner = folder / name
            begun = resume and (inner / "config.json").exists()
            title = f"{config.federation.name}: {name}"
            summary["variants"][name] = _play_one(
                variant_config(config, name), inner, engine, begun, observer, title=title
            )
    summary["story"] = config.outcome.story
    summary["checks"] = check_outcome(config.outcome.checks, summary)
    RunFolder(folder).write_summary(summary)
    observer.run_finished(summary)
    return summary


def resume_config(folder: Path) -> FederationConfig:
    """The configuration that a run folder was started with, variants included. Raises ConfigError and StorageError."""
    body = RunFolder(folder).config()
    return parse_config({key: value for key, value in body.items() if key not in _OF_THE_RUN}, folder=folder)


_OF_THE_RUN = ("fedft_version", "run")


def _as_written(config: FederationConfig, *, run: str | None) -> dict[str, Any]:
    return {"fedft_version": __version__, "run": run, **config.model_dump(mode="json")}


def _play_one(
    config: FederationConfig, folder: Path, engine: str, resume: bool, observer: Observer, *, title: str
) -> dict[str, Any]:
    begun = time.perf_counter()
    if config.simulation.threads is not None:
        torch.set_num_threads(config.simulation.threads)
    setup = Setup(config)
    plan = plan_from(setup)
    home = _engine(engine, setup, plan, folder)
    store, run = RunFolder(folder), _run_name(config, folder, resume)
    if not resume:
        store.create(_as_written(config, run=run))
    observer.run_started(title, config.federation.rounds, setup.institution_names)
    with home as chosen:
        coordinator = _coordinator(setup, run, store, observer)
        chosen.play(coordinator, observer)
    setup.model.write_vector(coordinator.state.best)
    export_adapter(setup.model, folder / "adapter", labels=setup.labels)
    summary = summarize(config, plan, coordinator, engine=engine, seconds=time.perf_counter() - begun)
    store.write_summary(summary)
    return summary


def _run_name(config: FederationConfig, folder: Path, resume: bool) -> str:
    """Names the run in every ledger: never used twice, and the same when resumed."""
    if resume:
        return str(RunFolder(folder).config()["run"])
    return f"{config.federation.name}/{uuid4().hex[:16]}"


def _engine(name: str, setup: Setup, plan: FederationPlan, folder: Path) -> Engine:
    if name == "local":
        return LocalEngine(setup, plan, folder)
    if name == "flower":
        return FlowerEngine(setup, plan, folder)
    raise ConfigError(f'expected engine "local" or "flower", found "{name}": choose one of them')


def _coordinator(setup: Setup, run: str, store: RunFolder, observer: Observer) -> Coordinator:
    config, aggregation = setup.config, setup.aggregation
    trained = setup.model.layout.only(aggregation.trains)
    terms = FederationTerms(
        run=run,
        rounds=config.federation.rounds,
        cohort=setup.institution_names,
        local_steps=config.training.local_steps,
        metric=main_metric(config.task.kind, config.evaluation.metric),
        min_institutions=config.federation.min_institutions,
        weights=config.aggregation.weights or {},
        max_update_norm=config.aggregation.max_update_norm,
        tasks=config.continual.tasks,
        rounds_per_task=config.continual.rounds_per_task,
        evaluate_every=config.evaluation.every,
        patience=config.evaluation.patience,
    )
    return Coordinator(
        terms,
        layout=setup.model.layout,
        aggregation=aggregation,
        server_optimizer=server_optimizer(
            config.aggregation.server_optimizer,
            size=trained.size,
            learning_rate=config.aggregation.server_learning_rate,
            momentum=config.aggregation.server_momentum,
        ),
        start=start_adapter(setup),
        evaluate=evaluator(setup),
        folder=store,
        about={"labels": setup.labels, "base_digest": setup.model.base_digest},
        observer=observer,
    )


def start_adapter(setup: Setup) -> AdapterVector:
    """Where round 1 begins: a fresh adapter, its head perhaps from the labels' names, then warmed up on public rows."""
    continual, training = setup.config.continual, setup.config.training
    model, roles = setup.model, setup.aggregation.trains
    start = model.start_vector()
    if setup.config.task.head_start == "label-names" and setup.labels is not None:
        start = with_label_names(model, start, setup.labels)
    if continual.warm_start_steps == 0:
        return start
    rows = setup.reference.get(GENERAL)
    if rows is None:
        raise ConfigError(
            "expected public rows in data.reference to warm up on, found none: name a file, or set "
            "continual.warm_start_steps = 0"
        )
    batch = min(training.batch_size, rows.unit_count)
    plan = LocalPlan(
        learning_rates=(continual.warm_start_learning_rate,) * continual.warm_start_steps,
        batch_size=batch,
        sampling_rate=batch / rows.unit_count,
        mechanism=None,
        physical_batch_size=training.physical_batch_size,
        precision=training.precision,
    )
    rng = reproducible_rng(setup.config.federation.seed, "warm-start")
    torch.manual_seed(int(rng.integers(1 << 62)))
    result = train_locally(model, rows, start, plan, roles=roles, uniform=rng.random)
    warm = model.layout.with_part(start, roles, model.layout.part(start, roles) + result.delta)
    return setup.aggregation.finish(model.layout, warm).vector


def evaluator(setup: Setup) -> Callable[[AdapterVector, int], Evaluation]:
    """On the coordinator's own rows: the task in training, every task begun so far, and the general reference."""
    section, general = setup.config.evaluation, setup.reference.get(GENERAL)

    def measure(rows: Any) -> Mapping[str, float]:
        return evaluate(
            setup.model,
            rows,
            batch_size=section.batch_size,
            max_rows=section.max_rows,
            precision=setup.config.training.precision,
        )

    def on_public_rows(adapter: AdapterVector, task_index: int) -> Evaluation:
        setup.model.write_vector(adapter)
        tasks = {task: measure(setup.evaluation[task]) for task in setup.tasks[: task_index + 1]}
        reference = None if general is None else measure(general)
        several = tasks if len(setup.tasks) > 1 else {}
        return Evaluation(tasks[setup.tasks[task_index]], several, reference)

    return on_public_rows
