"""Plots as inline SVG, without a library: lines, staircases and bars, with axes, ticks and labels beside the lines.

Colours are CSS classes s0..s5, whose values the page sets for light, dark and paper. They stay apart for colour-blind
readers, and lines differ in marker and dashes too. Guarantee: every text that goes in is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from fedft.report.axes import CHARACTER, Axes, nice_ticks, short, spread, widened, x_axis, y_tick

COLOURS = 6
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 5", "1 4")


@dataclass(frozen=True)
class Series:
    """A line. ``points``: (x, y) with x ascending, all finite. ``colour``: 0..5, or None for grey without a label."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int | None = 0
    is_step: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with, e.g. a cap."""

    y: float
    label: str


@dataclass(frozen=True)
class Band:
    """A stretch of the x axis, shaded in turn with its neighbours and named at the top."""

    start: float
    stop: float
    label: str


def line_plot(
    series: Sequence[Series],
    *,
    title: str,
    format_y: Callable[[float], str],
    x_label: str = "round",
    from_zero: bool = False,
    y_top: float | None = None,
    levels: Sequence[Level] = (),
    bands: Sequence[Band] = (),
    mark: tuple[float, str] | None = None,
    size: tuple[float, float] = (440, 250),
    label_lines: bool = True,
) -> str:
    """A figure with one line per series.

    Parameters
    ----------
    from_zero, y_top : begin the y axis at 0; make it reach at least this high
    mark : x and name of a moment to point out
    label_lines : write each line's name at its end
    """
    drawn = [line for line in series if line.points]
    if not drawn:
        return empty_figure(title)
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points] + [level.y for level in levels]
    ticks = nice_ticks(min([*ys, 0.0] if from_zero else ys), max([*ys] if y_top is None else [*ys, y_top]), 5)
    words = [format_y(tick) for tick in ticks]
    names = [short(line.name) for line in drawn if label_lines and line.colour is not None]
    axes = Axes(
        widened(min(xs), max(xs)),
        (ticks[0], ticks[-1]),
        *size,
        left=12 + CHARACTER * max(map(len, words)),
        right=12 + max((CHARACTER * len(name) + 10 for name in names), default=0),
    )
    parts = [_band(axes, band, number) for number, band in enumerate(bands)]
    parts += [y_tick(axes, tick, word) for tick, word in zip(ticks, words, strict=True)]
    parts += [x_axis(axes, x_label), *(_level(axes, level) for level in levels)]
    parts += [_mark(axes, *mark)] if mark else []
    parts += [_line(axes, line) for line in sorted(drawn, key=lambda line: line.colour is not None)]
    parts += _end_labels(axes, [line for line in drawn if line.colour is not None]) if label_lines else []
    return figure(title, _svg(axes, parts, title))


def bar_plot(
    stacks: Sequence[tuple[str, Sequence[float]]],
    *,
    categories: Sequence[int],
    title: str,
    format_y: Callable[[float], str],
    x_label: str = "round",
    size: tuple[float, float] = (440, 250),
) -> str:
    """Stacked bars over whole numbers; ``stacks``: name and one value per category, the lowest first."""
    if not categories or not stacks:
        return empty_figure(title)
    totals = [sum(values) for values in zip(*(values for _, values in stacks), strict=True)]
    ticks = nice_ticks(0.0, max(*totals, 0.0) if len(totals) > 1 else totals[0], 5)
    words = [format_y(tick) for tick in ticks]
    edges = (min(categories) - 0.6, max(categories) + 0.6)
    axes = Axes(edges, (ticks[0], ticks[-1]), *size, left=12 + CHARACTER * max(map(len, words)), right=12)
    parts = [y_tick(axes, tick, word) for tick, word in zip(ticks, words, strict=True)]
    half = min(18.0, 0.36 * (axes.x(1) - axes.x(0)))
    for position, category in enumerate(categories):
        height = 0.0
        for colour, (name, values) in enumerate(stacks):
            top, below = axes.y(height + values[position]), axes.y(height)
            height += values[position]
            hint = f"{x_label} {category}, {name}: {format_y(values[position])}"
            parts.append(
                f'<rect class="fill s{colour}" x="{axes.x(category) - half:.1f}" y="{top:.1f}" width="{2 * half:.1f}" '
                f'height="{max(below - top, 0):.1f}"><title>{escape(hint)}</title></rect>'
            )
    parts.append(x_axis(axes, x_label))
    legend = " ".join(f'<span class="key s{i}"></span>{escape(name)}' for i, (name, _) in enumerate(stacks))
    return figure(title, _svg(axes, parts, title), legend)


def row_plot(rows: Sequence[tuple[str, float]], *, title: str, format_x: Callable[[float], str]) -> str:
    """One horizontal bar per named value, from zero, its figure at its end."""
    if not rows:
        return empty_figure(title)
    names = [short(name, 24) for name, _ in rows]
    ticks = nice_ticks(min(0.0, *(value for _, value in rows)), max(0.0, *(value for _, value in rows)), 5)
    left = 14 + CHARACTER * max(map(len, names))
    height = 30.0 * len(rows) + 24
    axes = Axes((ticks[0], ticks[-1]), (0, len(rows)), 440, height, left=left, right=70, top=4, bottom=20)
    parts = []
    for position, (name, (full, value)) in enumerate(zip(names, rows, strict=True)):
        middle = axes.y(len(rows) - position - 0.5)
        start, stop = sorted((axes.x(0), axes.x(value)))
        parts.append(
            f'<text x="{left - 8:.1f}" y="{middle + 4:.1f}" text-anchor="end"><title>{escape(full)}</title>'
            f'{escape(name)}</text><rect class="fill s0" x="{start:.1f}" y="{middle - 9:.1f}" '
            f'width="{stop - start:.1f}" height="18"></rect>'
            f'<text class="strong" x="{stop + 6:.1f}" y="{middle + 4:.1f}">{escape(format_x(value))}</text>'
        )
    parts.append(f'<line class="axis" x1="{axes.x(0):.1f}" x2="{axes.x(0):.1f}" y1="4" y2="{axes.floor:.1f}"></line>')
    return figure(title, _svg(axes, parts, title))


def figure(title: str, body: str, legend: str = "") -> str:
    """``legend`` is HTML."""
    below = f'<p class="legend">{legend}</p>' if legend else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{body}{below}</figure>"


def empty_figure(title: str) -> str:
    return figure(title, '<p class="none">No figures recorded.</p>')


def _svg(axes: Axes, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {axes.width:.0f} {axes.height:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _line(axes: Axes, line: Series) -> str:
    points = [(axes.x(x), axes.y(y)) for x, y in line.points]
    if line.is_step:
        corners = [(x, before[1]) for before, (x, _) in pairwise(points)]
        points_and_corners = [points[0]]
        for corner, point in zip(corners, points[1:], strict=True):
            points_and_corners += [corner, point]
    else:
        points_and_corners = points
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points_and_corners)
    kind = "grey" if line.colour is None else f"s{line.colour % COLOURS}"
    dash = _DASHES[(line.colour or 0) % COLOURS]
    style = f' stroke-dasharray="{dash}"' if dash else ""
    marked = points if len(points) <= 30 else points[-1:]
    markers = "" if line.colour is None else "".join(_marker(x, y, line.colour) for x, y in marked)
    hint = f"<title>{escape(line.name)}</title>"
    return f'<g class="{kind}">{hint}<polyline class="line" points="{path}"{style}></polyline>{markers}</g>'


def _marker(x: float, y: float, colour: int) -> str:
    r = 3.2
    if colour % 3 == 0:
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{r}"></circle>'
    if colour % 3 == 1:
        return f'<rect class="dot" x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}"></rect>'
    corners = f"{x:.1f},{y - r - 1:.1f} {x - r - 0.6:.1f},{y + r:.1f} {x + r + 0.6:.1f},{y + r:.1f}"
    return f'<polygon class="dot" points="{corners}"></polygon>'


def _end_labels(axes: Axes, series: Sequence[Series]) -> list[str]:
    ends = [axes.y(line.points[-1][1]) for line in series]
    heights = spread(ends, 13.0, axes.top + 4, axes.floor)
    return [
        f'<text class="name s{(line.colour or 0) % COLOURS}" x="{axes.x(line.points[-1][0]) + 9:.1f}" '
        f'y="{height + 4:.1f}">{escape(short(line.name))}</text>'
        for line, height in zip(series, heights, strict=True)
    ]


def _level(axes: Axes, level: Level) -> str:
    y = axes.y(level.y)
    return (
        f'<line class="level" x1="{axes.left:.1f}" x2="{axes.width - axes.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"></line>'
        f'<text class="strong" x="{axes.left + 4:.1f}" y="{y - 4:.1f}">{escape(level.label)}</text>'
    )


def _band(axes: Axes, band: Band, number: int) -> str:
    start, stop = axes.x(max(band.start, axes.x_range[0])), axes.x(min(band.stop, axes.x_range[1]))
    return (
        f'<rect class="band{number % 2}" x="{start:.1f}" y="{axes.top:.1f}" width="{max(stop - start, 0):.1f}" '
        f'height="{axes.floor - axes.top:.1f}"></rect>'
        f'<text x="{(start + stop) / 2:.1f}" y="{axes.top + 12:.1f}" text-anchor="middle">{escape(short(band.label))}'
        "</text>"
    )


def _mark(axes: Axes, x: float, label: str) -> str:
    at = axes.x(x)
    return (
        f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{axes.top:.1f}" y2="{axes.floor:.1f}"></line>'
        f'<text x="{at - 4:.1f}" y="{axes.floor - 5:.1f}" text-anchor="end">{escape(label)}</text>'
    )
