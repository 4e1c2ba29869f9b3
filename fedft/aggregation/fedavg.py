"""Federated averaging of both LoRA factors. Source: McMahan et al. 2017, arXiv 1602.05629."""

from __future__ import annotations

from dataclasses import dataclass

from fedft.aggregation.base import Finished
from fedft.model.vector import AdapterLayout
from fedft.types import ALL_ROLES, AdapterVector, Role


@dataclass(frozen=True)
class FedAvg:
    """Average A, B and head, each by itself.

    The mean of the factors is not the factor of the mean. With Ā and B̄ the means over n institutions,

        (1/n) Σ B_k·A_k - B̄·Ā  =  (1/n) Σ (B_k - B̄)·(A_k - Ā),

    the covariance of the factors across institutions: zero when all agree, quadratic in how far they drift apart.
    Under DP the noise in both factors multiplies: independent noise of standard deviation s in every entry of A and B
    puts a variance of r·s⁴ into every entry of B_k·A_k, on top of the terms linear in the noise.
    Sources: Sun et al. 2024 (FFA-LoRA), arXiv 2403.12313; Lee et al. 2025 (FedSVD), arXiv 2505.12805.
    """

    name: str = "fedavg"
    trains: tuple[Role, ...] = ALL_ROLES
    orthonormal_a: bool = False
    linear: bool = True

    def finish(self, layout: AdapterLayout, vector: AdapterVector) -> Finished:
        layout.require(vector)
        return Finished(vector)
