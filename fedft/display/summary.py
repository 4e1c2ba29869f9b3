"""The end of a run in one view: quality, epsilon of each cap, what was sent, the checks, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedft.display.words import (
    cap_text,
    change,
    duration,
    epsilon_text,
    figure,
    is_improvement,
    quality_of,
    size,
)

Summary = Mapping[str, Any]


def checks_hold(summary: Summary) -> bool:
    """Whether everything the scenario announced came true."""
    return all(check["holds"] for check in summary.get("checks") or ())


def summary_view(summary: Summary) -> RenderableType:
    """``summary``: what summary.json holds."""
    variants: Mapping[str, Summary] = summary.get("variants") or {}
    parts: list[RenderableType] = [Text()]
    parts += _variants(variants) if variants else _one_run(summary)
    if summary.get("checks"):
        parts += [Text(), *map(_check, summary["checks"])]
    return Group(*parts, Text())


def next_steps(summary: Summary, folder: Path, log: Path) -> list[str]:
    """Where things are and what to do now, in whole lines that can be copied. ``folder``: the run's."""
    run = folder / next(iter(summary.get("variants") or {}), "")
    command = shlex.quote(str(run))
    return [
        f"report   {folder / 'report.html'}",
        f"adapter  {run / 'adapter'}",
        *([f"log      {log}"] if log.is_file() else []),
        f"next     fedft evaluate {command}",
        f"         fedft predict {command} TEXT",
        f"         fedft export {command} --to DIR",
    ]


def table(*heads: str, right: tuple[int, ...] = ()) -> Table:
    """The plain table of every view: no lines, quiet heads."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for number, head in enumerate(heads):
        made.add_column(head, justify="right" if number in right else "left", overflow="fold")
    return made


def _one_run(summary: Summary) -> Iterator[RenderableType]:
    ended = f", stopped early: {summary['stopped_early']}" if summary.get("stopped_early") else ""
    yield Text.assemble(
        (str(summary["name"]), "bold"),
        f": {summary['rounds_done']} rounds in {duration(summary.get('seconds') or 0.0)}{ended}",
    )
    yield Text()
    yield _quality(summary)
    yield Text()
    yield _institutions(summary["institutions"])
    yield Text()
    parts = [f"{size(summary.get('bytes_up') or 0)} up, {size(summary.get('bytes_down') or 0)} down"]
    if summary.get("parameters_trained") is not None:
        parts.append(f"{summary['parameters_trained']:,} parameters trained")
    yield Text("; ".join(parts), style="dim")


def _quality(summary: Summary) -> Table:
    best_round = summary.get("best_round")
    shown = table("on public data", "start", "end", "change", f"best (round {best_round})", right=(1, 2, 3, 4))
    start, final, best = (quality_of(summary.get(key)) for key in ("start", "final", "best"))
    for name, now in final.items():
        first = start.get(name)
        cells = [Text("-")] * 2 if first is None else [Text(figure(first)), _change(name, first, now)]
        kept = figure(best[name]) if name in best else "-"
        shown.add_row(name, cells[0], Text(figure(now), style="bold"), cells[1], kept)
    for task, value in _forgetting_by_task(summary).items():
        shown.add_row(f"forgetting, {task}", "", figure(value), "", "")
    return shown


def _institutions(institutions: Mapping[str, Summary]) -> Table:
    shown = table("institution", "updates", "sat out", "epsilon of cap", "delta")
    for name, found in institutions.items():
        epsilon = epsilon_text(found.get("epsilon"))
        account = f"{epsilon} of {cap_text(found.get('cap'))}" if found.get("epsilon") is not None else _asked(found)
        delta = f"{found['delta']:g}" if found.get("delta") is not None else "-"
        shown.add_row(name, str(found.get("rounds_answered", "-")), _sat_out(found), account, delta)
    return shown


def _variants(variants: Mapping[str, Summary]) -> Iterator[RenderableType]:
    names = sorted({name for summary in variants.values() for name in _forgetting_by_task(summary)})
    first = next(iter(variants.values()))
    metric = str(first["metric"])
    heads = ["variant", "rounds", f"{metric}: start", "end", "best", "highest epsilon", *(f"forgot {n}" for n in names)]
    shown = table(*heads, right=tuple(range(1, len(heads))))
    for name, summary in variants.items():
        values = [_value(summary.get(key), metric) for key in ("start", "final", "best")]
        forgot = _forgetting_by_task(summary)
        rounds, epsilon = str(summary["rounds_done"]), _highest_epsilon(summary)
        shown.add_row(name, rounds, *values, epsilon, *(figure(forgot[n]) if n in forgot else "-" for n in names))
    yield shown


def _check(check: Summary) -> Text:
    word, style = ("holds", "green") if check["holds"] else ("DOES NOT HOLD", "red")
    text = f"{word}: {check['figure']} {check['bound']}, found {_found(check.get('found'))}"
    return Text(text, style=style)


def _value(evaluation: object, metric: str) -> str:
    value = evaluation.get(metric) if isinstance(evaluation, Mapping) else None
    return figure(float(value)) if isinstance(value, int | float) else "-"


def _change(name: str, first: float, now: float) -> Text:
    return Text(change(first, now), style="green" if is_improvement(name, first, now) else "red")


def _forgetting_by_task(summary: Summary) -> dict[str, float]:
    found = summary.get("forgetting") or {}
    return {str(task): float(value) for task, value in found.items() if isinstance(value, int | float)}


def _highest_epsilon(summary: Summary) -> str:
    spent = [found.get("epsilon") for found in summary["institutions"].values()]
    known = [value for value in spent if value is not None]
    return epsilon_text(max(known)) if known else _asked(next(iter(summary["institutions"].values()), {}))


def _asked(found: Summary) -> str:
    """Of an institution elsewhere, whose own ledger says what it spent; or of one without privacy."""
    asked = found.get("epsilon_asked")
    return "no guarantee" if asked is None else f"at most {epsilon_text(asked)} asked for; spent: its own ledger"


def _sat_out(found: Summary) -> str:
    reasons = dict(found.get("refusals") or {})
    if found.get("rounds_missing"):
        reasons["missing"] = found["rounds_missing"]
    return ", ".join(f"{reason} x{count}" for reason, count in reasons.items()) or "-"


def _found(value: object) -> str:
    return figure(value) if isinstance(value, float) else str(value)
