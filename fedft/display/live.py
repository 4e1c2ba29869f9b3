"""The live display: the run, its institutions and the quality on public data, redrawn in place."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from fedft.display.state import InstitutionState, RunState, Tracker
from fedft.display.words import (
    bar,
    cap_text,
    change,
    duration,
    epsilon_text,
    figure,
    is_improvement,
    size,
    sparkline,
)

_STYLES = {
    "waiting": "dim", "not asked": "dim", "training": "cyan", "answered": "green", "missing": "magenta",
    "refused": "yellow",
}  # fmt: skip
_OTHER_LINES = 9
"""Lines of the display that are neither institutions nor figures of quality."""

_PROGRESS, _LABEL = 25, 13
"""Widths: of what an institution does now ("refused: budget-exhausted"), and of its account ("12.34 of 8")."""


class LiveDisplay(Tracker):
    """Redraws itself while it is entered. Vanishes at a normal end, where the summary follows; stays after an error."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._live = Live(self, console=console, refresh_per_second=5, transient=False)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self._live.transient = kind is None or not self.state.rounds
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, plain = min(options.max_width, 120), options.ascii_only
        height = console.height if console.is_terminal else 10_000
        room = max(3, height - _OTHER_LINES - len(self.state.quality))
        yield self._header(width, plain)
        if not self.state.rounds:
            return
        yield Group(
            Text(),
            _institutions(self.state, width, room, plain),
            Text(),
            _quality(self.state, width, plain),
            _traffic(self.state),
        )

    def _header(self, width: int, ascii_only: bool) -> Group:
        state, left = self.state, self.left
        if not state.rounds:
            return Group(Text(f"loading libraries, data and model: {duration(self.elapsed)}", style="dim"))
        times = f"{duration(self.elapsed)} elapsed"
        if left is not None:
            times += f", about {duration(left)} left"
        title = Table.grid(Column(ratio=1, no_wrap=True, overflow="ellipsis"), Column(no_wrap=True), expand=False)
        title.width = width
        title.add_row(Text(state.name, style="bold"), Text(times, style="dim"))
        label = f"round {state.round} of {state.rounds}  " if state.round else "before round 1  "
        full, rest = bar(state.share_of_run(), width - len(label), ascii_only=ascii_only)
        return Group(title, Text.assemble(label, (full, "cyan"), (rest, "dim"), no_wrap=True))


def _institutions(state: RunState, width: int, room: int, ascii_only: bool) -> Group:
    accounts = any(found.cap is not None or found.epsilon is not None for found in state.institutions.values())
    name_width = min(max([11, *map(len, state.institutions)]), width // 4 - 2)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("institution", width=name_width, no_wrap=True, overflow="ellipsis")
    table.add_column("this round", width=_PROGRESS, no_wrap=True, overflow="ellipsis")
    table.add_column("rounds", width=7, no_wrap=True)
    bars = min(24, width - name_width - _PROGRESS - 7 - 4 * 2 - _LABEL)
    if accounts:
        table.add_column("epsilon spent of cap", no_wrap=True, overflow="ellipsis")
    names = list(state.institutions)
    start, shown = _window(state, names, room)
    for name in names[start : start + shown]:
        found = state.institutions[name]
        cells = [Text(name), _progress(found, ascii_only), Text(f"{found.answered}/{found.asked}", style="dim")]
        table.add_row(*cells, *([_account(found, bars, ascii_only)] if accounts else []))
    return Group(table, *([_counts(state, len(names) - shown)] if shown < len(names) else []))


def _window(state: RunState, names: list[str], room: int) -> tuple[int, int]:
    """First position and number of the institutions there is room for, around the one in training."""
    if len(names) <= room:
        return 0, len(names)
    shown = room - 1
    training = [number for number, name in enumerate(names) if state.institutions[name].status == "training"]
    centre = training[0] if training else 0
    return min(max(0, centre - shown // 2), len(names) - shown), shown


def _counts(state: RunState, hidden: int) -> Text:
    statuses = [found.status for found in state.institutions.values()]
    counts = ", ".join(f"{statuses.count(word)} {word}" for word in _STYLES if word in statuses)
    return Text(f"and {hidden} more; of all {counts}", style="dim")


def _progress(found: InstitutionState, ascii_only: bool) -> Text:
    style = _STYLES[found.status]
    if found.status == "refused":
        return Text(f"refused: {found.reason}", style=style)
    if found.status != "training":
        return Text(found.status, style=style)
    steps = f" {found.done}/{found.total}"
    full, rest = bar(found.done / max(1, found.total), _PROGRESS - len("training ") - len(steps), ascii_only=ascii_only)
    return Text.assemble(("training ", style), (full, style), (rest, "dim"), steps)


def _account(found: InstitutionState, width: int, ascii_only: bool) -> Text:
    label = f"{epsilon_text(found.epsilon)} of {cap_text(found.cap)}" if found.epsilon is not None else "-"
    if found.epsilon is None or found.cap is None:
        return Text(label)
    share = found.epsilon / found.cap
    full, rest = bar(share, width, ascii_only=ascii_only)
    style = "red" if share >= 0.95 else "yellow" if share >= 0.75 else "green"
    return Text.assemble(f"{label:<{_LABEL}}", (full, style), (rest, "dim"))


def _quality(state: RunState, width: int, ascii_only: bool) -> Table | Text:
    if not state.quality:
        return Text("no evaluation on public data yet", style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("on public data", no_wrap=True, overflow="ellipsis", max_width=width // 3)
    for head in ("first", "now", "change"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("" if ascii_only else "by evaluation", no_wrap=True)
    for (metric, rows), points in state.quality.items():
        values = [value for _, value in points]
        first, now = values[0], values[-1]
        style = "green" if is_improvement(metric, first, now) else "red" if now != first else "dim"
        line = "" if ascii_only else sparkline(values, max(8, width // 3))
        label = f"{metric}{f', {rows}' if rows else ''}"
        table.add_row(label, figure(first), Text(figure(now), style="bold"), Text(change(first, now), style), line)
    return table


def _traffic(state: RunState) -> Text:
    if not state.bytes_up:
        return Text()
    best = f", best so far: round {state.best_round}" if state.best_round is not None else ""
    return Text(f"sent {size(state.bytes_up)} up, {size(state.bytes_down)} down{best}", style="dim")
