"""The price list as a page of its own, with a plot for each setting."""

from __future__ import annotations

from html import escape

from fedft.audit.prices import Priced, PriceList, finite_points, title
from fedft.report.page import as_epsilon, cell, page, paragraph, section, table
from fedft.report.svg import COLOURS, Level, Series, line_plot

HIGHEST = 20.0
"""Epsilon beyond which a plot shows nothing: the tables do."""

_NOTE = (
    "Epsilon for adding or removing one unit, by privacy loss distributions, rounded up. Noise multiplier: standard "
    "deviation of the noise over the clip norm. Prices are of the training steps{past}; what else a run asks for, as a "
    "private Fisher, comes on top: fedft plan says it for one federation file."
)


def prices_page(found: PriceList) -> str:
    """A self-contained document: it loads nothing and runs nothing."""
    past = "" if not found.spent else f", together with the epsilon of {as_epsilon(found.spent)} that was spent before"
    head = f"What it would cost: {found.local_steps} local steps a round, delta {found.delta:g}"
    parts = [f"<header><h1>{escape(head)}</h1></header>", paragraph(_NOTE.format(past=past))]
    return page(head, "".join([*parts, *(_setting(found, priced) for priced in found.priced)]))


def _setting(found: PriceList, priced: Priced) -> str:
    if priced.refusal is not None:
        return section(title(priced.setting), paragraph(f"No price: {priced.refusal}.", "bad"))
    heads = ("Noise multiplier", *(f"After {done:,} rounds" for done in found.rounds))
    rows = [
        [cell(noise), *(cell(as_epsilon(value)) for value in row)]
        for noise, row in zip(found.noises, priced.epsilons, strict=True)
    ]
    if found.wanted is not None:
        least = ("none" if noise is None else f"{noise:g}" for noise in priced.least_noise)
        rows.append([cell(f"least noise for epsilon {found.wanted:g}"), *map(cell, least)])
    lines = [
        Series(name, points, number % COLOURS)
        for number, (name, points) in enumerate(finite_points(found, priced, HIGHEST))
    ]
    plot = line_plot(
        lines,
        title=f"Epsilon by rounds, up to {HIGHEST:g}",
        format_y=as_epsilon,
        x_label="rounds",
        from_zero=True,
        levels=[] if found.wanted is None else [Level(found.wanted, "wanted")],
    )
    return section(title(priced.setting), plot, table(heads, rows, numeric=range(1, len(heads))))
