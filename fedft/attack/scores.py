"""How much a model, or the updates that made it, know of each canary: higher is more likely trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedft.attack.draws import tell
from fedft.data.formats import Batch, EncodedDataSet, EncodedExample, collate
from fedft.model.adapter import AdaptedModel
from fedft.training.dp_sgd import per_row_gradients
from fedft.training.losses import per_example_loss
from fedft.types import AdapterVector, Role

Floats = npt.NDArray[np.float64]
Gradients = npt.NDArray[np.float32]
BATCH = 32

MOST_BYTES = 2**31
"""Of the gradients of an institution's own units that are held at once."""

MOST_DIRECTIONS = 4000
"""Of canaries and own units together: their inner products are held too, and the time grows with the cube."""

LEAST_SCALE = 1e-3
"""Of the largest: values that hardly move are not blown up."""


@dataclass(frozen=True)
class LocalSteps:
    """What is public of a round's steps at the institution.

    learning_rates: one per step. batch_size: the divisor of a step's sum. sampling_rate: of each unit, half of the
    canaries taken to be in. clip_norm: of a unit's gradient; None without privacy. noise: what was promised, the
    standard deviation in a step's sum.
    """

    learning_rates: tuple[float, ...]
    batch_size: int
    sampling_rate: float
    clip_norm: float | None
    optimizer: str = "sgd"
    noise: float = 0.0


def losses(model: AdaptedModel, rows: EncodedDataSet, adapter: AdapterVector) -> Floats:
    """Of each row, (n,), in nats; for an answer the mean over its tokens."""
    model.write_vector(adapter)
    model.eval()
    with torch.inference_mode():
        found = [per_example_loss(model(batch), batch) for batch in _batches(model, rows.examples)]
    return np.asarray(torch.cat(found).double().cpu().numpy())


def gradient_score(
    model: AdaptedModel,
    canaries: EncodedDataSet,
    own: EncodedDataSet,
    *,
    adapter: AdapterVector,
    update: AdapterVector,
    roles: Sequence[Role],
    steps: LocalSteps,
) -> Floats:
    """Log likelihood ratio of in against out of each canary, (n,), given a round's released update.

    The attacker knows all rows but does not know which canaries were in, as differential privacy allows it to: the
    gradients of the institution's own units explain their part of the update. One step's gradients are those at the
    adapter that was sent, and without noise the update is an exact sum of them. Of several steps they are taken at
    both ends of the straight way to what the institution made of it. Adam divides each value of a step by about its
    root mean square; gradients are divided likewise.

    Parameters
    ----------
    own : of which the first units are taken, as many as MOST_BYTES and MOST_DIRECTIONS allow
    update : (d,) of the trained roles, as released
    """
    number, rate = len(steps.learning_rates), float(np.mean(steps.learning_rates))
    if rate == 0:
        return np.zeros(canaries.unit_count)  # nothing moved
    layout, places = model.layout, (0.0,) if number == 1 else (0.0, (number - 1) / number)
    units = units_that_fit(own.unit_count, canaries.unit_count, ends=len(places), size=len(update))
    found = np.zeros((len(places), canaries.unit_count + units, len(update)), np.float32)
    for place, into in zip(places, found, strict=True):
        there = layout.with_part(adapter, roles, layout.part(adapter, roles) + update * np.float32(place))
        _write_gradients(model, canaries, there, roles, steps.clip_norm, into[: canaries.unit_count])
        _write_gradients(model, own, there, roles, steps.clip_norm, into[canaries.unit_count :])
    total = -update.astype(np.float64) / rate * (steps.batch_size if steps.optimizer == "sgd" else 1)
    public: dict[str, Any] = {"canaries": canaries.unit_count, "steps": number, "sampling_rate": steps.sampling_rate}
    told = []
    for scale in _scales(found, canaries.unit_count, steps):
        found /= scale
        told.append(tell(found, total, **public, stands_for=own.unit_count / max(1, units)))
        found *= scale
    return max(told, key=lambda one: one.log_likelihood).log_odds(number, steps.sampling_rate)


def units_that_fit(units: int, canaries: int, *, ends: int, size: int) -> int:
    """How many of an institution's own units are taken, with gradients of ``size`` values at ``ends`` places each."""
    return max(0, min(units, MOST_BYTES // (4 * size * ends), MOST_DIRECTIONS // ends - canaries))


def _scales(gradients: Gradients, canaries: int, steps: LocalSteps) -> list[Gradients]:
    """What an optimizer divides each value of a step's sum by, (d,): Adam by its root mean square, draws being random.

    With the noise that was promised, and without: the more likely one will count.

    Parameters
    ----------
    gradients : (ends, n, d), canaries first, of which half are in
    """
    if steps.optimizer == "sgd":
        return [np.ones(1, np.float32)]
    drawn = np.full(gradients.shape[1], steps.sampling_rate, np.float32)
    drawn[:canaries] /= 2
    spread = drawn * (1 - drawn)
    squares = sum((drawn @ end) ** 2 + np.einsum("n,nd,nd->d", spread, end, end) for end in gradients)
    found = [np.sqrt(squares / len(gradients) + noise**2) for noise in sorted({0.0, steps.noise})]
    return [np.maximum(scale, LEAST_SCALE * scale.max() + 1e-30, dtype=np.float32) for scale in found]


def gradient_norms(model: AdaptedModel, rows: EncodedDataSet, adapter: AdapterVector, roles: Sequence[Role]) -> Floats:
    """Of each row's loss by the trained roles, (n,)."""
    pieces = _gradients(model, rows.examples, adapter, roles)
    return np.concatenate([np.linalg.norm(piece, axis=1) for piece in pieces]).astype(np.float64)


def _write_gradients(
    model: AdaptedModel,
    rows: EncodedDataSet,
    adapter: AdapterVector,
    roles: Sequence[Role],
    clip_norm: float | None,
    into: Gradients,
) -> None:
    """Of the first units, as many as ``into`` (units, d) has: each the sum over its rows, clipped as training does."""
    examples = [example for example in rows.examples if example.unit < len(into)]
    gradients = chain.from_iterable(_gradients(model, examples, adapter, roles))
    for example, gradient in zip(examples, gradients, strict=True):
        into[example.unit] += gradient
    norms = np.linalg.norm(into, axis=1, keepdims=True)
    into[~np.isfinite(norms[:, 0])] = 0.0
    if clip_norm is not None:
        into *= clip_norm / np.maximum(norms, clip_norm)


def _gradients(
    model: AdaptedModel, examples: Sequence[EncodedExample], adapter: AdapterVector, roles: Sequence[Role]
) -> Iterator[Gradients]:
    """Of each row, (rows, d), batch by batch."""
    model.write_vector(adapter)
    parameters = model.set_trainable(roles)
    model.train()
    for batch in _batches(model, examples):
        per_row = per_row_gradients(model, parameters, lambda batch=batch: _row_losses(model, batch))  # type: ignore[misc]
        yield torch.cat([gradient.flatten(1).float().cpu() for gradient in per_row], dim=1).numpy()


def _row_losses(model: AdaptedModel, batch: Batch) -> Tensor:
    return per_example_loss(model(batch), batch)


def _batches(model: AdaptedModel, examples: Sequence[EncodedExample]) -> Iterator[Batch]:
    for start in range(0, len(examples), BATCH):
        chosen = examples[start : start + BATCH]
        yield collate(chosen, model.tokenizer.pad_token_id, range(len(chosen))).to(model.device)
