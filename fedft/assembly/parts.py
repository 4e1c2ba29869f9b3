"""A configuration's rows, tokens and model, for whoever trains, evaluates or predicts with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedft.config import FederationConfig
from fedft.data.examples import DataSet, load_data_set
from fedft.data.formats import EncodedDataSet, encode_classification, encode_instruction
from fedft.model.adapter import AdaptedModel, attach_adapter
from fedft.model.base import load_base_model

Labels = Sequence[str] | None


def load_rows(config: FederationConfig, source: str, *, labels: Labels, private: bool = False) -> DataSet:
    """Rows of ``source`` in the task's columns; ``private`` rows keep their unit and what deals them out."""
    task, data = config.task, config.data
    classification = task.kind == "classification"
    keep = [data.task_column] if data.task_column else []
    if not private and config.evaluation.subgroup:
        keep.append(config.evaluation.subgroup)
    if private and data.partition is not None and data.partition.column:
        keep.append(data.partition.column)
    return load_data_set(
        source,
        fields=(task.text, task.label) if classification else ("instruction", "output"),
        optional_fields=() if classification else ("input",),
        unit_column=data.unit if private else None,
        on_bad_record=data.on_bad_record,
        labels=labels if classification else None,
        label_field=task.label if classification else None,
        keep=tuple(keep),
    )


def load_questions(config: FederationConfig, source: str) -> DataSet:
    """Rows of ``source`` that still want an answer: the text, or the instruction and its input."""
    classification = config.task.kind == "classification"
    return load_data_set(
        source,
        fields=(config.task.text,) if classification else ("instruction",),
        optional_fields=() if classification else ("input",),
        on_bad_record=config.data.on_bad_record,
    )


def encode_rows(config: FederationConfig, rows: DataSet, tokenizer: Any, *, labels: Labels) -> EncodedDataSet:
    task, skip = config.task, config.data.on_bad_record
    if task.kind == "instruction":
        return encode_instruction(rows, tokenizer, max_length=task.max_length, on_bad_record=skip)
    return encode_classification(
        rows,
        tokenizer,
        text=task.text,
        label=task.label,
        labels=labels or (),
        max_length=task.max_length,
        on_bad_record=skip,
    )


def adapted_model(config: FederationConfig, *, labels: Labels, orthonormal_a: bool) -> AdaptedModel:
    """The base model with its adapter at the start. Raises ModelError."""
    base = load_base_model(
        config.model.base,
        task=config.task.kind,
        device=config.training.device,
        dtype=config.model.dtype,
        quantization=config.model.quantization,
        revision=config.model.revision,
        sha256=config.model.sha256,
    )
    return attach_adapter(
        base,
        method=config.adapter.method,
        rank=config.adapter.rank,
        alpha=config.adapter.alpha,
        target_modules=config.adapter.target_modules,
        dropout=config.adapter.dropout,
        rslora=config.adapter.rslora,
        num_labels=None if labels is None else len(labels),
        pooling=config.task.pooling,
        seed=config.federation.seed,
        orthonormal_a=orthonormal_a,
    )
