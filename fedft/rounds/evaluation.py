"""What a coordinator finds on its own rows, in memory and in the record of a round."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedft.types import AdapterVector

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """On public rows. current: the task being trained; tasks: every task begun so far; reference: what must be kept."""

    current: Metrics
    tasks: Mapping[str, Metrics] = field(default_factory=dict)
    reference: Metrics | None = None

    def as_record(self) -> dict[str, Any]:
        return {"evaluation": self.current, "tasks": self.tasks or None, "reference": self.reference}


Evaluate = Callable[[AdapterVector, int], Evaluation]
"""Adapter, shape (d,), and index of the task being trained -> figures on the coordinator's own rows."""


def in_numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an Evaluation, or a record, with NaN for every figure that is infinite or null.

    JSON has neither and writes null: so a resumed run reads what one that never stopped has in memory.
    """
    flat = {key: _numbers(found[key]) for key in ("current", "evaluation", "reference") if key in found}
    tasks = found["tasks"] and {task: _numbers(metrics) for task, metrics in found["tasks"].items()}
    return {**found, **flat, "tasks": tasks}


def _numbers(metrics: Mapping[str, float | None] | None) -> dict[str, float] | None:
    if metrics is None:
        return None
    return {name: math.nan if value is None or not math.isfinite(value) else value for name, value in metrics.items()}
