"""Diagonal Fisher information of the effective weight change ΔW and the head, from public or from private rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedft.data.formats import Batch, EncodedDataSet, collate
from fedft.errors import ConfigError
from fedft.model.adapter import AdaptedModel
from fedft.model.vector import AdapterLayout
from fedft.privacy.noise import gaussian
from fedft.randomness import SecureStream, reproducible_rng, secure_bytes
from fedft.training.losses import sampled_log_likelihood_loss

Fisher = dict[str, npt.NDArray[np.float32]]
"""By module path or head tensor: (d_out, d_in), the head's own shape, or () for one mean value per matrix."""

Detail = Literal["entry", "matrix"]


def public_fisher(
    model: AdaptedModel,
    data: EncodedDataSet,
    *,
    examples: int,
    seed: int,
    detail: Detail = "entry",
    batch_size: int = 16,
) -> Fisher:
    """Diagonal Fisher information of ΔW and head at the model's present weights, mean over rows of a public data set.

    Per example: the square of each row's gradient, never of a batch mean (van de Ven 2025, arXiv 2502.11756). Labels
    are drawn from the model. Raises ConfigError when it is zero everywhere: the penalty would then do nothing.
    """
    rng = reproducible_rng(seed, "public-fisher")
    rows = rng.permutation(len(data.examples))[:examples]
    generator = torch.Generator(model.device).manual_seed(int(rng.integers(1 << 62)))
    totals: dict[str, Tensor] = {}
    with _recorded(model) as record:
        for start in range(0, len(rows), batch_size):
            chosen = [data.examples[row] for row in rows[start : start + batch_size]]
            record.run(collate(chosen, model.tokenizer.pad_token_id).to(model.device), generator)
            for name, per_row in record.per_row_gradients():
                squares = per_row.square().sum(dim=0)
                totals[name] = totals[name] + squares if name in totals else squares
    fisher = {name: _reduced(total / len(rows), detail) for name, total in totals.items()}
    if not any(float(np.max(value)) > 0 for value in fisher.values()):
        raise ConfigError(
            "expected a Fisher information above 0, found 0 everywhere: a head of zeros passes no gradient; set "
            "continual.warm_start_steps, or consolidate after a task"
        )
    return fisher


def private_fisher(
    model: AdaptedModel, data: EncodedDataSet, *, clip_norm: float, noise_multiplier: float, detail: Detail = "matrix"
) -> Fisher:
    """The same from private rows, by one Gaussian release over all units.

    Guarantee: each unit's gradient is clipped to C, so its squares have L2 norm at most C² (‖g∘g‖₂ ≤ ‖g‖₂²), also when
    summed within matrices; the sum gets N(0, (noise_multiplier·C²)² I) and is then clamped at 0. One
    GaussianRelease(noise_multiplier) under add-or-remove-one unit. The result is divided by the number of units, which
    like the sampling rate of DP-SGD is taken as known.

    With ``detail`` "entry" the noise falls on every entry and drowns the signal of small data sets; "matrix" releases
    one number per matrix (docs/decisions/0007).
    """
    generator = torch.Generator(model.device).manual_seed(int.from_bytes(secure_bytes(7), "big"))
    totals: dict[str, Tensor] = {}
    with _recorded(model) as record:
        for rows in data.units:
            batch = collate([data.examples[row] for row in rows], model.tokenizer.pad_token_id).to(model.device)
            record.run(batch, generator)
            gradients = {name: per_row.sum(dim=0) for name, per_row in record.per_row_gradients()}
            for name, squares in clipped_squares(gradients, clip_norm, detail).items():
                totals[name] = totals[name] + squares if name in totals else squares
    return _noised(totals, model.layout, noise_multiplier * clip_norm**2, len(data.units), detail)


def clipped_squares(gradients: Mapping[str, Tensor], clip_norm: float, detail: Detail) -> dict[str, Tensor]:
    """One unit's contribution to the private Fisher: L2 norm at most clip_norm² over all entries; 0 if not finite."""
    home = next(iter(gradients.values())).device
    norm = torch.stack([g.double().square().sum().to(home) for g in gradients.values()]).sum().sqrt()
    factor = torch.where(torch.isfinite(norm), (clip_norm / norm.clamp(min=clip_norm)).square(), 0.0)
    squares = {
        name: torch.nan_to_num(g.double().square() * factor.to(g.device), 0.0, 0.0, 0.0)
        for name, g in gradients.items()
    }
    return squares if detail == "entry" else {name: value.sum() for name, value in squares.items()}


def _noised(
    totals: Mapping[str, Tensor], layout: AdapterLayout, deviation: float, units: int, detail: Detail
) -> Fisher:
    sizes = {module: a.shape[1] * b.shape[0] for module, a, b in layout.lora_pairs()}
    sizes |= {t.name: t.size for t in layout.tensors if t.role == "head"}
    stream, fisher = SecureStream(), {}
    for name, total in totals.items():
        noise = torch.from_numpy(gaussian(stream, total.numel(), deviation)).view(total.shape)
        released = (total.cpu() + noise).clamp(min=0) / units
        per_entry = released / sizes[name] if detail == "matrix" else released
        fisher[name] = per_entry.numpy().astype(np.float32)
    return fisher


def _reduced(per_entry: Tensor, detail: Detail) -> npt.NDArray[np.float32]:
    chosen = per_entry.mean() if detail == "matrix" else per_entry
    return np.asarray(chosen.float().cpu().numpy(), dtype=np.float32)


class _Record:
    """Inputs and output gradients of every adapted layer and of the head, for one backward pass at a time."""

    def __init__(self, model: AdaptedModel) -> None:
        self._model = model
        self.inputs: dict[str, Tensor] = {}
        self.output_gradients: dict[str, Tensor] = {}

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def on_forward(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.inputs[name] = inputs[0].detach().float()
            if output.requires_grad:
                output.register_hook(  # type: ignore[no-untyped-call]
                    lambda gradient: self.output_gradients.__setitem__(name, gradient.detach().float())
                )

        return on_forward

    def run(self, batch: Batch, generator: torch.Generator) -> None:
        self.inputs.clear()
        self.output_gradients.clear()
        loss = sampled_log_likelihood_loss(self._model(batch), batch, generator)
        loss.sum().backward()  # type: ignore[no-untyped-call]

    def per_row_gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Per module: (rows, d_out, d_in) of the effective weight; the head's bias (rows, K)."""
        for name, output_gradient in self.output_gradients.items():
            inputs = self.inputs[name]
            if name == "head":
                yield "head.weight", torch.einsum("nk,nh->nkh", output_gradient, inputs)
                yield "head.bias", output_gradient
            else:
                yield name, torch.einsum("nto,nti->noi", output_gradient, inputs)


@contextmanager
def _recorded(model: AdaptedModel) -> Iterator[_Record]:
    record, was_training = _Record(model), model.training
    trainable: Sequence[tuple[nn.Parameter, bool]] = [(p, p.requires_grad) for p in model.parameters()]
    model.set_trainable(("lora_A", "lora_B", "head"))
    model.eval()
    modules = dict(model.lora_modules())
    if model.task_kind == "classification":
        modules["head"] = model.head
    handles = [module.register_forward_hook(record.hook(name)) for name, module in modules.items()]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()
        for parameter, wanted in trainable:
            parameter.requires_grad_(wanted)
            parameter.grad = None
        model.train(was_training)
