"""Elastic weight consolidation in the space of the effective weight change ΔW = s·B·A.

Kirkpatrick et al. 2017; online form Schwarz et al. 2018, section 4; on ΔW for LoRA Zheng et al. 2026 (arXiv
2602.17559). A penalty on the factors themselves would be void at LoRA's start, where B = 0 makes the Fisher of A
exactly 0, and it is not invariant under (A, B) -> (R A, B R^-1); ΔW is what the model computes with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedft.model.adapter import AdaptedModel
from fedft.model.checkpoint import read_checkpoint, write_checkpoint
from fedft.model.vector import AdapterLayout
from fedft.training.fisher import Fisher
from fedft.types import AdapterVector


@dataclass(frozen=True)
class Consolidation:
    """What an earlier task left: its adapter and how much each effective weight mattered."""

    anchor: AdapterVector
    fisher: Fisher


class EwcPenalty:
    """strength/2 · Σ F (ΔW - ΔW*)² over adapted matrices and head, as a proximal step after the optimizer's own.

    x <- argmin_y |y - x|²/(2·rate) + penalty(y), in closed form (Parikh & Boyd 2014, Proximal Algorithms, section 1.1):
    the penalty's gradient is taken where the step ends. An explicit gradient step diverges once rate·strength·F exceeds
    2 in any entry; this one is stable at any strength (docs/decisions/0012). With AdamW it is decoupled from the
    moments, as its weight decay is.

    Guarantee: with F = a + b for tasks a and b the penalty is the sum of both; at the anchor nothing moves; the penalty
    never grows. It is taken after the noisy step, so with a public or DP Fisher it is post-processing.
    """

    def __init__(
        self,
        layout: AdapterLayout,
        consolidation: Consolidation,
        strength: float,
        devices: Mapping[str, torch.device],
    ) -> None:
        """devices: by tensor name, as ``AdaptedModel.devices``; the two factors of a matrix share one."""
        layout.require(consolidation.anchor)
        self._scaling, self._strength = layout.scaling, strength
        unflat = layout.unflatten(consolidation.anchor)
        anchor = {name: torch.from_numpy(value.copy()).to(devices[name]) for name, value in unflat.items()}
        where = {b.module: devices[b.name] for _, _, b in layout.lora_pairs()} | dict(devices)
        fisher = {k: torch.from_numpy(np.asarray(v)).to(where[k]) for k, v in consolidation.fisher.items()}
        self._pairs = [
            (a.name, b.name, fisher[module], self._scaling * anchor[b.name] @ anchor[a.name])
            for module, a, b in layout.lora_pairs()
        ]
        self._head = [(t.name, fisher[t.name], anchor[t.name]) for t in layout.tensors if t.role == "head"]

    @torch.no_grad()
    def pull(self, model: AdaptedModel, rate: float) -> None:
        """Move the adapter parameters that are being trained by one step at learning rate ``rate``.

        Where both factors of a matrix are trained: B with A held, then A with B held.
        """
        parameters = model.named_adapter_parameters()
        weight = rate * self._strength
        for name_a, name_b, fisher, anchor in self._pairs:
            a, b = parameters[name_a], parameters[name_b]
            if b.requires_grad:
                b.copy_(pulled_rows(b, self._scaling * a, weight * fisher, anchor))
            if a.requires_grad:
                a.copy_(
                    pulled_rows(a.T, self._scaling * b.T, weight * (fisher.T if fisher.dim() else fisher), anchor.T).T
                )
        for name, fisher, anchor in self._head:
            value = parameters[name]
            if value.requires_grad:
                value.copy_((value + weight * fisher * anchor) / (1 + weight * fisher))

    @torch.no_grad()
    def value(self, model: AdaptedModel) -> float:
        """The penalty itself, in nats."""
        parameters = model.named_adapter_parameters()
        total = torch.zeros((), dtype=torch.float64)
        for name_a, name_b, fisher, anchor in self._pairs:
            change = self._scaling * parameters[name_b] @ parameters[name_a] - anchor
            total += (fisher * change.square()).sum().double().cpu()
        for name, fisher, anchor in self._head:
            total += (fisher * (parameters[name] - anchor).square()).sum().double().cpu()
        return self._strength / 2 * float(total)


def pulled_rows(rows: Tensor, basis: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """argmin over Y of |Y - rows|²/2 + Σ weight (Y·basis - target)²/2, row by row: n systems of r equations.

    Parameters
    ----------
    rows, basis, target
        (n, r), (r, d), (n, d).
    weight
        (n, d), or () where it is the same everywhere.
    """
    weighted = weight.expand_as(target)
    if weight.dim() == 0:
        gram = (weight * basis @ basis.T).unsqueeze(0)
    else:
        gram = (weighted @ _products(basis)).view(len(rows), len(basis), len(basis))
    system = torch.eye(len(basis), device=rows.device) + gram
    wanted = rows + (weighted * target) @ basis.T
    solved: Tensor = torch.linalg.solve(system, wanted.unsqueeze(2))
    return solved.squeeze(2)


def _products(basis: Tensor) -> Tensor:
    """(r, d) -> (d, r·r): every column's outer product with itself."""
    return torch.einsum("rd,sd->drs", basis, basis).flatten(1)


def accumulate(earlier: Consolidation | None, fisher: Fisher, anchor: AdapterVector, decay: float) -> Consolidation:
    """Online EWC: F <- decay·F + F_new, anchored at the newest adapter (Schwarz et al. 2018; Huszár 2018)."""
    if earlier is None:
        return Consolidation(anchor.copy(), dict(fisher))
    return Consolidation(anchor.copy(), {name: decay * earlier.fisher[name] + new for name, new in fisher.items()})


def save_consolidation(folder: Path, consolidation: Consolidation, manifest: Mapping[str, Any]) -> None:
    tensors = {f"fisher/{name}": np.asarray(value, dtype=np.float32) for name, value in consolidation.fisher.items()}
    write_checkpoint(folder, tensors={"anchor": consolidation.anchor, **tensors}, manifest=manifest)


def load_consolidation(folder: Path) -> Consolidation:
    tensors, _ = read_checkpoint(folder)
    fisher = {name.removeprefix("fisher/"): value for name, value in tensors.items() if name.startswith("fisher/")}
    return Consolidation(tensors["anchor"], fisher)
