"""The coordinator's side of a configuration: public rows, labels, the model, and the rounds it will ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch

from fedft.aggregation.base import Aggregation, aggregation_by_name
from fedft.aggregation.server_optimizer import server_optimizer
from fedft.assembly.masking import masked_rounds
from fedft.assembly.parts import adapted_model, encode_rows, load_rows
from fedft.assembly.signing import Signer, trail_of
from fedft.config import FederationConfig
from fedft.data.examples import DataSet, select
from fedft.data.formats import EncodedDataSet
from fedft.errors import ConfigError, DataError
from fedft.evaluation.quality import evaluate, main_metric
from fedft.model.adapter import AdaptedModel
from fedft.model.label_names import with_label_names
from fedft.randomness import reproducible_rng
from fedft.rounds.coordinator import Coordinator, FederationTerms
from fedft.rounds.evaluation import Evaluation, Metrics
from fedft.rounds.plan import DEFAULT_TASK, terms_digest
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.training.local import LocalPlan, train_locally
from fedft.training.schedule import learning_rates
from fedft.types import AdapterVector

GENERAL = ""
"""The key of reference rows that belong to no task of the sequence."""

MOST_SUBGROUPS = 50


class PublicParts:
    """What a coordinator needs of a configuration, made once; no private row among it."""

    def __init__(self, config: FederationConfig) -> None:
        self.config = config
        self.tasks: tuple[str, ...] = config.continual.tasks or (DEFAULT_TASK,)
        self.aggregation: Aggregation = aggregation_by_name(config.aggregation.method)
        self._evaluation_rows = load_rows(config, config.data.evaluation, labels=config.task.labels)
        self.labels = _labels(config, self._evaluation_rows)
        self._subgroups = rows_by_subgroup(self._evaluation_rows, config.evaluation.subgroup)

    @cached_property
    def model(self) -> AdaptedModel:
        return adapted_model(self.config, labels=self.labels, orthonormal_a=self.aggregation.orthonormal_a)

    @cached_property
    def evaluation(self) -> Mapping[str, EncodedDataSet]:
        """By task. Raises DataError when a task has no rows."""
        parts = rows_by_task(self.config, self._evaluation_rows, self.tasks)
        empty = [task for task in self.tasks if task not in parts]
        if empty:
            name, column = self._evaluation_rows.name, self.config.data.task_column
            raise DataError(
                f'{name}: expected rows of every task in column "{column}", found none for {", ".join(empty)}: '
                "correct continual.tasks or the data"
            )
        return {task: self.encode(rows) for task, rows in parts.items()}

    @property
    def subgroups(self) -> Mapping[str, EncodedDataSet]:
        """Evaluation rows by their value in evaluation.subgroup; none where no column is named."""
        return {value: self.encode(rows) for value, rows in self._subgroups.items()}

    @cached_property
    def reference(self) -> Mapping[str, EncodedDataSet]:
        """By task; rows of no task of the sequence, or all rows where there is no sequence, under GENERAL."""
        source = self.config.data.reference
        if source is None:
            return {}
        rows = load_rows(self.config, source, labels=self.labels)
        return {task: self.encode(part) for task, part in reference_by_task(self.config, rows, self.tasks).items()}

    def encode(self, rows: DataSet) -> EncodedDataSet:
        return encode_rows(self.config, rows, self.model.tokenizer, labels=self.labels)


def rows_by_subgroup(rows: DataSet, column: str | None) -> dict[str, DataSet]:
    """By value in ``column``, in order; none without one.

    Raises DataError when a row has no value there, or the values are too many to be groups.
    """
    if column is None:
        return {}
    parts: dict[str, list[int]] = {}
    for position, example in enumerate(rows.examples):
        parts.setdefault(example.fields.get(column, ""), []).append(position)
    if "" in parts or len(parts) > MOST_SUBGROUPS:
        found = f"{len(parts['']):,} rows without" if "" in parts else f"{len(parts):,}"
        raise DataError(
            f'{rows.name}: expected up to {MOST_SUBGROUPS} values in column "{column}" and one in each row, found '
            f"{found}: correct evaluation.subgroup"
        )
    return {value: select(rows, parts[value]) for value in sorted(parts)}


def rows_by_task(config: FederationConfig, rows: DataSet, tasks: tuple[str, ...]) -> dict[str, DataSet]:
    """Rows of each task of the sequence that has some, in its order."""
    column = config.data.task_column
    if not config.continual.tasks or column is None:
        return {DEFAULT_TASK: rows}
    parts: dict[str, list[int]] = {task: [] for task in tasks}
    for position, example in enumerate(rows.examples):
        parts.get(example.fields.get(column, GENERAL), []).append(position)
    return {task: select(rows, chosen) for task, chosen in parts.items() if chosen}


def reference_by_task(config: FederationConfig, rows: DataSet, tasks: tuple[str, ...]) -> dict[str, DataSet]:
    column = config.data.task_column
    if not config.continual.tasks or column is None:
        return {GENERAL: rows}
    parts: dict[str, list[int]] = {}
    for position, example in enumerate(rows.examples):
        task = example.fields.get(column, GENERAL)
        parts.setdefault(task if task in tasks else GENERAL, []).append(position)
    return {task: select(rows, chosen) for task, chosen in parts.items()}


def make_coordinator(
    parts: PublicParts,
    *,
    run: str,
    cohort: tuple[str, ...],
    store: RunFolder,
    observer: Observer,
    terms: str = "",
    signer: Signer | None = None,
) -> Coordinator:
    """Where the run stands in ``store``, or at its start. terms: what institutions are told with each plan.

    signer: signs the audit log; needed for secure aggregation. Raises ConfigError for a method or a cohort that this is
    not for.
    """
    config, aggregation = parts.config, parts.aggregation
    trained = parts.model.layout.only(aggregation.trains)
    run_terms = FederationTerms(
        run=run,
        rounds=config.federation.rounds,
        cohort=cohort,
        local_steps=config.training.local_steps,
        metric=main_metric(config.task.kind, config.evaluation.metric),
        min_institutions=config.federation.min_institutions,
        weights=config.aggregation.weights or {},
        max_update_norm=config.aggregation.max_update_norm,
        tasks=config.continual.tasks,
        rounds_per_task=config.continual.rounds_per_task,
        evaluate_every=config.evaluation.every,
        patience=config.evaluation.patience,
        terms_digest=terms_digest(terms),
        encoding=config.aggregation.encoding,
        learning_rates=_learning_rates(config),
    )
    return Coordinator(
        run_terms,
        layout=parts.model.layout,
        aggregation=aggregation,
        server_optimizer=server_optimizer(
            config.aggregation.server_optimizer,
            size=trained.size,
            learning_rate=config.aggregation.server_learning_rate,
            momentum=config.aggregation.server_momentum,
            gradients=config.privacy.mode == "distributed",
        ),
        start=start_adapter(parts),
        evaluate=evaluator(parts),
        folder=store,
        about={"labels": parts.labels, "base_digest": parts.model.base_digest},
        observer=observer,
        masking=masked_rounds(
            config, aggregation, run=run, cohort=cohort, size=trained.size, store=store, signer=signer
        ),
        trail=trail_of(signer, aggregation, run=run, store=store, terms=terms, layout=parts.model.layout),
    )


def _learning_rates(config: FederationConfig) -> tuple[float, ...]:
    """The schedule, where the server takes the steps: one a round."""
    training, rounds = config.training, config.federation.rounds
    if config.privacy.mode != "distributed":
        return ()
    return learning_rates(
        training.scheduler,
        training.learning_rate,
        start=0,
        steps=rounds,
        total=rounds,
        warmup=training.warmup_steps,
        options=training.scheduler_options,
    )


def start_adapter(parts: PublicParts) -> AdapterVector:
    """Where round 1 begins: a fresh adapter, its head perhaps from the labels' names, then warmed up on public rows."""
    continual, training = parts.config.continual, parts.config.training
    model, roles = parts.model, parts.aggregation.trains
    start = model.start_vector()
    if parts.config.task.head_start == "label-names" and parts.labels is not None:
        start = with_label_names(model, start, parts.labels)
    if continual.warm_start_steps == 0:
        return start
    rows = parts.reference.get(GENERAL)
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
    rng = reproducible_rng(parts.config.federation.seed, "warm-start")
    torch.manual_seed(int(rng.integers(1 << 62)))
    result = train_locally(model, rows, start, plan, roles=roles, uniform=rng.random)
    warm = model.layout.with_part(start, roles, model.layout.part(start, roles) + result.delta)
    return parts.aggregation.finish(model.layout, warm).vector


def by_subgroup(parts: PublicParts) -> dict[str, Metrics]:
    """Metrics of the adapter that the model holds, on public rows, by value of evaluation.subgroup."""
    section, precision = parts.config.evaluation, parts.config.training.precision
    return {
        value: evaluate(parts.model, rows, batch_size=section.batch_size, precision=precision)
        for value, rows in parts.subgroups.items()
    }


def evaluator(parts: PublicParts) -> Callable[[AdapterVector, int], Evaluation]:
    """On the coordinator's own rows: the task in training, every task begun so far, and the general reference."""
    section, general = parts.config.evaluation, parts.reference.get(GENERAL)

    def measure(rows: Any) -> Mapping[str, float]:
        return evaluate(
            parts.model,
            rows,
            batch_size=section.batch_size,
            max_rows=section.max_rows,
            precision=parts.config.training.precision,
        )

    def on_public_rows(adapter: AdapterVector, task_index: int) -> Evaluation:
        parts.model.write_vector(adapter)
        tasks = {task: measure(parts.evaluation[task]) for task in parts.tasks[: task_index + 1]}
        reference = None if general is None else measure(general)
        several = tasks if len(parts.tasks) > 1 else {}
        return Evaluation(tasks[parts.tasks[task_index]], several, reference)

    return on_public_rows


def _labels(config: FederationConfig, evaluation: DataSet) -> tuple[str, ...] | None:
    """The task's words for its classes: from the file, or the public rows; never from private ones."""
    task = config.task
    if task.kind != "classification":
        return None
    found = task.labels or tuple(sorted({example.fields[task.label] for example in evaluation.examples}))
    if len(found) < 2:
        raise DataError(f"{evaluation.name}: expected at least two labels, found {len(found)}: name task.labels")
    return found
