"""FFA-LoRA: A is drawn once and frozen for ever, B is averaged. Source: Sun et al. 2024, arXiv 2403.12313."""

from __future__ import annotations

from dataclasses import dataclass

from fedft.aggregation.base import Finished
from fedft.model.vector import AdapterLayout
from fedft.types import AdapterVector, Role


@dataclass(frozen=True)
class FfaLora:
    """Average B and head under a common, frozen A.

    Exact: (1/n) Σ B_k·A = B̄·A. Noise enters linearly, half the values travel, and what is sent can be added under
    secure aggregation.
    """

    name: str = "ffa_lora"
    trains: tuple[Role, ...] = ("lora_B", "head")
    orthonormal_a: bool = False
    linear: bool = True

    def finish(self, layout: AdapterLayout, vector: AdapterVector) -> Finished:
        layout.require(vector)
        return Finished(vector)
