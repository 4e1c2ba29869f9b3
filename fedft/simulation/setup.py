"""From a federation file to what a run is made of: rows, tokens, model, terms. Nothing is trained here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedft.aggregation.base import Aggregation, aggregation_by_name
from fedft.config import FederationConfig
from fedft.config import Institution as InstitutionSection
from fedft.data.examples import DataSet, select
from fedft.data.formats import EncodedDataSet
from fedft.data.quality import quality_report, require_batch, require_trainable
from fedft.errors import ConfigError, DataError
from fedft.model.adapter import AdaptedModel
from fedft.rounds.institution import TrainingTerms
from fedft.rounds.plan import DEFAULT_TASK
from fedft.simulation.partition import partition
from fedft.simulation.parts import adapted_model, encode_rows, load_rows

GENERAL = ""
"""The key of reference rows that belong to no task of the sequence."""


@dataclass(frozen=True, repr=False)
class InstitutionData:
    """One simulated institution: its section, raw rows, and rows as tokens by task."""

    section: InstitutionSection
    rows: DataSet
    encoded: Mapping[str, EncodedDataSet]

    @property
    def units(self) -> int:
        """Privacy units over all tasks; a unit with rows for two tasks counts once."""
        return len({example.unit for example in self.rows.examples})


class Setup:
    """What every engine needs of a configuration, made once: labels, model, public rows, institutions."""

    def __init__(self, config: FederationConfig) -> None:
        self.config = config
        self.tasks: tuple[str, ...] = config.continual.tasks or (DEFAULT_TASK,)
        self.aggregation: Aggregation = aggregation_by_name(config.aggregation.method)
        evaluation = self._load(config.data.evaluation, labels=config.task.labels)
        self.labels = self._labels(evaluation)
        self._shares = self._deal()
        _require_quorum(config.federation.min_institutions, len(self._shares))
        self._institutions: dict[str, InstitutionData] = {}
        self.model: AdaptedModel = adapted_model(
            config, labels=self.labels, orthonormal_a=self.aggregation.orthonormal_a
        )
        self.evaluation = {task: self.encode(rows) for task, rows in self._by_task(evaluation, strict=True).items()}
        self.reference = self._reference()

    @property
    def institution_names(self) -> tuple[str, ...]:
        return tuple(self._shares)

    def institution(self, name: str) -> InstitutionData:
        """Raises DataError when the rows cannot be trained on: one class only, too few for a batch."""
        if name in self._institutions:
            return self._institutions[name]
        section, rows = self._shares[name]
        config = self.config
        if config.task.kind == "classification":
            require_trainable(rows, self.labels, label_field=config.task.label)
        encoded = {task: self.encode(part) for task, part in self._by_task(rows, strict=False).items()}
        for data in encoded.values():
            require_batch(data.unit_count, section.batch_size or config.training.batch_size, name=data.name)
        self._institutions[name] = InstitutionData(section, rows, encoded)
        return self._institutions[name]

    def quality(self, name: str) -> dict[str, object]:
        """The report that stays with the institution."""
        task = self.config.task
        classification = task.kind == "classification"
        fields = (task.text,) if classification else ("instruction", "input", "output")
        label_field = task.label if classification else None
        rows = self._shares[name][1]
        return quality_report(rows, text_fields=fields, label_field=label_field, labels=self.labels or ())

    def terms(self, section: InstitutionSection) -> TrainingTerms:
        training = self.config.training
        return TrainingTerms(
            batch_size=section.batch_size or training.batch_size,
            learning_rate=training.learning_rate,
            physical_batch_size=training.physical_batch_size,
            optimizer=training.optimizer,
            weight_decay=training.weight_decay,
            scheduler=training.scheduler,
            warmup_steps=training.warmup_steps,
            scheduler_options=training.scheduler_options,
            max_gradient_norm=training.max_gradient_norm,
            max_rows_per_unit=self.config.data.max_rows_per_unit,
            precision=training.precision,
        )

    def encode(self, rows: DataSet) -> EncodedDataSet:
        return encode_rows(self.config, rows, self.model.tokenizer, labels=self.labels)

    def _load(self, source: str, *, labels: tuple[str, ...] | None, private: bool = False) -> DataSet:
        return load_rows(self.config, source, labels=labels, private=private)

    def _labels(self, evaluation: DataSet) -> tuple[str, ...] | None:
        """The task's words for its classes: from the file, or the public rows; never from private ones."""
        task = self.config.task
        if task.kind != "classification":
            return None
        found = task.labels or tuple(sorted({example.fields[task.label] for example in evaluation.examples}))
        if len(found) < 2:
            raise DataError(f"{evaluation.name}: expected at least two labels, found {len(found)}: name task.labels")
        return found

    def _deal(self) -> dict[str, tuple[InstitutionSection, DataSet]]:
        config = self.config
        sections = {section.name: section for section in config.institutions}
        if config.data.train is None or config.data.partition is None:
            return {
                name: (section, self._load(str(section.data), labels=self.labels, private=True))
                for name, section in sections.items()
            }
        train = self._load(config.data.train, labels=self.labels, private=True)
        label_field = config.task.label if config.task.kind == "classification" else None
        shares = partition(train, config.data.partition, label_field=label_field, seed=config.federation.seed)
        if sections and config.data.partition.method != "natural" and not sections.keys() & shares.keys():
            if len(sections) != len(shares):
                raise ConfigError(
                    f"expected as many [[institutions]] as data.partition.institutions = {len(shares)}, "
                    f"found {len(sections)}: change either"
                )
            shares = dict(zip(sections, shares.values(), strict=True))
        unknown = sections.keys() - shares.keys()
        if unknown:
            raise ConfigError(
                f"expected [[institutions]] among {', '.join(shares)}, found {', '.join(sorted(unknown))}: "
                "correct the names, or data.partition"
            )
        return {name: (sections.get(name) or InstitutionSection(name=name), rows) for name, rows in shares.items()}

    def _reference(self) -> dict[str, EncodedDataSet]:
        """By task; rows of no task of the sequence, or all rows where there is no sequence, under GENERAL."""
        source, column = self.config.data.reference, self.config.data.task_column
        if source is None:
            return {}
        rows = self._load(source, labels=self.labels)
        if not self.config.continual.tasks or column is None:
            return {GENERAL: self.encode(rows)}
        parts: dict[str, list[int]] = {}
        for position, example in enumerate(rows.examples):
            task = example.fields.get(column, GENERAL)
            parts.setdefault(task if task in self.tasks else GENERAL, []).append(position)
        return {task: self.encode(select(rows, chosen)) for task, chosen in parts.items()}

    def _by_task(self, rows: DataSet, *, strict: bool) -> dict[str, DataSet]:
        """Rows of each task of the sequence. ``strict``: every task must have some."""
        column = self.config.data.task_column
        if not self.config.continual.tasks or column is None:
            return {DEFAULT_TASK: rows}
        parts: dict[str, list[int]] = {task: [] for task in self.tasks}
        for position, example in enumerate(rows.examples):
            parts.get(example.fields.get(column, GENERAL), []).append(position)
        empty = [task for task, chosen in parts.items() if not chosen]
        if empty and strict:
            raise DataError(
                f'{rows.name}: expected rows of every task in column "{column}", found none for {", ".join(empty)}: '
                "correct continual.tasks or the data"
            )
        return {task: select(rows, chosen) for task, chosen in parts.items() if chosen}


def _require_quorum(wanted: int, found: int) -> None:
    """With a natural partition the data alone say how many there are; without a quorum all would train for nothing."""
    if wanted > found:
        raise ConfigError(
            f"expected federation.min_institutions to be at most the {found} institutions of the data, found {wanted}: "
            "lower it, or choose another data.partition.column"
        )
