"""The start-up self-test of private training: in its precision, on made-up tokens; no record is touched.

- Gradients: those per example that will be clipped, against autograd, one row at a time, in a batch of rows of unequal
  length. Fails when a layer has no per-example gradient, when rows influence each other (a loss averaged over the
  batch's tokens, batch statistics), or when hooks hold parameters that the model does not use.
- Independence: the same row's gradient beside other rows, in another place, in a batch of the same shape.
- Sensitivity: the sum of these gradients, clipped, with one of them and without.
- Noise: the deviation of many draws, against the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedft.data.formats import Batch, EncodedExample, collate
from fedft.errors import NotPrivate
from fedft.model.adapter import AdaptedModel, forbidden_for_dp
from fedft.privacy.noise import gaussian
from fedft.randomness import SecureStream, reproducible_rng
from fedft.training.dp_sgd import clip_unit_gradients, per_row_gradients
from fedft.training.losses import per_example_loss
from fedft.training.precision import Shapes, autocast, private_shapes
from fedft.types import Role

TOLERANCE = 1e-3
"""Largest relative difference, in L2 norm per row: float32 sums in another order stay below 1e-5."""

BFLOAT16_TOLERANCE = 0.05
"""Of gradients from autograd where bfloat16 rounds, by itself up to 0.014. Independence has no such room: others' rows
must change nothing (precision.py), while rounding a row's own gradient before it is clipped is no matter of privacy."""

ROOM = 1e-5
"""What rounding in float32 may add to a clipped gradient's part of a sum, in clip norms."""

DRAWS, DEVIATION = 20_000, 50.0
NOISE_TOLERANCE = 0.03
"""Six standard errors of the deviation of DRAWS draws: fails by chance once in 500 million starts."""

Draw = Callable[[SecureStream, int, float], Any]
"""Stream, how many, deviation -> that many draws of noise."""


@dataclass(frozen=True)
class SelfTest:
    """gradients, independence: largest relative difference. sensitivity: largest change by one unit, in clip norms.
    noise: relative error of the deviation. None of it depends on a record."""

    gradients: float
    independence: float
    sensitivity: float
    noise: float

    def as_evidence(self) -> dict[str, float]:
        return {
            "self_test_gradients": self.gradients,
            "self_test_independence": self.independence,
            "self_test_sensitivity": self.sensitivity,
            "self_test_noise": self.noise,
        }


def require_private(
    model: AdaptedModel,
    roles: Sequence[Role],
    *,
    draw: Draw = gaussian,
    precision: str = "auto",
    rows: int = 8,
) -> SelfTest:
    """What the self-test found. draw: the noise that will be used. precision, rows: of the training's physical batches.

    Raises NotPrivate when training these roles cannot be private.
    """
    names = forbidden_for_dp(model)
    if names:
        raise NotPrivate(
            f"expected an adapter with per-example gradients, found {', '.join(names)}: "
            "use adapter.method lora or head on linear layers, without gradient checkpointing"
        )
    kept, was_training = model.read_vector(), model.training
    probe = reproducible_rng(0, "self-test").normal(0.0, 0.05, model.layout.size).astype(np.float32)
    dropout = _switch_dropout_off(model)
    try:
        model.write_vector(kept + probe)
        model.train()
        rows_alike = _Rows(model, model.set_trainable(roles), precision, private_shapes(model, precision, rows))
        examples = _made_up_examples(model, "self-test-tokens")
        gradients = rows_alike.gradients(examples)
        difference = _from_autograd(rows_alike, examples, gradients)
        return SelfTest(
            difference, _independence(rows_alike, examples, gradients), _sensitivity(gradients), _noise(draw)
        )
    finally:
        for module, probability in dropout:
            module.p = probability
        model.write_vector(kept)
        model.train(was_training)


@dataclass(frozen=True)
class _Rows:
    """Gradients of made-up rows, in batches as training has them."""

    model: AdaptedModel
    parameters: list[nn.Parameter]
    precision: str
    shapes: Shapes | None

    def gradients(self, examples: Sequence[EncodedExample]) -> list[Tensor]:
        """Of each row, (rows, *shape) for each parameter."""
        width = 1 if self.shapes is None else self.shapes.width(max(len(one.input_ids) for one in examples))
        rows = 0 if self.shapes is None else self.shapes.rows
        batch = self._batch(examples, rows, width)
        found = per_row_gradients(self.model, self.parameters, lambda: self._losses(batch))
        return [gradient[: len(examples)] for gradient in found]

    def autograd(self, example: EncodedExample) -> list[Tensor]:
        """Of one row by itself, without hooks."""
        loss = self._losses(self._batch([example])).sum()
        return list(torch.autograd.grad(loss, self.parameters, allow_unused=False))

    def _batch(self, examples: Sequence[EncodedExample], rows: int = 0, width: int = 1) -> Batch:
        return collate(examples, self.model.tokenizer.pad_token_id, rows=rows, width=width).to(self.model.device)

    def _losses(self, batch: Batch) -> Tensor:
        with autocast(self.model.device, self.precision):
            return per_example_loss(self.model(batch), batch)


def _from_autograd(rows: _Rows, examples: Sequence[EncodedExample], gradients: list[Tensor]) -> float:
    worst = max(
        _relative_difference([g[row] for g in gradients], rows.autograd(example))
        for row, example in enumerate(examples)
    )
    allowed = TOLERANCE if rows.shapes is None else BFLOAT16_TOLERANCE
    if not worst <= allowed:
        raise NotPrivate(
            f"expected per-example gradients within {allowed} of autograd, found {worst:.2g}: rows influence each "
            "other or the hooks hold other parameters; use a model without batch statistics, in float32, loaded on its "
            "device first"
        )
    return worst


def _independence(rows: _Rows, examples: Sequence[EncodedExample], gradients: list[Tensor]) -> float:
    """By how much a row's gradient changes when the rows beside it are others, and its place is another."""
    others, worst = _made_up_examples(rows.model, "self-test-others"), 0.0
    for row in range(len(examples)):
        place = (row + 1) % len(examples)
        beside = [examples[row] if number == place else other for number, other in enumerate(others)]
        found = [g[place] for g in rows.gradients(beside)]
        worst = max(worst, _relative_difference(found, [g[row] for g in gradients]))
    if not worst <= TOLERANCE:
        raise NotPrivate(
            f"expected a row's gradient to be the same whatever rows are beside it, within {TOLERANCE}, found it "
            f'off by {worst:.2g}: use a model without batch statistics, and training.precision = "float32"'
        )
    return worst


def _sensitivity(gradients: list[Tensor]) -> float:
    """Largest change of the clipped sum by one row, in clip norms; the norm is chosen so that every row is clipped."""
    norms = torch.stack([g.float().flatten(1).square().sum(dim=1).cpu() for g in gradients]).sum(dim=0).sqrt()
    clip_norm = float(norms.min()) / 2
    whole, _ = clip_unit_gradients(gradients, clip_norm)
    largest = 0.0
    for row in range(len(norms)):
        kept = [torch.cat([g[:row], g[row + 1 :]]) for g in gradients]
        without, _ = clip_unit_gradients(kept, clip_norm)
        change = torch.stack([(a - b).double().norm().cpu() for a, b in zip(whole, without, strict=True)]).norm()
        largest = max(largest, float(change) / clip_norm)
    if not largest <= 1 + ROOM:
        raise NotPrivate(
            f"expected one unit to change a clipped sum by at most the clip norm, found {largest:.4g} of it: do not "
            "train here; report it with the versions of torch and of the driver"
        )
    return largest


def _noise(draw: Draw) -> float:
    drawn = np.asarray(draw(SecureStream(), DRAWS, DEVIATION), dtype=np.float64)
    off = abs(float(np.sqrt(np.mean(drawn**2))) / DEVIATION - 1)
    if not off <= NOISE_TOLERANCE:
        raise NotPrivate(
            f"expected noise within {NOISE_TOLERANCE:.0%} of its deviation, found {off:.2%}: do not train here; report "
            "it with the versions of numpy and cryptography"
        )
    return off


def _relative_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    difference = torch.stack([(f - e).double().norm().cpu() for f, e in zip(found, expected, strict=True)]).norm()
    size = torch.stack([e.double().norm().cpu() for e in expected]).norm()
    if not float(size) > 0:
        return float("inf")
    return float(difference / size)


def _made_up_examples(model: AdaptedModel, name: str) -> list[EncodedExample]:
    rng = reproducible_rng(0, name)
    vocabulary = min(len(model.tokenizer), 1 << 15)
    examples = []
    for unit, length in enumerate((4, 9, 6)):
        ids = rng.integers(0, vocabulary, size=length)
        if model.task_kind == "classification":
            examples.append(EncodedExample(ids, unit % (model.num_labels or 1), None, unit))
        else:
            examples.append(EncodedExample(ids, -1, np.arange(length) >= 2, unit))
    return examples


def _switch_dropout_off(model: nn.Module) -> list[tuple[nn.Dropout, float]]:
    found = [(module, module.p) for module in model.modules() if isinstance(module, nn.Dropout)]
    for module, _ in found:
        module.p = 0.0
    return found
