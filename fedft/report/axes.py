"""The frame of a plot: the map from data to SVG units, ticks at round numbers, and names kept apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CHARACTER = 6.3
"""Mean width of a character at the plots' font size, in SVG units; text is not measured, only given room."""


@dataclass(frozen=True)
class Axes:
    """The frame of a plot and the map from data to SVG units."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: float
    height: float
    left: float
    right: float
    top: float = 12.0
    bottom: float = 34.0

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)

    @property
    def floor(self) -> float:
        return self.height - self.bottom


def nice_ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """About ``count`` ticks in steps of 1, 2 or 5 times a power of ten; the first and last enclose low and high."""
    if high - low < 1e-12 * max(abs(low), abs(high), 1.0):
        pad = max(abs(low) * 0.1, 1e-3)
        low, high = (low - pad if low else low), high + pad
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions moved so that neighbours are ``gap`` apart, within [low, high] if there is room."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    placed: list[float] = []
    for index in order:
        placed.append(max(positions[index], placed[-1] + gap if placed else low))
    overflow = (placed[-1] - high) if placed else 0.0
    for number in range(len(placed) - 1, -1, -1):
        ceiling = high if number == len(placed) - 1 else placed[number + 1] - gap
        placed[number] = min(placed[number], ceiling) if overflow > 0 else placed[number]
    moved = dict(zip(order, placed, strict=True))
    return [moved[i] for i in range(len(positions))]


def y_tick(axes: Axes, tick: float, word: str) -> str:
    y = axes.y(tick)
    return (
        f'<line class="grid" x1="{axes.left:.1f}" x2="{axes.width - axes.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"></line>'
        f'<text x="{axes.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(word)}</text>'
    )


def x_axis(axes: Axes, label: str) -> str:
    low, high = axes.x_range
    room = max(2, int((axes.width - axes.left - axes.right) / 34))
    ticks = [t for t in nice_ticks(math.ceil(low), math.floor(high), room, whole=True) if low <= t <= high]
    parts = [
        f'<line class="axis" x1="{axes.x(t):.1f}" x2="{axes.x(t):.1f}" y1="{axes.floor:.1f}" y2="{axes.floor + 4:.1f}">'
        f'</line><text x="{axes.x(t):.1f}" y="{axes.floor + 16:.1f}" text-anchor="middle">{t:.0f}</text>'
        for t in ticks
    ]
    end = axes.width - axes.right
    line = f'<line class="axis" x1="{axes.left:.1f}" x2="{end:.1f}" y1="{axes.floor:.1f}" y2="{axes.floor:.1f}"></line>'
    middle = (axes.left + end) / 2
    name = f'<text x="{middle:.1f}" y="{axes.height - 4:.1f}" text-anchor="middle">{escape(label)}</text>'
    return line + "".join(parts) + name


def widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 1, high + 1)


def short(name: str, limit: int = 18) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
