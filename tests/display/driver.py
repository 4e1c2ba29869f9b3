"""A run as an observer hears it, without a run."""

from __future__ import annotations

from typing import Any

from fedft.rounds.progress import Observer

NAMES = ("north", "south", "university-hospital-of-the-far-east")


def record(round: int, **values: Any) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    plain = {
        "round": round, "task": "default", "updates": list(NAMES), "refused": {}, "missing": [], "evaluation": None,
        "tasks": None, "reference": None, "bytes_up": 3000, "bytes_down": 6000, "seconds": 2.5, "best": False,
    }  # fmt: skip
    return plain | values


def first_round(observer: Observer, *, rounds: int = 4, names: tuple[str, ...] = NAMES) -> None:
    """Up to the middle of round 1: the first has answered, the second trains, the third waits."""
    observer.run_started("hospitals", rounds, names)
    observer.evaluated(0, {"accuracy": 0.25, "loss": 1.5, "rows": 40})
    observer.round_started(1, rounds, names)
    observer.step(names[0], 5, 5)
    observer.answered(names[0], "update")
    observer.step(names[1], 2, 5)


def rest_of_first_round(observer: Observer) -> None:
    """The second refuses, the third does not answer; then the evaluation."""
    observer.answered(NAMES[1], "budget-exhausted")
    observer.answered(NAMES[2], "missing")
    observer.evaluated(1, {"accuracy": 0.5, "loss": 1.0, "rows": 40})
    for name, cap in zip(NAMES, (8.0, 2.0, 8.0), strict=True):
        observer.spent(name, 1.994, cap)
    sat_out = {"updates": [NAMES[0]], "refused": {NAMES[1]: "budget-exhausted"}, "missing": [NAMES[2]]}
    observer.round_finished(record(1, **sat_out, evaluation={"accuracy": 0.5, "loss": 1.0, "rows": 40}, best=True))
