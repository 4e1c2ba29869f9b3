"""Numbers as a person reads them: figures, durations, sizes, bars and sparklines. Nothing here knows a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

QUALITY = ("accuracy", "macro_f1", "loss", "perplexity")
"""The metrics a display shows, in this order, where a run has them."""

LOWER_IS_BETTER = frozenset({"loss", "perplexity", "forgetting"})

_BLOCKS = "▁▂▃▄▅▆▇█"


def figure(value: float) -> str:
    """Four significant digits below a thousand, whole numbers above."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        decimals = max(0, 3 - max(0, math.floor(math.log10(abs(value))))) if value else 3
        return f"{value:.{decimals}f}"
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.2e}"


def change(start: float, now: float) -> str:
    """The signed difference, "+0.120"."""
    text = figure(now - start)
    return text if text.startswith("-") else f"+{text}"


def is_improvement(metric: str, start: float, now: float) -> bool:
    return now < start if metric in LOWER_IS_BETTER else now > start


def epsilon_text(epsilon: float | None) -> str:
    """Two decimals, rounded up: what is shown is never below what was spent."""
    if epsilon is None:
        return "-"
    if math.isinf(epsilon):
        return "no guarantee"
    return f"{math.ceil(round(epsilon * 100, 6)) / 100:.2f}"


def cap_text(cap: float | None) -> str:
    return "no cap" if cap is None else f"{cap:g}"


def duration(seconds: float) -> str:
    """ "0:42", "12:05", "3:07:41"."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(count: float) -> str:
    """Bytes in decimal units: "1.2 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def bar(fraction: float, width: int, *, ascii_only: bool = False) -> tuple[str, str]:
    """The full and the empty part of a bar of ``width`` characters; full only at 1."""
    full, empty = ("#", "-") if ascii_only else ("━", "─")
    share = min(1.0, max(0.0, fraction))
    filled = math.floor(share * width + 1e-9)
    return full * filled, empty * (width - filled)


def sparkline(values: Sequence[float], width: int) -> str:
    """The last ``width`` values between their lowest and highest; gaps where a value is not finite."""
    shown = list(values)[-width:]
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    top = len(_BLOCKS) - 1
    heights = [round((value - low) / span * top) if span and math.isfinite(value) else 0 for value in shown]
    return "".join(
        _BLOCKS[height] if math.isfinite(value) else " " for height, value in zip(heights, shown, strict=True)
    )


def quality_of(metrics: Mapping[str, object] | None) -> dict[str, float]:
    """The metrics a display shows, out of all that an evaluation holds."""
    found = {name: (metrics or {}).get(name) for name in QUALITY}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
