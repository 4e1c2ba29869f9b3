"""A finished or unfinished run's best adapter, back on its base model: for evaluating, predicting, exporting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedft.assembly.parts import adapted_model, encode_rows, load_questions, load_rows
from fedft.assembly.runs import resume_config
from fedft.config import FederationConfig, with_overrides
from fedft.errors import ConfigError, LayoutMismatch, ModelError, StorageError
from fedft.evaluation.predict import generate, predict_labels
from fedft.evaluation.quality import Metrics, evaluate
from fedft.model.adapter import AdaptedModel
from fedft.model.checkpoint import read_checkpoint
from fedft.model.export import export_adapter, merge_and_save
from fedft.model.vector import AdapterLayout
from fedft.rounds.run_folder import RunFolder


@dataclass(frozen=True)
class Answer:
    """What the model says to one text. probability: of the label; None for a generated answer."""

    text: str
    probability: float | None


@dataclass(frozen=True, repr=False)
class SavedRun:
    """A run's configuration and its model with the best adapter. labels: None for instruction tuning."""

    folder: Path
    config: FederationConfig
    model: AdaptedModel
    labels: tuple[str, ...] | None
    round: int

    @property
    def layout(self) -> AdapterLayout:
        return self.model.layout

    def evaluate(self, source: str | None = None) -> Metrics:
        """Metrics on all rows of ``source``; None: on the federation's own public rows, as its rounds did."""
        chosen = self.config.evaluation
        rows = load_rows(self.config, source or self.config.data.evaluation, labels=self.labels)
        data = encode_rows(self.config, rows, self.model.tokenizer, labels=self.labels)
        limit = chosen.max_rows if source is None else None
        precision = self.config.training.precision
        return evaluate(self.model, data, batch_size=chosen.batch_size, max_rows=limit, precision=precision)

    def answer(self, texts: list[str], *, inputs: list[str] | None = None, max_new_tokens: int) -> list[Answer]:
        """A label for each text, or a generated answer to each instruction and its input."""
        task, precision = self.config.task, self.config.training.precision
        if self.labels is None:
            made = generate(
                self.model, texts, inputs=inputs, max_new_tokens=max_new_tokens, max_length=task.max_length,
                precision=precision,
            )  # fmt: skip
            return [Answer(text, None) for text in made]
        found = predict_labels(self.model, texts, self.labels, max_length=task.max_length, precision=precision)
        return [Answer(label, probability) for label, probability in found]

    def answer_file(self, source: str, *, max_new_tokens: int) -> list[Answer]:
        """As ``answer``, for the rows of a file; a label or output column is not needed."""
        rows = load_questions(self.config, source).examples
        field = "instruction" if self.labels is None else self.config.task.text
        inputs = None if self.labels is not None else [example.fields.get("input", "") for example in rows]
        return self.answer([example.fields[field] for example in rows], inputs=inputs, max_new_tokens=max_new_tokens)


def open_run(folder: Path, *, bases: Mapping[str, Path] | None = None) -> SavedRun:
    """Load the base model and write the run's best adapter into it.

    bases: where this machine has base models, by digest, instead of where the configuration says.

    Raises
    ------
    ConfigError
        The folder holds no run, or one with variants, each of which is a run of its own.
    StorageError
        No round is finished yet, or the checkpoint is damaged.
    ModelError
        The base model is not the one the adapter was trained on. LayoutMismatch: it is, with other settings.
    """
    config = resume_config(folder)
    _require_one_run(folder, config)
    if not RunFolder(folder).best.is_dir():
        raise StorageError(
            f"expected a finished round in {folder}, found none yet: go on with fedft simulate --resume {folder}"
        )
    tensors, manifest = read_checkpoint(RunFolder(folder).best)
    if bases is not None:
        config = with_overrides(config, {"model.base": str(_base_of(manifest["layout"], bases))})
    labels = None if config.task.kind == "instruction" else tuple(manifest["labels"])
    model = adapted_model(config, labels=labels, orthonormal_a=False)
    _require_same_layout(model.layout, manifest["layout"], config.model.base)
    model.write_vector(tensors["adapter"])
    return SavedRun(folder, config, model, labels, int(manifest["round"]))


def export_run(run: SavedRun, folder: Path, *, merged: bool) -> None:
    """As a PEFT adapter's folder, or as a whole model. Raises ConfigError when ``folder`` holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"expected a new or empty folder, found {folder} in use: choose another")
    (merge_and_save if merged else export_adapter)(run.model, folder, labels=run.labels)


def _base_of(layout: Mapping[str, Any], bases: Mapping[str, Path]) -> Path:
    digest = str(layout["base_digest"])
    if digest not in bases:
        raise ModelError(
            f"expected the base model {digest} among the policy's models, found none with that digest: allow it there"
        )
    return bases[digest]


def _require_one_run(folder: Path, config: FederationConfig) -> None:
    if config.variants:
        names = list(config.variants)
        raise ConfigError(
            f"expected one run, found one with the variants {', '.join(names)}: name one, as {folder / names[0]}"
        )


def _require_same_layout(found: AdapterLayout, stored: Mapping[str, Any], base: str) -> None:
    expected = str(stored["base_digest"])
    if found.base_digest != expected:
        raise ModelError(
            f"expected the base model with digest {expected[:12]}, which this adapter was trained on, found "
            f"{found.base_digest[:12]} at {base}: put the same base model there"
        )
    if found.as_json() != stored:
        raise LayoutMismatch(
            f"expected the adapter's layout as in this run's configuration ({len(found.tensors)} tensors, scale "
            f"{found.scaling:g}), found {len(stored['tensors'])} tensors, scale {stored['scaling']:g}: "
            "restore the run's config.json"
        )
