"""The local loop: load the global adapter, take the round's steps on the institution's units, return the difference.

Private and plain training share everything but the step: units are drawn by Poisson sampling, packed into physical
batches, and the gradient sum is divided by the expected number of units.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedft.data.formats import Batch, EncodedDataSet, collate
from fedft.data.sampling import PoissonUnitSampler, pack_units
from fedft.errors import NotPrivate
from fedft.model.adapter import AdaptedModel
from fedft.randomness import SecureStream
from fedft.training.dp_sgd import DpSgd, UnitDPOptimizer, clipped_gradient_sum
from fedft.training.losses import per_example_loss
from fedft.training.precision import Shapes, autocast, private_shapes
from fedft.types import AdapterVector, Role

Uniform = Callable[[int], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Mechanism:
    """What changes privacy. Noise standard deviation is noise_multiplier * clip_norm on the sum over units."""

    clip_norm: float
    noise_multiplier: float


@dataclass(frozen=True)
class LocalPlan:
    """One round's local training. ``mechanism`` None trains without privacy.

    learning_rates: one per logical step. batch_size: expected units per step, the divisor of the gradient sum, a public
    constant. sampling_rate: probability with which each unit takes part in a step.
    """

    learning_rates: tuple[float, ...]
    batch_size: int
    sampling_rate: float
    mechanism: Mechanism | None
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    physical_batch_size: int = 64
    max_rows_per_unit: int | None = None
    max_gradient_norm: float | None = None
    precision: str = "auto"


@dataclass(frozen=True)
class LocalResult:
    """``delta``: trained minus received values, float32, the layout's order of the trained roles."""

    delta: AdapterVector
    rejected_units: int
    seconds: float


@dataclass(frozen=True)
class GradientSum:
    """``total``: float64, (d,), in the layout's order of the trained roles."""

    total: npt.NDArray[np.float64]
    rejected_units: int
    seconds: float


class Penalty(Protocol):
    """Something that moves the trained adapter parameters after each step of the optimizer, and sees nothing else."""

    def pull(self, model: AdaptedModel, rate: float) -> None: ...


class _Step(Protocol):
    @property
    def rejected_units(self) -> int: ...

    def step(self, batches: Iterator[Batch], row_losses: Callable[[Batch], Tensor]) -> None: ...


class PlainStep:
    """The step without privacy: same sum, same divisor, optionally a clipped batch gradient."""

    rejected_units = 0

    def __init__(self, optimizer: torch.optim.Optimizer, batch_size: int, max_gradient_norm: float | None) -> None:
        self._optimizer, self._batch_size, self._max_norm = optimizer, batch_size, max_gradient_norm
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step(self, batches: Iterator[Batch], row_losses: Callable[[Batch], Tensor]) -> None:
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        for batch in batches:
            (row_losses(batch).sum() / self._batch_size).backward()  # type: ignore[no-untyped-call]
        if self._max_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._max_norm)
        self._optimizer.step()


def train_locally(
    model: AdaptedModel,
    data: EncodedDataSet,
    start: AdapterVector,
    plan: LocalPlan,
    *,
    roles: Sequence[Role],
    uniform: Uniform,
    penalty: Penalty | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> LocalResult:
    """Train ``roles`` of the adapter from ``start`` and return the difference.

    Guarantee: with a mechanism, the result depends on the data through len(learning_rates) Poisson-subsampled Gaussian
    releases of unit sums of sensitivity clip_norm, and nothing else; penalty and optimizer are post-processing.

    Parameters
    ----------
    uniform
        Source of the sampler's coin flips. With a mechanism this must be SecureStream().uniform: a known coin sequence
        voids amplification by sampling.

    Raises
    ------
    NotPrivate
        When the first private step moves nothing: the hooks then hold parameters the model does not use.
    """
    begun = time.perf_counter()
    model.write_vector(start)
    parameters = model.set_trainable(roles)
    model.train()
    sampler = PoissonUnitSampler(len(data.units), plan.sampling_rate, uniform)

    row_losses, pad_id = row_losses_of(model, plan), model.tokenizer.pad_token_id
    shapes = None if plan.mechanism is None else private_shapes(model, plan.precision, plan.physical_batch_size)
    with ExitStack() as stack:
        optimizer = make_optimizer(parameters, plan)
        step = _make_step(model, optimizer, plan, stack)
        for number, rate in enumerate(plan.learning_rates, start=1):
            for group in optimizer.param_groups:
                group["lr"] = rate
            batches = physical_batches(data, sampler.draw(), plan, pad_id, uniform, shapes)
            step.step(batches, row_losses)
            if number == 1 and rate > 0 and plan.mechanism is not None:
                _require_movement(model, start)
            if penalty is not None:
                penalty.pull(model, rate)
            if on_step is not None:
                on_step(number, len(plan.learning_rates))
        rejected = step.rejected_units
    trained = model.layout.part(model.read_vector(), roles)
    delta = trained - model.layout.part(start, roles)
    return LocalResult(delta, rejected, time.perf_counter() - begun)


def sum_gradients(
    model: AdaptedModel,
    data: EncodedDataSet,
    start: AdapterVector,
    plan: LocalPlan,
    *,
    roles: Sequence[Role],
    uniform: Uniform,
) -> GradientSum:
    """The gradients of one step's units at ``start``, each clipped: what is released with a share of the noise.

    Guarantee: one unit moves the sum by at most the mechanism's clip norm, and each is in it with the plan's sampling
    rate. It has no noise yet, and must not leave without (privacy/distributed.py).

    Parameters
    ----------
    plan
        With a mechanism, of which the clip norm counts.
    uniform
        SecureStream().uniform, as for train_locally.
    """
    if plan.mechanism is None:
        raise NotPrivate("expected a clip norm for a sum of gradients, found none: set privacy.clip_norm")
    begun = time.perf_counter()
    model.write_vector(start)
    parameters = model.set_trainable(roles)
    model.train()
    drawn = PoissonUnitSampler(len(data.units), plan.sampling_rate, uniform).draw()
    shapes = private_shapes(model, plan.precision, plan.physical_batch_size)
    batches = physical_batches(data, drawn, plan, model.tokenizer.pad_token_id, uniform, shapes)
    sums, rejected = clipped_gradient_sum(
        model, parameters, batches, row_losses_of(model, plan), plan.mechanism.clip_norm
    )
    total = torch.cat([one.flatten().cpu() for one in sums]).numpy()
    return GradientSum(total, rejected, time.perf_counter() - begun)


def row_losses_of(model: AdaptedModel, plan: LocalPlan) -> Callable[[Batch], Tensor]:
    """Each row's loss, (rows,), in the plan's precision."""

    def row_losses(batch: Batch) -> Tensor:
        on_device = batch.to(model.device)
        with autocast(model.device, plan.precision):
            return per_example_loss(model(on_device), on_device)

    return row_losses


def _make_step(model: AdaptedModel, optimizer: torch.optim.Optimizer, plan: LocalPlan, stack: ExitStack) -> _Step:
    if plan.mechanism is None:
        return PlainStep(optimizer, plan.batch_size, plan.max_gradient_norm)
    private = UnitDPOptimizer(
        optimizer,
        noise_multiplier=plan.mechanism.noise_multiplier,
        clip_norm=plan.mechanism.clip_norm,
        expected_batch_size=plan.batch_size,
        stream=SecureStream(),
    )
    return stack.enter_context(DpSgd(model, private))


def make_optimizer(parameters: Sequence[nn.Parameter], plan: LocalPlan) -> torch.optim.Optimizer:
    if plan.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=0.0, weight_decay=plan.weight_decay)
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=plan.weight_decay)


def physical_batches(
    data: EncodedDataSet,
    units: npt.NDArray[np.int64],
    plan: LocalPlan,
    pad_id: int,
    uniform: Uniform,
    shapes: Shapes | None = None,
) -> Iterator[Batch]:
    """The drawn units in batches of at most physical_batch_size rows; a unit is never in two of them.

    With ``shapes`` units of one width are together, and blank rows fill each batch up.
    """
    rows = [_rows_of_unit(data.units[unit], plan.max_rows_per_unit, uniform) for unit in units]
    longest = [max(len(data.examples[r].input_ids) for r in unit_rows) for unit_rows in rows]
    widths = [1 if shapes is None else shapes.width(tokens) for tokens in longest]
    for width, group in groupby(sorted(range(len(rows)), key=lambda i: longest[i]), key=lambda i: widths[i]):
        order = list(group)
        for positions in pack_units([len(rows[i]) for i in order], plan.physical_batch_size):
            chosen = [rows[order[position]] for position in positions]
            examples = [data.examples[row] for unit_rows in chosen for row in unit_rows]
            owners = [owner for owner, unit_rows in enumerate(chosen) for _ in unit_rows]
            yield collate(examples, pad_id, owners, rows=0 if shapes is None else shapes.rows, width=width)


def _rows_of_unit(rows: npt.NDArray[np.int64], limit: int | None, uniform: Uniform) -> npt.NDArray[np.int64]:
    """All of a drawn unit's rows, or ``limit`` of them at random: a choice inside one unit costs no privacy."""
    if limit is None or len(rows) <= limit:
        return rows
    return rows[np.argsort(uniform(len(rows)))[:limit]]


def _require_movement(model: AdaptedModel, start: AdapterVector) -> None:
    if np.array_equal(model.read_vector(), start):
        raise NotPrivate(
            "expected the first noisy step to move the adapter, found it unchanged: the model was moved or replaced "
            "after its hooks were set; load the model on its device before attaching the adapter"
        )
