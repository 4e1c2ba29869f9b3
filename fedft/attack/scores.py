"""How much a model, or the updates that made it, know of each canary: higher is more likely trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedft.data.formats import Batch, EncodedDataSet, collate
from fedft.model.adapter import AdaptedModel
from fedft.training.dp_sgd import per_row_gradients
from fedft.training.losses import per_example_loss
from fedft.types import AdapterVector, Role

Floats = npt.NDArray[np.float64]
BATCH = 32
RIDGES = (0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)

BACKGROUND_ROWS = 1000
"""Of the institution's own rows, at most so many: their gradients are held in memory."""


def losses(model: AdaptedModel, rows: EncodedDataSet, adapter: AdapterVector) -> Floats:
    """Of each row, (n,), in nats; for an answer the mean over its tokens."""
    model.write_vector(adapter)
    model.eval()
    with torch.inference_mode():
        found = [per_example_loss(model(batch), batch) for batch in _batches(model, rows)]
    return np.asarray(torch.cat(found).double().cpu().numpy())


def gradient_score(
    model: AdaptedModel,
    canaries: EncodedDataSet,
    background: EncodedDataSet,
    *,
    adapter: AdapterVector,
    update: AdapterVector,
    roles: Sequence[Role],
) -> Floats:
    """How much of a round's released update each canary's gradient explains, (n,): its coefficient in ridge regression.

    The attacker knows all rows but does not know which canaries were in, as differential privacy allows it to: the
    gradients of the institution's own rows explain their part of the update. Gradients are taken halfway between the
    adapter that was sent and what the institution made of it.

    Parameters
    ----------
    update : (d,) of the trained roles, as released
    """
    layout = model.layout
    halfway = layout.with_part(adapter, roles, layout.part(adapter, roles) + update * np.float32(0.5))
    known = replace(background, examples=background.examples[:BACKGROUND_ROWS])
    directions = np.concatenate([_directions(model, rows, halfway, roles) for rows in (canaries, known)])
    return explained(directions, -update.astype(np.float64))[: len(canaries.examples)]


def explained(directions: npt.NDArray[np.float32], target: Floats) -> Floats:
    """Coefficients (n,) of the rows of ``directions`` (n, d), of norm 1, in ridge regression of ``target`` (d,).

    The ridge is the one of RIDGES under which the target is most likely, coefficients and noise being normal: what the
    directions do not explain says how much noise there is, whatever noise was promised.
    """
    size = directions.shape[1]
    spectrum, basis = np.linalg.eigh((directions @ directions.T).astype(np.float64))
    spectrum = spectrum.clip(min=0.0)
    projected = basis.T @ (directions.astype(np.float64) @ target)

    def log_likelihood(ridge: float) -> float:
        unexplained: float = (float(target @ target) - float((projected**2 / (spectrum + ridge)).sum())) / ridge
        spread = (size - len(spectrum)) * math.log(ridge) + float(np.log(spectrum + ridge).sum())
        total: float = size * math.log(max(unexplained, 1e-300)) + spread
        return -total / 2

    ridge = max(RIDGES, key=log_likelihood)
    return np.asarray(basis @ (projected / (spectrum + ridge)))


def gradient_norms(model: AdaptedModel, rows: EncodedDataSet, adapter: AdapterVector, roles: Sequence[Role]) -> Floats:
    """Of each row's loss by the trained roles, (n,)."""
    return np.asarray(np.linalg.norm(_gradients(model, rows, adapter, roles), axis=1), dtype=np.float64)


def _directions(
    model: AdaptedModel, rows: EncodedDataSet, adapter: AdapterVector, roles: Sequence[Role]
) -> npt.NDArray[np.float32]:
    """Gradients (n, d) scaled to norm 1; clipping changes no more of a gradient than its length."""
    found = _gradients(model, rows, adapter, roles)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found


def _gradients(
    model: AdaptedModel, rows: EncodedDataSet, adapter: AdapterVector, roles: Sequence[Role]
) -> npt.NDArray[np.float32]:
    model.write_vector(adapter)
    parameters = model.set_trainable(roles)
    model.train()
    pieces = []
    for batch in _batches(model, rows):
        per_row = per_row_gradients(model, parameters, lambda batch=batch: _row_losses(model, batch))  # type: ignore[misc]
        pieces.append(torch.cat([gradient.flatten(1).float() for gradient in per_row], dim=1).cpu().numpy())
    return np.asarray(np.concatenate(pieces), dtype=np.float32)


def _row_losses(model: AdaptedModel, batch: Batch) -> Tensor:
    return per_example_loss(model(batch), batch)


def _batches(model: AdaptedModel, rows: EncodedDataSet) -> Iterator[Batch]:
    for start in range(0, len(rows.examples), BATCH):
        chosen = rows.examples[start : start + BATCH]
        yield collate(chosen, model.tokenizer.pad_token_id, range(len(chosen))).to(model.device)
