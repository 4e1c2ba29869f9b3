"""Which display a console can carry."""

from __future__ import annotations

import os

from rich.console import Console

from fedft.display.live import LiveDisplay
from fedft.display.plain import PlainDisplay


def make_display(console: Console, *, plain: bool) -> LiveDisplay | PlainDisplay:
    """The live one on a terminal that moves its cursor and may use colour; plain lines on request and anywhere else."""
    unable = not console.is_terminal or console.is_dumb_terminal or bool(os.environ.get("NO_COLOR"))
    return PlainDisplay(console) if plain or unable else LiveDisplay(console)
