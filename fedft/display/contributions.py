"""Whose updates are in which adapter, as a table, and what being without one would take."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedft.audit.contributions import Contributions
from fedft.audit.findings import rounds_text


def contributions_view(found: Contributions) -> RenderableType:
    """One institution a line."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    best, final = f"in the best (round {found.best_round})", f"in the last (round {found.rounds})"
    for head in ("institution", "its update is in", best, final, "newest state without it", "to train again"):
        table.add_column(head, overflow="fold")
    for one in found.institutions:
        rounds = rounds_text(one.rounds) if one.rounds else "no round"
        state = f"round {one.free}" if one.free else "the start"
        again = f"{one.again} round{'s' if one.again != 1 else ''}"
        table.add_row(one.institution, rounds, _yes(one.best), _yes(one.final), state, again)
    return Group(Text(f"{found.run}: {found.rounds} rounds", style="bold"), table, Text(_PRICE, style="dim"))


def _yes(there: bool) -> str:
    return "yes" if there else "no"


_PRICE = (
    "exported is the best; to be without NAME: fedft coordinate (or simulate) --resume RUN --without NAME, which "
    "trains anew from there in a folder of its own; what the others spent stays spent, and they are charged again"
)
