"""How good the model was round by round, and what it forgot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fedft.audit.folder import Body, Run, number, part
from fedft.report.page import capitalized, cell, marked, paragraph, subsection, table
from fedft.report.svg import COLOURS, Band, Series, line_plot
from fedft.report.words import SHARES, axis_text, metric_name, metric_text

_CONVENTION = (
    "Of an earlier task: the best value reached before, minus the value at the end. Of the reference set: the value "
    "before training, minus the value at the end. Positive is worse, whichever way the metric counts."
)
_Points = Callable[[Run, str], tuple[tuple[float, float], ...]]
_Mark = tuple[float, str] | None


def quality(run: Run) -> str:
    """Metrics on the coordinator's rows by round; with several tasks a line for each."""
    best = number(run.summary.get("best_round"))
    mark = (best, "best") if best else None
    tasks = list(dict.fromkeys(task for record in run.rounds for task in part(record, "tasks")))
    if tasks:
        figures = [_task_figure(run, tasks, metric, mark) for metric in metrics_of(run, "evaluation")]
    else:
        figures = _figures(run, metrics_of(run, "evaluation"), _evaluated, "", mark)
    if not figures:
        return subsection("Quality per round", paragraph("Nothing was evaluated.", "note"))
    intro = "Measured by the coordinator on its own public rows. Round 0 is the adapter before training."
    return subsection("Quality per round", paragraph(intro, "note"), f'<div class="grid2">{"".join(figures)}</div>')


def forgotten(run: Run) -> str:
    """What the model knew before and no longer does: the reference set and earlier tasks."""
    figures = _figures(run, metrics_of(run, "reference"), _reference, " on the reference set", None)
    lost = {key: number(value) for key, value in part(run.summary, "forgetting").items()}
    metric = run.metric or ""
    rows = [
        [cell(key), marked(points_text(metric, value), "bad" if value > 0 else "good"), _verdict(value)]
        for key, value in lost.items()
        if value is not None
    ]
    if not figures and not rows:
        return ""
    return subsection(
        "Forgetting",
        paragraph(_CONVENTION, "note"),
        table(("What", f"Forgetting ({metric_name(metric)})", ""), rows, numeric=(1,)),
        f'<div class="grid2">{"".join(figures)}</div>' if figures else "",
    )


def points_text(metric: str, value: float) -> str:
    """A difference between two values of a metric."""
    text = f"{100 * value:+.1f}\N{NO-BREAK SPACE}points" if metric in SHARES else f"{value:+.4g}"
    return text.replace("-", "\N{MINUS SIGN}", 1)


def _figures(run: Run, metrics: Sequence[str], points_of: _Points, where: str, mark: _Mark) -> list[str]:
    """One plot for the metrics that are shares, and one for each other."""
    shares = [metric for metric in metrics if metric in SHARES]
    groups = [shares, *([metric] for metric in metrics if metric not in SHARES)]
    return [
        line_plot(
            [_ending(metric, points_of(run, metric), len(group) > 1, colour) for colour, metric in enumerate(group)],
            title=capitalized(" and ".join(map(metric_name, group)) + where),
            format_y=axis_text(group[0]),
            bands=task_bands(run),
            mark=mark,
        )
        for group in groups
        if group
    ]


def _task_figure(run: Run, tasks: Sequence[str], metric: str, mark: _Mark) -> str:
    lines = [Series(task, _task_points(run, task, metric), i % COLOURS) for i, task in enumerate(tasks)]
    title = f"{capitalized(metric_name(metric))} of each task"
    return line_plot(lines, title=title, format_y=axis_text(metric), bands=task_bands(run), mark=mark)


def _ending(metric: str, points: tuple[tuple[float, float], ...], is_named: bool, colour: int) -> Series:
    """A line that carries its last value, and its name where it is not alone."""
    value = metric_text(metric, points[-1][1]) if points else ""
    return Series(f"{metric_name(metric)} {value}" if is_named else value, points, colour)


def series_of(run: Run, name: str, metric: str, colour: int | None) -> Series:
    """A run's line in a comparison."""
    return Series(name, _evaluated(run, metric), colour)


def task_bands(run: Run) -> list[Band]:
    """Which rounds trained which task; nothing when there is one task only."""
    bands: list[Band] = []
    for record in run.rounds:
        at, task = number(record.get("round")), str(record.get("task"))
        if at is None:
            continue
        if bands and bands[-1].label == task:
            bands[-1] = Band(bands[-1].start, at + 0.5, task)
        else:
            bands.append(Band(at - 0.5, at + 0.5, task))
    return bands if len({band.label for band in bands}) > 1 else []


def metrics_of(run: Run, key: str) -> list[str]:
    """Which metrics the rounds have under ``key``, in a fixed order."""
    found = dict.fromkeys(name for record in run.rounds for name in part(record, key))
    return [name for name in ("accuracy", "macro_f1", "loss", "perplexity") if name in found]


def _evaluated(run: Run, metric: str) -> tuple[tuple[float, float], ...]:
    return _points_of(
        [(0, part(run.summary, "start")), *((r.get("round"), part(r, "evaluation")) for r in run.rounds)], metric
    )


def _reference(run: Run, metric: str) -> tuple[tuple[float, float], ...]:
    start = part(part(run.summary, "reference"), "start")
    return _points_of([(0, start), *((r.get("round"), part(r, "reference")) for r in run.rounds)], metric)


def _task_points(run: Run, task: str, metric: str) -> tuple[tuple[float, float], ...]:
    return _points_of(((r.get("round"), part(part(r, "tasks"), task)) for r in run.rounds), metric)


def _points_of(pairs: Iterable[tuple[object, Body]], metric: str) -> tuple[tuple[float, float], ...]:
    found = ((number(at), number(metrics.get(metric))) for at, metrics in pairs)
    return tuple((x, y) for x, y in found if x is not None and y is not None)


def _verdict(value: float) -> str:
    return "forgotten" if value > 0 else "not forgotten"
