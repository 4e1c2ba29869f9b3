"""What every aggregation has in common: the exact sum of the updates, and the shape of an algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedft.errors import ConfigError, QuorumNotReached, UpdateTooLarge
from fedft.model.vector import AdapterLayout
from fedft.types import AdapterVector, Role
from fedft.update.encoding import MAX_UPDATES, add_encoded, decode

Transports = Mapping[str, npt.NDArray[np.float64]]
"""Module path -> M of shape (r, r), when the algorithm replaced B by B·M: what lives in B's axes must follow."""


@dataclass(frozen=True, eq=False)
class Finished:
    """The next round's adapter, shape (d,) of the full layout, and how B's axes moved, if they did."""

    vector: AdapterVector
    transports: Transports | None = None


class Aggregation(Protocol):
    """trains: the roles that institutions train and send. orthonormal_a: whether A has to start with orthonormal rows.
    linear: whether the mean of what is sent is all that is needed, so that it can be masked.

    finish turns the adapter after the server's step into the one that is sent next. It must be post-processing: a
    function of what was released, with nothing else going in.
    """

    @property
    def name(self) -> str: ...
    @property
    def trains(self) -> tuple[Role, ...]: ...
    @property
    def orthonormal_a(self) -> bool: ...
    @property
    def linear(self) -> bool: ...
    def finish(self, layout: AdapterLayout, vector: AdapterVector) -> Finished: ...


class RunningSum:
    """The weighted mean of a round's updates, one update in memory at a time.

    Guarantee: mean() is the same bit for bit whatever the order of add(); its distance to the exact mean is bounded in
    update/encoding.py. An add() that raises changes nothing.

    Weights must be public constants, never row counts: those are data, and change the sensitivity of the mean.
    """

    def __init__(self, size: int) -> None:
        self._total = np.zeros(size, dtype=np.int64)
        self._weight = Fraction(0)
        self.count = 0

    def add(self, delta: AdapterVector, weight: float = 1.0) -> None:
        """Add weight·delta. Raises NonFiniteUpdate, UpdateTooLarge, or ConfigError for a weight that is not above 0."""
        if not (np.isfinite(weight) and weight > 0):
            raise ConfigError(f"expected a weight above 0, found {weight}: correct aggregation.weights")
        if delta.shape != self._total.shape:
            raise UpdateTooLarge(
                f"expected {self._total.size} values, found shape {delta.shape}: screen updates before adding them"
            )
        if self.count == MAX_UPDATES:
            raise UpdateTooLarge(f"expected at most {MAX_UPDATES} updates in a sum of 63 bits: use smaller cohorts")
        add_encoded(self._total, delta, weight)
        self._weight += Fraction(weight)  # exact, so that it does not depend on the order either
        self.count += 1

    def mean(self) -> AdapterVector:
        """float32, shape (d,). Raises QuorumNotReached when nothing was added."""
        if self.count == 0:
            raise QuorumNotReached("expected at least 1 update to average, found 0: see why the institutions sat out")
        return decode(self._total, float(self._weight))


def aggregation_by_name(name: str) -> Aggregation:
    """ "fedavg", "ffa_lora" or "fed_svd". Raises ConfigError for another."""
    from fedft.aggregation.fed_svd import FedSvd
    from fedft.aggregation.fedavg import FedAvg
    from fedft.aggregation.ffa_lora import FfaLora

    known: dict[str, Aggregation] = {method.name: method for method in (FedAvg(), FfaLora(), FedSvd())}
    if name not in known:
        raise ConfigError(f'expected aggregation.method to be {", ".join(known)}, found "{name}": choose one of them')
    return known[name]
