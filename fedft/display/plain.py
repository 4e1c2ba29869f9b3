"""Plain lines, for a log file, a pipe or a terminal without cursor movement: one per round, one per evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from rich.console import Console

from fedft.display.state import InstitutionState, Tracker
from fedft.display.words import cap_text, change, duration, epsilon_text, figure, size


class PlainDisplay(Tracker):
    """Prints a line when something is over; never wraps, never moves the cursor."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def run_started(self, name: str, rounds: int, institutions: Sequence[str]) -> None:
        super().run_started(name, rounds, institutions)
        self._line(f"{name}: {rounds} rounds with {len(institutions)} institutions: {', '.join(institutions)}")

    def evaluated(self, round: int, metrics: Mapping[str, float]) -> None:
        super().evaluated(round, metrics)
        if round == 0:
            self._quality(0)

    def round_finished(self, record: Mapping[str, Any]) -> None:
        super().round_finished(record)
        parts = [f"{len(record['updates'])} of {len(self.state.cohort)} updates"]
        refused: Mapping[str, str] = record.get("refused") or {}
        if refused:
            parts.append("refused: " + ", ".join(f"{name} ({reason})" for name, reason in refused.items()))
        if record.get("missing"):
            parts.append("missing: " + ", ".join(record["missing"]))
        parts += self._account()
        parts.append(f"{size(record.get('bytes_up') or 0)} up")
        parts.append(f"{record.get('seconds') or 0.0:.1f} s")
        left = self.left
        if left is not None and self.state.finished < self.state.rounds:
            parts.append(f"about {duration(left)} left")
        self._line(f"{self._where(self.state.finished)}: {'; '.join(parts)}")
        self._quality(self.state.finished)

    def _quality(self, round: int) -> None:
        """The evaluation of this round, where there was one."""
        known = self.state.quality.items()
        found = [_with_change(*key, points) for key, points in known if points[-1][0] == round]
        if found:
            self._line(f"{self._where(round)}: on public data {', '.join(found)}")

    def _account(self) -> list[str]:
        """The institution that is nearest to its cap."""
        spending = [(name, found) for name, found in self.state.institutions.items() if found.epsilon is not None]
        if not spending:
            return []
        name, found = max(spending, key=lambda pair: _share_spent(pair[1]))
        return [f"epsilon {epsilon_text(found.epsilon)} of {cap_text(found.cap)} at {name}, the most spent"]

    def _where(self, round: int) -> str:
        return f"round {round} of {self.state.rounds}"

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


def _share_spent(institution: InstitutionState) -> float:
    return (institution.epsilon or 0.0) / (institution.cap or 1.0)


def _with_change(metric: str, rows: str, points: Sequence[tuple[int, float]]) -> str:
    (first_round, first), (_, now) = points[0], points[-1]
    changed = f" ({change(first, now)} since round {first_round})" if len(points) > 1 else ""
    return f"{metric}{f' on {rows}' if rows else ''} {figure(now)}{changed}"
