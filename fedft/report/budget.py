"""Epsilon round by round against its cap, and what the ledgers in a run's folder say about it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fedft.audit.accounts import TOLERANCE
from fedft.audit.folder import LedgerView, Run, number, part
from fedft.report.page import as_epsilon, as_number, cell, marked, paragraph, section, table
from fedft.report.svg import Level, Series, line_plot
from fedft.report.words import cap_of, epsilon_text, institutions

_PANELS = 12
_ELSEWHERE = (
    "What each institution has spent, over all its runs, is in its own ledger, which stays with it: fedft ledger show "
    "says it there. This run asked each to stay within the ε of the table above; none answers beyond its own policy."
)


def budget(run: Run) -> str:
    """Epsilon after each round against its cap, and what the ledgers in the folder say."""
    if run.is_elsewhere and not run.is_unprotected:
        return section("Privacy budget per round", paragraph(_ELSEWHERE))
    if run.is_unprotected or not any(part(record, "epsilon") for record in run.rounds):
        return section("Privacy budget per round", _ledger_table(run))
    spent = {name: _spent(run, name) for name in run.institutions}
    caps = {name: cap_of(run, name) for name in run.institutions}
    shown = sorted(spent, key=lambda name: -_share(spent[name], caps[name]))[:_PANELS]
    top = max([value for name in shown for value in (caps[name] or 0.0, *(y for _, y in spent[name]))], default=1.0)
    panels = [_panel(name, spent[name], caps[name], top) for name in spent if name in shown]
    left_out = len(spent) - len(shown)
    note = f"The {_PANELS} institutions nearest to their cap; {left_out} others are in the table above."
    return section(
        "Privacy budget per round",
        f'<div class="grid4">{"".join(panels)}</div>',
        paragraph(note, "note") if left_out else "",
        _ledger_table(run),
    )


def _spent(run: Run, name: str) -> list[tuple[float, float]]:
    pairs = ((number(record.get("round")), number(part(record, "epsilon").get(name))) for record in run.rounds)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _share(spent: Sequence[tuple[float, float]], cap: float | None) -> float:
    return spent[-1][1] / cap if spent and cap else 0.0


def _panel(name: str, spent: Sequence[tuple[float, float]], cap: float | None, top: float) -> str:
    title = f"{name}: {as_epsilon(spent[-1][1])}" if spent else f"{name}: nothing spent"
    return line_plot(
        [Series(name, tuple(spent), 0, is_step=True)],
        title=title + (f" of {as_epsilon(cap)}" if cap is not None else ""),
        format_y=as_number,
        from_zero=True,
        y_top=top,
        levels=[] if cap is None else [Level(cap, "cap")],
        size=(230, 170),
        label_lines=False,
    )


def disagreements(run: Run) -> list[str]:
    """Where a finished run states another epsilon than its ledger amounts to."""
    return [
        f"{view.institution}: the run states ε = {epsilon_text(stated)}, its ledger amounts to {epsilon_text(found)}."
        for view in run.ledgers
        for stated, found in [_stated_and_found(run, view)]
        if run.summary and not _agree(stated, found)
    ]


def _ledger_table(run: Run) -> str:
    rows = [row for view in run.ledgers if not view.problem for row in _ledger_rows(run, view)]
    if not rows:
        return paragraph("No ledger in this folder: budgets are kept elsewhere, or were not kept.", "note")
    head = ("Ledger of", "Data set", "Events", "ε again", "Agrees", "Entries", "First (UTC)", "Last (UTC)", "Head")
    return (
        "<h3>What the ledgers say</h3>"
        + paragraph("Each ledger's hash chain was checked, and epsilon computed again from its events.", "note")
        + table(head, rows, numeric=(2, 3, 5))
    )


def _ledger_rows(run: Run, view: LedgerView) -> list[list[str]]:
    stated, found = _stated_and_found(run, view)
    verdict = marked("yes", "good") if _agree(stated, found) else marked("no", "bad")
    if not run.summary and not _agree(stated, found):
        verdict = "ahead: the last round was charged and did not finish"
    rows = []
    for dataset, (events, epsilon) in view.datasets.items():
        is_own = dataset == view.own_dataset and stated is not None
        rows.append(
            [
                cell(view.institution),
                cell(dataset),
                cell(events),
                cell(None if epsilon is None else epsilon_text(epsilon)),
                verdict if is_own else cell(None),
                cell(view.entries),
                _time(view.first_time),
                _time(view.last_time),
                f"<code>{escape(view.head[:12])}</code>",
            ]
        )
    return rows


def _stated_and_found(run: Run, view: LedgerView) -> tuple[float | None, float | None]:
    stated = institutions(run).get(view.institution, {}).get("epsilon")
    _, found = view.datasets.get(view.own_dataset, (0, None))
    return (float(stated) if isinstance(stated, int | float) else None), found


def _agree(stated: float | None, found: float | None) -> bool:
    return stated is None or found is None or stated == found or abs(stated - found) <= TOLERANCE


def _time(time_utc: str) -> str:
    return f'<span class="t">{escape(time_utc.replace("T", " ").rstrip("Z"))}</span>'
