"""Command that says what a federation will cost before it runs: plan."""

from __future__ import annotations

from typing import Annotated

import typer

from fedft import strict_json
from fedft.cli.frame import AsJson, File, Overrides, console, say

Units = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...", help="For data sets of so many privacy units, assumed; no institution's rows are read."
    ),
]


def plan(file: File, set_: Overrides = None, units: Units = None, as_json: AsJson = False) -> None:
    """What the federation in FILE will cost: noise, steps, epsilon of each institution, bytes. Trains nothing.

    Where FILE names nobody's rows, as a coordinator's does: what is asked, for data sets of several sizes.
    """
    sizes = [] if units is None else _sizes(units)
    from fedft.config import load_config
    from fedft.display.tables import plan_table

    config = load_config(file, set_ or ())
    from fedft.simulation.planning import plan_of

    found = plan_of(config, units=sizes).as_json()
    if as_json:
        say(strict_json.dumps(found, indent=2))
    else:
        console().print(plan_table(found))


def _sizes(text: str) -> list[int]:
    """In the order given, each once."""
    try:
        sizes = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise typer.BadParameter(f'expected --units as whole numbers from 1, as 500,1000,5000, found "{text}"')
    return sizes
