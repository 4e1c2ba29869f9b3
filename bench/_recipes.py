"""What is played in each cell of utility.py: overrides of the scenario files by data set, method and epsilon.

Methods: fedavg, ffa_lora and fed_svd adapt the encoder's last layer and train the head; "head" is the same federation
with the head alone, same schedule and clip norm. That schedule is short, for a CPU. "head-best" is the head alone with
the schedule that suits it, since on frozen features steps and large batches cost next to nothing; "fed_svd-best" is the
adapter with that schedule, 3 to 20 times the work of the short one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EPSILONS = ("off", "8", "3", "1")
PARTITIONS: Mapping[str, tuple[str, ...]] = {"banking77": ("iid", "dirichlet"), "mts_dialog": ("iid",)}
METHODS: Mapping[str, tuple[str, ...]] = {
    "banking77/iid": ("head-best", "head", "fed_svd", "ffa_lora", "fedavg", "fed_svd-best"),
    "banking77/dirichlet": ("head-best", "head", "fed_svd"),
    "mts_dialog/iid": ("head-best", "head", "fed_svd", "ffa_lora", "fedavg"),
}
GOALS: Mapping[tuple[str, str], float] = {
    ("banking77/iid", "off"): 0.91,
    ("banking77/iid", "8"): 0.87,
    ("banking77/iid", "3"): 0.82,
    ("banking77/iid", "1"): 0.64,
}


@dataclass(frozen=True)
class Schedule:
    """Rounds; expected batch; learning rate of SGD; clip norm (without privacy unused); steps of a round."""

    rounds: int
    batch: int
    learning_rate: float
    clip_norm: float = 1.0
    local_steps: int = 1


SCHEDULES: Mapping[str, Mapping[str, Mapping[str, Schedule]]] = {
    "banking77": {
        "best": {
            "off": Schedule(60, 750, 20.0, local_steps=4),
            "8": Schedule(60, 2000, 60.0),
            "3": Schedule(24, 2000, 25.0, 2.0),
            "1": Schedule(8, 2000, 20.0, 2.0),
        },
        "short": {
            "off": Schedule(40, 500, 25.0),
            "8": Schedule(16, 625, 40.0, 2.0),
            "3": Schedule(12, 500, 30.0, 2.0),
            "1": Schedule(8, 625, 16.0, 2.0),
        },
    },
    "mts_dialog": {
        "best": {
            "off": Schedule(40, 160, 15.0),
            "8": Schedule(40, 260, 5.0, 2.0),
            "3": Schedule(10, 260, 8.0, 2.0),
            "1": Schedule(6, 260, 6.0, 2.0),
        },
        "short": {
            "off": Schedule(24, 80, 15.0),
            "8": Schedule(16, 160, 10.0, 2.0),
            "3": Schedule(10, 160, 8.0, 2.0),
            "1": Schedule(6, 160, 6.0, 2.0),
        },
    },
}
COMMON = (
    'task.head_start="label-names"',
    'training.optimizer="sgd"',
    'training.scheduler="linear"',
)
SMALLEST: Mapping[str, int] = {"iid": 1 << 30, "dirichlet": 1700}
"""An upper bound of the expected batch: some institution has few more rows than this."""
ALPHA: Mapping[str, tuple[str, ...]] = {
    "fed_svd": (),
    "ffa_lora": ("adapter.alpha=8.3",),
    "fedavg": ("adapter.alpha=0.8",),
}
"""The scenarios have 4.8. Rows of a Kaiming-uniform A are shorter than orthonormal ones by the root of 3, for which
ffa_lora makes up. With fedavg noise enters both factors and its square ends the encoder at that scale (LAB.md)."""
DIRICHLET = 'data.partition={ method = "dirichlet", alpha = 0.5, institutions = 4 }'


ADAPTER_RATES: Mapping[tuple[str, str], float] = {("mts_dialog", "off"): 7.5}
"""Where the head's rate is too high for an adapter: chosen on a sixth of the training rows, held out (LAB.md)."""


def overrides_of(data: str, partition: str, method: str, epsilon: str, seed: int) -> tuple[str, ...]:
    schedule = SCHEDULES[data]["best" if method.endswith("-best") else "short"][epsilon]
    rate = schedule.learning_rate
    if not method.startswith("head"):
        rate = ADAPTER_RATES.get((data, epsilon), rate)
    return (
        f"federation.seed={seed}",
        *COMMON,
        f"federation.rounds={schedule.rounds}",
        f"evaluation.every={schedule.rounds}",
        f"training.local_steps={schedule.local_steps}",
        f"training.batch_size={min(schedule.batch, SMALLEST[partition])}",
        f"training.learning_rate={rate}",
        *((DIRICHLET,) if partition == "dirichlet" else ()),
        *_privacy(epsilon, schedule.clip_norm),
        *_adapter(method),
    )


def _privacy(epsilon: str, clip_norm: float) -> tuple[str, ...]:
    if epsilon == "off":
        return ('privacy.mode="off"',)
    return (f"privacy.epsilon={epsilon}", f"privacy.clip_norm={clip_norm}")


def _adapter(method: str) -> tuple[str, ...]:
    if method.startswith("head"):
        return (
            'adapter.method="head"',
            'aggregation.method="fedavg"',
            "training.physical_batch_size=128",
            'training.precision="float32"',
        )
    method = method.removesuffix("-best")
    return (f'aggregation.method="{method}"', *ALPHA[method])
