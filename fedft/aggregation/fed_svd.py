"""FedSVD: like FFA-LoRA within a round; between rounds the server turns A by the SVD of B·A.

Source: Lee et al. 2025, arXiv 2505.12805. Why it stays inside A's row space: docs/decisions/0003-fed-svd.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedft.aggregation.base import Finished
from fedft.model.vector import AdapterLayout
from fedft.types import AdapterVector, Role

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FedSvd:
    """Average B and head; then A' = right singular vectors of B·A, and B' = B·M with M = A·A'ᵀ.

    Guarantee: A' has orthonormal rows, also when B = 0 or A is rank deficient, and B'·A' = B·A, both to float32
    accuracy. The same input gives the same output bit for bit on the same machine and numerical library.
    """

    name: str = "fed_svd"
    trains: tuple[Role, ...] = ("lora_B", "head")
    orthonormal_a: bool = True
    linear: bool = True

    def finish(self, layout: AdapterLayout, vector: AdapterVector) -> Finished:
        """Turn every LoRA pair. Raises LayoutMismatch when the vector is not the layout's."""
        tensors = dict(layout.unflatten(vector))
        transports: dict[str, Matrix] = {}
        for module, a, b in layout.lora_pairs():
            turned, transport = turn(tensors[a.name], tensors[b.name])
            tensors[b.name] = (tensors[b.name].astype(np.float64) @ transport).astype(np.float32)
            tensors[a.name] = turned.astype(np.float32)
            transports[module] = transport
        return Finished(layout.flatten(tensors), transports)


def turn(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> tuple[Matrix, Matrix]:
    """A' with orthonormal rows, and M = A·A'ᵀ, for A of shape (r, d_in) and B of shape (d_out, r), r <= d_in.

    Thin QR of Aᵀ and of B leave an r x r core to decompose: O((d_in + d_out)·r²) instead of an SVD of d_out x d_in.
    Singular vectors come in descending order; each points to the side of the old axis it is closest to (the largest
    entry of its column of M is positive), so A' = A when B = 0 and A is orthonormal.
    """
    a64 = a.astype(np.float64)
    q, upper = _positive_qr(a64.T)  # Aᵀ = q·upper, q of shape (d_in, r)
    core = np.linalg.qr(b.astype(np.float64), mode="r") @ upper.T
    right = np.linalg.svd(core, full_matrices=True)[2]  # (r, r); of B·A = Q·core·qᵀ
    turned = right @ q.T
    transport = a64 @ turned.T
    largest = np.abs(transport).argmax(axis=0)
    signs = np.where(transport[largest, np.arange(transport.shape[1])] < 0, -1.0, 1.0)
    return turned * signs[:, None], transport * signs


def _positive_qr(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Thin QR with a non-negative diagonal of R: unique for full rank, and the identity's R for orthonormal columns."""
    q, upper = np.linalg.qr(matrix)
    signs = np.where(np.diagonal(upper) < 0, -1.0, 1.0)
    return q * signs, upper * signs[:, None]
