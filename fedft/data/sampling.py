"""Which units take part in a step, and which share a physical batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fedft.errors import ConfigError, DataError


class PoissonUnitSampler:
    """Guarantee: each draw holds each unit with probability ``sampling_rate``, independently of every other coin flip.

    The accountant's amplification by sampling rests on this and on the coin flips being secret: with differential
    privacy ``uniform`` is SecureStream().uniform.
    """

    def __init__(
        self, unit_count: int, sampling_rate: float, uniform: Callable[[int], npt.NDArray[np.float64]]
    ) -> None:
        if unit_count < 1:
            raise DataError("expected at least one privacy unit, found none: check the data set")
        if not 0 < sampling_rate <= 1:
            raise ConfigError(f"expected a sampling rate in (0, 1], found {sampling_rate}: lower training.batch_size")
        self._unit_count, self._sampling_rate, self._uniform = unit_count, sampling_rate, uniform

    def draw(self) -> npt.NDArray[np.int64]:
        """Indices of one logical batch's units, ascending; may be empty, and the step still counts."""
        return np.flatnonzero(self._uniform(self._unit_count) < self._sampling_rate).astype(np.int64)


def pack_units(rows_of_unit: Sequence[int], limit: int) -> list[list[int]]:
    """Positions of units for each physical batch of at most ``limit`` rows, in the given order.

    Guarantee: every position is in exactly one batch, so a unit is clipped once. A unit larger than the limit
    stands alone.
    """
    if limit < 1:
        raise ConfigError(
            f"expected a physical batch of 1 row or more, found {limit}: raise training.physical_batch_size"
        )
    batches: list[list[int]] = []
    room = 0
    for position, rows in enumerate(rows_of_unit):
        if not batches or rows > room:
            batches.append([])
            room = limit
        batches[-1].append(position)
        room -= rows
    return batches
