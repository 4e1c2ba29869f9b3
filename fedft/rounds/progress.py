"""What a run tells while it goes on: public figures and names only, to whoever watches.

Guarantee: nothing told here derives from private rows beyond what was released: names, counts of steps, outcomes of one
word, figures on public data, and epsilons, which are derived from the ledger's events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Observer:
    """Hears every event and does nothing; a display overrides what it shows.

    Rounds are counted from 1, and round 0 is the state before the first. A resumed run begins at a later round.
    ``metrics``: names to numbers, as evaluation/quality.py makes them. ``cap`` is None without a privacy budget.
    """

    def run_started(self, name: str, rounds: int, institutions: Sequence[str]) -> None: ...

    def round_started(self, round: int, rounds: int, cohort: Sequence[str]) -> None: ...

    def step(self, institution: str, done: int, total: int) -> None:
        """``done`` of the round's ``total`` local steps are over."""

    def answered(self, institution: str, outcome: str) -> None:
        """``outcome``: "update", "missing", or a refusal's one word (update/release.py, REASONS)."""

    def evaluated(self, round: int, metrics: Mapping[str, float]) -> None: ...

    def spent(self, institution: str, epsilon: float | None, cap: float | None) -> None:
        """Epsilon spent so far by the institution's data set, over all runs. None: it keeps no account."""

    def round_finished(self, record: Mapping[str, Any]) -> None:
        """``record``: the round's line of metrics.jsonl."""

    def run_finished(self, summary: Mapping[str, Any]) -> None:
        """``summary``: what summary.json holds."""
