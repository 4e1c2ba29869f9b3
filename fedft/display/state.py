"""What is known of a run so far, from the observer's events alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedft.display.words import quality_of
from fedft.rounds.progress import Observer

Figure = tuple[str, str]
"""A metric and the rows it is on: "" the coordinator's public rows, else a task's name or REFERENCE."""

REFERENCE = "reference"

Status = Literal["waiting", "training", "answered", "missing", "refused", "not asked"]


@dataclass
class InstitutionState:
    """One institution in the current round, and its account. ``reason``: a refusal's one word."""

    status: Status = "waiting"
    reason: str = ""
    done: int = 0
    total: int = 0
    asked: int = 0
    answered: int = 0
    epsilon: float | None = None
    cap: float | None = None


@dataclass
class RunState:
    name: str = ""
    rounds: int = 0
    round: int = 0
    finished: int = 0
    institutions: dict[str, InstitutionState] = field(default_factory=dict)
    cohort: tuple[str, ...] = ()
    quality: dict[Figure, list[tuple[int, float]]] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    best_round: int | None = None
    began: float = 0.0
    first_round: int | None = None
    first_round_began: float = 0.0

    def share_of_round(self) -> float:
        """How much of the current round is over, in [0, 1], counted in its institutions' steps."""
        if self.finished >= self.round or not self.cohort:
            return 0.0
        return sum(_share(self.institutions[name]) for name in self.cohort) / len(self.cohort)

    def share_of_run(self) -> float:
        return min(1.0, (self.finished + self.share_of_round()) / self.rounds) if self.rounds else 0.0

    def seconds_left(self, now: float) -> float | None:
        """From the pace since this process began its first round; None before there is one."""
        if self.first_round is None:
            return None
        over = self.finished + self.share_of_round() - (self.first_round - 1)
        if over < 0.2:
            return None
        return (now - self.first_round_began) / over * max(0.0, self.rounds - self.finished - self.share_of_round())


class Tracker(Observer):
    """Keeps a RunState up to date. A new run_started (the next variant) begins a new one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.state = RunState(began=clock())

    @property
    def elapsed(self) -> float:
        return self._clock() - self.state.began

    @property
    def left(self) -> float | None:
        return self.state.seconds_left(self._clock())

    def run_started(self, name: str, rounds: int, institutions: Sequence[str]) -> None:
        states = {institution: InstitutionState() for institution in institutions}
        self.state = RunState(name=name, rounds=rounds, institutions=states, began=self._clock())

    def round_started(self, round: int, rounds: int, cohort: Sequence[str]) -> None:
        state = self.state
        if state.first_round is None:
            state.first_round, state.first_round_began = round, self._clock()
        state.round, state.rounds, state.finished, state.cohort = round, rounds, round - 1, tuple(cohort)
        for name in cohort:
            self._institution(name).asked += 1
        for name, institution in state.institutions.items():
            institution.status = "waiting" if name in state.cohort else "not asked"
            institution.reason, institution.done, institution.total = "", 0, 0

    def step(self, institution: str, done: int, total: int) -> None:
        found = self._institution(institution)
        found.status, found.done, found.total = "training", done, total

    def answered(self, institution: str, outcome: str) -> None:
        found = self._institution(institution)
        if outcome == "update":
            found.status = "answered"
            found.answered += 1
        elif outcome == "missing":
            found.status = "missing"
        else:
            found.status, found.reason = "refused", outcome

    def evaluated(self, round: int, metrics: Mapping[str, float]) -> None:
        """Round 0 only: a later evaluation comes whole with the round's record."""
        if round == 0:
            self._add(0, "", metrics)

    def spent(self, institution: str, epsilon: float | None, cap: float | None) -> None:
        found = self._institution(institution)
        found.epsilon, found.cap = epsilon, cap

    def round_finished(self, record: Mapping[str, Any]) -> None:
        state = self.state
        state.finished = int(record["round"])
        state.bytes_up += int(record.get("bytes_up") or 0)
        state.bytes_down += int(record.get("bytes_down") or 0)
        if record.get("best"):
            state.best_round = state.finished
        self._add_evaluation(record)

    def _add_evaluation(self, record: Mapping[str, Any]) -> None:
        """The figures on public rows: by task, where a federation names tasks."""
        tasks: Mapping[str, Mapping[str, float]] = record.get("tasks") or {}
        if tasks:
            self._name_first_task(str(record["task"]))
            for task, metrics in tasks.items():
                self._add(self.state.finished, task, metrics)
        else:
            self._add(self.state.finished, "", record.get("evaluation") or {})
        self._add(self.state.finished, REFERENCE, record.get("reference") or {})

    def _name_first_task(self, task: str) -> None:
        """What was measured before round 1 was measured on the first task's rows."""
        quality = self.state.quality
        self.state.quality = {(metric, rows or task): points for (metric, rows), points in quality.items()}

    def _add(self, round: int, rows: str, metrics: Mapping[str, float]) -> None:
        for metric, value in quality_of(metrics).items():
            self.state.quality.setdefault((metric, rows), []).append((round, value))

    def _institution(self, name: str) -> InstitutionState:
        return self.state.institutions.setdefault(name, InstitutionState())


def _share(institution: InstitutionState) -> float:
    if institution.status in ("answered", "missing", "refused"):
        return 1.0
    return institution.done / institution.total if institution.total else 0.0
