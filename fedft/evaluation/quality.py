"""Task metrics on one data set: accuracy, macro F1 and loss for classes; loss and perplexity for generated answers.

Guarantee: the same model and rows give the same figures, whatever the batch size (up to float rounding) and the train
or eval mode the model was in, and the model is left in the mode it was found in, with nothing written to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedft.data.formats import Batch, EncodedDataSet, EncodedExample, collate
from fedft.errors import ConfigError, DataError
from fedft.model.adapter import AdaptedModel
from fedft.training.losses import per_example_loss, token_cross_entropy
from fedft.training.precision import autocast

Metrics = dict[str, float]

LOGITS_IN_MEMORY = 1 << 25
"""Largest number of logits of one physical batch: rows x tokens x vocabulary is what fills memory in generation."""

_LARGEST_EXPONENT = 700.0
_IS_HIGHER_BETTER = {"accuracy": True, "macro_f1": True, "loss": False, "perplexity": False}
_METRICS_OF_TASK = {"classification": ("accuracy", "macro_f1", "loss"), "instruction": ("loss", "perplexity")}


def evaluate(
    model: AdaptedModel, data: EncodedDataSet, *, batch_size: int, max_rows: int | None = None, precision: str = "auto"
) -> Metrics:
    """The task's metrics and ``rows``, the number of rows they rest on.

    Classification: accuracy; macro_f1 (see there); loss, the mean over rows in nats. Instruction tuning: loss, the mean
    over all answers' tokens in nats, so that a long answer weighs more than a short one; perplexity = exp(loss).

    Parameters
    ----------
    batch_size
        Rows in memory at once, or fewer where the vocabulary is large.
    max_rows
        Use at most this many rows, evenly spread over the data set in its order, the same ones every time.

    Raises
    ------
    DataError
        No row, or a label that the model has no class for.
    """
    examples = _chosen_examples(data, max_rows)
    if model.task_kind != "classification":
        return _instruction_metrics(model, examples, batch_size, precision)
    classes = int(model.num_labels or 0)
    if not all(0 <= example.label < classes for example in examples):
        raise DataError(
            f"{data.name}: expected labels of the model's {classes} classes, found another: "
            "encode the rows with the labels that the model was trained for"
        )
    return _classification_metrics(model, examples, classes, batch_size, precision)


def macro_f1(truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int) -> float:
    """Unweighted mean of the classes' F1 = 2 TP / (2 TP + FP + FN).

    Convention: a class that neither occurs nor is predicted has no F1 and is left out; a class that occurs or is
    predicted, but never rightly, counts as 0. This is scikit-learn's ``f1_score(average="macro")`` with its defaults.

    Parameters
    ----------
    truth, predicted : (n,) class indices, 0 <= index < classes
    """
    right = np.bincount(truth[truth == predicted], minlength=classes)
    occurrences = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    seen = occurrences > 0
    if not seen.any():
        raise DataError("expected at least one row to compute F1, found none: check the data set")
    return float(np.mean(2 * right[seen] / occurrences[seen]))


def main_metric(task_kind: str, chosen: str = "auto") -> str:
    """The metric that picks the best round: ``chosen``, or accuracy for classes and loss for generated answers."""
    offered = _METRICS_OF_TASK[task_kind]
    if chosen == "auto":
        return offered[0]
    if chosen not in offered:
        raise ConfigError(
            f'evaluation.metric: expected "auto" or one of {", ".join(offered)} for {task_kind}, found "{chosen}"'
        )
    return chosen


def is_better(metric: str, new: float, old: float) -> bool:
    """Whether ``new`` beats ``old``: strictly, and NaN never does; any number beats NaN."""
    if math.isnan(new) or math.isnan(old):
        return math.isnan(old) and not math.isnan(new)
    return new > old if _higher_is_better(metric) else new < old


def forgetting(history: Sequence[Mapping[str, Metrics]], metric: str) -> Metrics:
    """How much worse each task is now than at its best before: Chaudhry et al. 2018, section 3.1.

    Positive means forgotten, whichever way the metric counts; negative means better than ever before. A task without an
    earlier evaluation, or absent from the last one, is left out.

    Parameters
    ----------
    history
        One mapping from task to its metrics for each evaluation, oldest first.
    """
    sign = 1.0 if _higher_is_better(metric) else -1.0
    if not history:
        return {}
    lost = {}
    for task, now in history[-1].items():
        earlier = [sign * past[task][metric] for past in history[:-1] if task in past]
        if earlier:
            lost[task] = max(earlier) - sign * now[metric]
    return lost


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; every module gets back the mode it was in, also after an error."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _classification_metrics(
    model: AdaptedModel, examples: Sequence[EncodedExample], classes: int, batch_size: int, precision: str
) -> Metrics:
    truth, predicted, losses = [], [], []
    for batch, logits in _batches_and_logits(model, examples, batch_size, precision):
        losses.append(per_example_loss(logits, batch).double().cpu().numpy())
        predicted.append(logits.argmax(dim=1).cpu().numpy())
        truth.append(batch.labels.cpu().numpy())
    expected, found = np.concatenate(truth), np.concatenate(predicted)
    return {
        "accuracy": float(np.mean(expected == found)),
        "macro_f1": macro_f1(expected, found, classes),
        "loss": float(np.mean(np.concatenate(losses))),
        "rows": float(len(examples)),
    }


def _instruction_metrics(
    model: AdaptedModel, examples: Sequence[EncodedExample], batch_size: int, precision: str
) -> Metrics:
    total, tokens = 0.0, 0
    for batch, logits in _batches_and_logits(model, examples, batch_size, precision):
        losses, is_target = token_cross_entropy(logits, batch.labels)
        total += float(losses.double().sum())
        tokens += int(is_target.sum())
    if tokens == 0:
        raise DataError("expected answers with at least one token, found none: check the data set and task.max_length")
    loss = total / tokens
    perplexity = math.inf if loss > _LARGEST_EXPONENT else math.exp(loss)
    return {"loss": loss, "perplexity": perplexity, "rows": float(len(examples))}


def _batches_and_logits(
    model: AdaptedModel, examples: Sequence[EncodedExample], batch_size: int, precision: str
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Rows of like length together: less padding, and the order does not depend on the batch size."""
    if batch_size < 1:
        raise ConfigError(f"expected a batch of 1 row or more, found {batch_size}: raise evaluation.batch_size")
    widths = np.array([len(example.input_ids) for example in examples])
    order = np.argsort(-widths, kind="stable")
    vocabulary = 1 if model.task_kind == "classification" else len(model.tokenizer)
    start = 0
    while start < len(order):
        logits_per_row = int(widths[order[start]]) * vocabulary
        stop = start + max(1, min(batch_size, LOGITS_IN_MEMORY // logits_per_row))
        batch = collate([examples[i] for i in order[start:stop]], model.tokenizer.pad_token_id).to(model.device)
        with evaluating(model), autocast(model.device, precision):
            logits = model(batch)
        yield batch, logits
        start = stop


def _chosen_examples(data: EncodedDataSet, max_rows: int | None) -> Sequence[EncodedExample]:
    count = len(data.examples)
    if count == 0:
        raise DataError(f"{data.name}: expected at least one row to evaluate, found none: check the data set")
    if max_rows is None or max_rows >= count:
        return data.examples
    if max_rows < 1:
        raise ConfigError(f"expected at least 1 row, found {max_rows}: raise evaluation.max_rows")
    return [data.examples[position * count // max_rows] for position in range(max_rows)]


def _higher_is_better(metric: str) -> bool:
    if metric not in _IS_HIGHER_BETTER:
        raise ConfigError(f'expected one of {", ".join(_IS_HIGHER_BETTER)} as a metric, found "{metric}"')
    return _IS_HIGHER_BETTER[metric]
