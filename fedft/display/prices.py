"""The price list on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from fedft.audit.prices import Priced, PriceList, title
from fedft.display.summary import table
from fedft.display.words import epsilon_text

_NOTE = (
    "epsilon for adding or removing one unit, of the training steps alone; fedft plan says it for one federation file, "
    "with what else that asks for"
)


def prices_view(found: PriceList) -> RenderableType:
    head = f"epsilon at delta {found.delta:g}, {found.local_steps} local steps a round"
    spent = f"; {epsilon_text(found.spent)} was spent before and counts in every figure" if found.spent else ""
    return Group(Text(head + spent, style="bold"), *_settings(found), Text(), Text(_NOTE, style="dim"))


def _settings(found: PriceList) -> Iterator[RenderableType]:
    for priced in found.priced:
        yield Text()
        yield Text(title(priced.setting))
        if priced.refusal is not None:
            yield Text(f"refused: {priced.refusal}", style="yellow")
        else:
            yield _table(found, priced)


def _table(found: PriceList, priced: Priced) -> RenderableType:
    heads = ("noise", *(f"after {done:,}" for done in found.rounds))
    made = table(*heads, right=tuple(range(len(heads))))
    for noise, row in zip(found.noises, priced.epsilons, strict=True):
        made.add_row(f"{noise:g}", *("infinite" if math.isinf(value) else epsilon_text(value) for value in row))
    if found.wanted is not None:
        least = ("none" if noise is None else f"{noise:.3f}" for noise in priced.least_noise)
        made.add_row(f"noise for {found.wanted:g}", *least, style="bold")
    return made
