"""DP-SGD over privacy units: Opacus' per-example gradients, our clipping, our noise. The only import of opacus.

Abadi et al. 2016, "Deep Learning with Differential Privacy", algorithm 1, with Poisson sampling over units. One logical
step is a sequence of physical batches: each is clipped as it comes, noise is added once. A unit is whole inside one
physical batch (data.sampling.pack_units), so it is clipped once; Opacus' BatchMemoryManager splits by row and would cut
it (docs/decisions/0006).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
import torch
from opacus.grad_sample import GradSampleHooks
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from fedft.data.formats import Batch
from fedft.errors import NotPrivate
from fedft.privacy.noise import gaussian
from fedft.randomness import SecureStream

ROUNDING_ROOM = 2.0**-16
"""Clipping aims this fraction below the clip norm, so that float32 rounding stays inside the bound."""


def clip_unit_gradients(
    gradients: Sequence[Tensor], clip_norm: float, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], int]:
    """Sum over units of the clipped unit gradients.

    Guarantee: each unit adds a vector of L2 norm at most ``clip_norm``, over all parameters together, whatever the
    gradients' dtype; a unit with a non-finite gradient adds zero. Adding or removing one unit therefore changes the sum
    by at most ``clip_norm``.

    Parameters
    ----------
    gradients
        One tensor (units, *parameter shape) per parameter, each on its parameter's device. A unit's norm is taken over
        all of them on the first one's, and its factor goes back to each.
    clip_norm
        C > 0.
    dtype
        In which units are added up.

    Returns
    -------
    One sum per parameter, and how many units were non-finite.
    """
    gradients = [g.float() for g in gradients]
    squares = torch.stack([g.flatten(1).square().sum(dim=1).to(gradients[0].device) for g in gradients]).sum(dim=0)
    norms = squares.sqrt()
    usable = torch.isfinite(norms)
    target = clip_norm * (1 - ROUNDING_ROOM)
    factors = torch.where(usable, target / norms.clamp(min=target), 0.0)
    if not bool(usable.all()):
        gradients = [g.masked_fill(~usable.to(g.device).view(-1, *[1] * (g.dim() - 1)), 0.0) for g in gradients]
    sums = [(factors.to(g.device, dtype) @ g.flatten(1).to(dtype)).view(g.shape[1:]) for g in gradients]
    return sums, int((~usable).sum())


def sum_over_units(per_row: Tensor, batch: Batch) -> Tensor:
    """(rows, ...) -> (units, ...): a unit's gradient is the sum over its rows in the batch; blank rows are no one's."""
    per_row = per_row[: len(batch.units)]
    if batch.unit_count == len(per_row):
        return per_row
    per_unit = per_row.new_zeros((batch.unit_count, *per_row.shape[1:]), dtype=torch.float32)
    return per_unit.index_add_(0, batch.units.to(per_row.device), per_row.float())


class UnitDPOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer with per-unit clipping in float32 and noise from the secure stream.

    Guarantee: what the wrapped optimizer sees is (sum of clipped unit gradients + N(0, (noise_multiplier * C)^2 I)) /
    expected_batch_size, once per logical step, also when the step drew no unit.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        clip_norm: float,
        expected_batch_size: int,
        stream: SecureStream,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip_norm,
            expected_batch_size=expected_batch_size,
        )
        self._stream = stream
        self.rejected_units = 0

    def start_step(self) -> None:
        for parameter in self.params:
            parameter.grad = None
            parameter.grad_sample = None
            parameter.summed_grad = torch.zeros_like(parameter, dtype=torch.float32)

    def accumulate(self, batch: Batch) -> None:
        """Clip one physical batch's unit gradients and add them to the sum; free the per-row gradients."""
        per_unit = [sum_over_units(self._get_flat_grad_sample(p), batch) for p in self.params]
        sums, rejected = clip_unit_gradients(per_unit, self.max_grad_norm)
        for parameter, clipped in zip(self.params, sums, strict=True):
            parameter.summed_grad += clipped
            parameter.grad_sample = None
        self.rejected_units += rejected

    def add_noise(self) -> None:
        """p.grad = summed gradient + noise; the sum is taken in float64, one secure draw for all parameters."""
        deviation = self.noise_multiplier * self.max_grad_norm
        sizes = [p.numel() for p in self.params]
        noise = gaussian(self._stream, sum(sizes), deviation)
        for parameter, piece in zip(self.params, np.split(noise, np.cumsum(sizes)[:-1]), strict=True):
            added = torch.from_numpy(piece).to(parameter.device).view_as(parameter)
            parameter.grad = (parameter.summed_grad.double() + added).to(parameter.dtype)
            parameter.summed_grad = None

    def scale_grad(self) -> None:
        for parameter in self.params:
            parameter.grad /= self.expected_batch_size


class DpSgd:
    """A context in which ``step`` performs one DP-SGD step on ``model``; outside it the model carries no hooks."""

    def __init__(self, model: nn.Module, optimizer: UnitDPOptimizer) -> None:
        self._model, self._optimizer = model, optimizer

    def __enter__(self) -> DpSgd:
        with ExitStack() as stack:
            stack.enter_context(_known_warning_hidden())
            stack.callback(attach_hooks(self._model).cleanup)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def step(self, batches: Iterable[Batch], row_losses: Callable[[Batch], Tensor]) -> None:
        """One logical step.

        An empty draw still adds noise and counts as a step: leaving it out would reveal that nobody was drawn.
        """
        self._optimizer.start_step()
        for batch in batches:
            row_losses(batch).sum().backward()  # type: ignore[no-untyped-call]
            self._optimizer.accumulate(batch)
        self._optimizer.add_noise()
        self._optimizer.scale_grad()
        self._optimizer.original_optimizer.step()

    @property
    def rejected_units(self) -> int:
        """Units left out because their gradient was not finite, over all steps. Never leaves the institution."""
        return self._optimizer.rejected_units


def clipped_gradient_sum(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    batches: Iterable[Batch],
    row_losses: Callable[[Batch], Tensor],
    clip_norm: float,
) -> tuple[list[Tensor], int]:
    """Over the units of all ``batches``, as clip_unit_gradients in float64, without noise; the model stays as it was.

    Returns
    -------
    One sum per parameter, zeros where no unit was drawn, and how many units were non-finite.
    """
    totals, rejected = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters], 0
    hooks = attach_hooks(model)
    try:
        with _known_warning_hidden():
            for batch in batches:
                row_losses(batch).sum().backward()  # type: ignore[no-untyped-call]
                per_unit = [sum_over_units(_grad_sample(parameter), batch) for parameter in parameters]
                sums, left_out = clip_unit_gradients(per_unit, clip_norm, torch.float64)
                rejected += left_out
                for parameter, total, clipped in zip(parameters, totals, sums, strict=True):
                    total += clipped
                    parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]
    finally:
        hooks.cleanup()
    return totals, rejected


def _grad_sample(parameter: nn.Parameter) -> Tensor:
    found = getattr(parameter, "grad_sample", None)
    if not isinstance(found, Tensor):
        raise NotPrivate(
            "expected a gradient of each row for every trained parameter, found one without: this adapter method "
            "cannot be private; use LoRA on linear layers"
        )
    return found


@contextmanager
def _known_warning_hidden() -> Iterator[None]:
    """Torch warns that hooks fire though a layer's input needs no gradient: under a frozen base that is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield


def linear_gradients(layer: nn.Linear, inputs: Sequence[Tensor], outputs: Tensor) -> dict[Tensor, Tensor]:
    """Each row's own gradient of a linear layer, summed over its tokens.

    Opacus' formula; where the layer is thin, as LoRA's are, in the order that a CPU multiplies four times as fast.

    Parameters
    ----------
    inputs
        One tensor (rows, ..., d_in): what the layer read.
    outputs
        (rows, ..., d_out): the loss's gradient with respect to what it gave.
    """
    read, given = inputs[0].to(outputs.dtype), outputs
    found: dict[Tensor, Tensor] = {}
    if layer.bias is not None and layer.bias.requires_grad:
        found[layer.bias] = given if given.dim() == 2 else given.flatten(1, -2).sum(dim=1)
    if layer.weight.requires_grad:
        if given.dim() == 2:
            found[layer.weight] = given.unsqueeze(2) * read.unsqueeze(1)
            return found
        given, read = given.flatten(1, -2), read.flatten(1, -2)
        thin = read.shape[2] < given.shape[2]
        found[layer.weight] = (read.mT @ given).mT if thin else given.mT @ read
    return found


class Hooks(GradSampleHooks):  # type: ignore[misc]
    """Opacus' hooks, with our gradients of linear layers."""

    GRAD_SAMPLERS: ClassVar[dict[type[nn.Module], Any]] = {**GradSampleHooks.GRAD_SAMPLERS, nn.Linear: linear_gradients}


def attach_hooks(model: nn.Module) -> Hooks:
    """Opacus' hooks without wrapping. Raises NotPrivate when a trainable module has no per-example gradient."""
    try:
        return Hooks(model, batch_first=True, loss_reduction="sum")
    except NotImplementedError as error:
        raise NotPrivate(
            "expected trainable modules with per-example gradients, found one Opacus refuses: "
            "train LoRA on linear layers, or choose other adapter.target_modules"
        ) from error


def per_row_gradients(
    model: nn.Module, parameters: Sequence[nn.Parameter], losses: Callable[[], Tensor]
) -> list[Tensor]:
    """Per-row gradients of each parameter, (rows, *shape), as DP-SGD will see them; for the start-up self-test."""
    hooks = attach_hooks(model)
    try:
        with _known_warning_hidden():
            losses().sum().backward()  # type: ignore[no-untyped-call]
        found = [getattr(parameter, "grad_sample", None) for parameter in parameters]
        missing = sum(gradient is None for gradient in found)
        if missing:
            raise NotPrivate(
                f"expected per-example gradients for {len(found)} parameters, found none for {missing}: "
                "this adapter method cannot be private; use LoRA on linear layers"
            )
        return [gradient.detach().clone() for gradient in found if gradient is not None]
    finally:
        hooks.cleanup()
        for parameter in parameters:
            parameter.grad = None
