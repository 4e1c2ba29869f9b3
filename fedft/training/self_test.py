"""The start-up self-test of private training, on made-up tokens: no record is touched.

It compares the per-example gradients that will be clipped with autograd, one row at a time, in a batch of rows of
unequal length. It fails when a layer has no per-example gradient, when rows influence each other (a loss averaged over
the batch's tokens, batch statistics), or when hooks hold parameters that the model does not use.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedft.data.formats import Batch, EncodedExample, collate
from fedft.errors import NotPrivate
from fedft.model.adapter import AdaptedModel, forbidden_for_dp
from fedft.randomness import reproducible_rng
from fedft.training.dp_sgd import per_row_gradients
from fedft.training.losses import per_example_loss
from fedft.types import Role

TOLERANCE = 1e-3
"""Largest relative difference, in L2 norm per row: float32 sums in another order stay below 1e-5."""


def require_private(model: AdaptedModel, roles: Sequence[Role]) -> float:
    """The largest relative difference found. Raises NotPrivate when training these roles cannot be private."""
    names = forbidden_for_dp(model)
    if names:
        raise NotPrivate(
            f"expected an adapter with per-example gradients, found {', '.join(names)}: "
            "use adapter.method lora or head on linear layers, without gradient checkpointing"
        )
    kept, was_training = model.read_vector(), model.training
    probe = reproducible_rng(0, "self-test").normal(0.0, 0.05, model.layout.size).astype(np.float32)
    try:
        model.write_vector(kept + probe)
        return _largest_difference(model, model.set_trainable(roles))
    finally:
        model.write_vector(kept)
        model.train(was_training)


def _largest_difference(model: AdaptedModel, parameters: list[nn.Parameter]) -> float:
    examples = _made_up_examples(model)
    dropout = _switch_dropout_off(model)
    model.train()
    batch = collate(examples, model.tokenizer.pad_token_id).to(model.device)
    try:
        together = per_row_gradients(model, parameters, lambda: per_example_loss(model(batch), batch))
        worst = 0.0
        for row, example in enumerate(examples):
            alone = _autograd(model, parameters, collate([example], model.tokenizer.pad_token_id).to(model.device))
            worst = max(worst, _relative_difference([g[row] for g in together], alone))
    finally:
        for module, probability in dropout:
            module.p = probability
    if not worst <= TOLERANCE:
        raise NotPrivate(
            f"expected per-example gradients within {TOLERANCE} of autograd, found {worst:.2g}: rows influence each "
            "other or the hooks hold other parameters; use a model without batch statistics, in float32, loaded on its "
            "device first"
        )
    return worst


def _autograd(model: AdaptedModel, parameters: list[nn.Parameter], batch: Batch) -> list[Tensor]:
    loss = per_example_loss(model(batch), batch).sum()
    return list(torch.autograd.grad(loss, parameters, allow_unused=False))


def _relative_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    difference = torch.stack([(f - e).double().norm() for f, e in zip(found, expected, strict=True)]).norm()
    size = torch.stack([e.double().norm() for e in expected]).norm()
    if not float(size) > 0:
        return float("inf")
    return float(difference / size)


def _made_up_examples(model: AdaptedModel) -> list[EncodedExample]:
    rng = reproducible_rng(0, "self-test-tokens")
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
