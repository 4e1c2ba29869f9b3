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
    """strength/2 · Σ F (ΔW - ΔW*)² over adapted matrices and head, and its gradient in A and B by the chain rule.

    Guarantee: with F = a + b for tasks a and b the gradient is the sum of both; at the anchor it is zero. It is added
    after the noise, so with a public or DP Fisher it is post-processing.
    """

    def __init__(
        self, layout: AdapterLayout, consolidation: Consolidation, strength: float, device: torch.device
    ) -> None:
        layout.require(consolidation.anchor)
        self._scaling, self._strength = layout.scaling, strength
        anchor = {k: torch.from_numpy(v.copy()).to(device) for k, v in layout.unflatten(consolidation.anchor).items()}
        fisher = {k: torch.from_numpy(np.asarray(v)).to(device) for k, v in consolidation.fisher.items()}
        self._pairs = [
            (a.name, b.name, fisher[module], self._scaling * anchor[b.name] @ anchor[a.name])
            for module, a, b in layout.lora_pairs()
        ]
        self._head = [(t.name, fisher[t.name], anchor[t.name]) for t in layout.tensors if t.role == "head"]

    @torch.no_grad()
    def add_gradient(self, model: AdaptedModel) -> None:
        """Add the penalty's gradient to ``grad`` of those adapter parameters that have one (the trained ones)."""
        parameters = model.named_adapter_parameters()
        for name_a, name_b, fisher, anchor in self._pairs:
            a, b = parameters[name_a], parameters[name_b]
            if a.grad is None and b.grad is None:
                continue
            pull = self._strength * self._scaling * fisher * (self._scaling * b @ a - anchor)
            if b.grad is not None:
                b.grad += pull @ a.T
            if a.grad is not None:
                a.grad += b.T @ pull
        for name, fisher, anchor in self._head:
            gradient = parameters[name].grad
            if gradient is not None:
                gradient += self._strength * fisher * (parameters[name] - anchor)

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
