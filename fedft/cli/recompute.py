"""Command that computes a run's privacy figures again: audit recompute. It needs no network, no GPU and no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedft import strict_json
from fedft.cli.frame import AsJson, Run, console, say

Ledgers = Annotated[
    list[str] | None,
    typer.Option(
        "--ledger",
        metavar="[NAME=]FILE",
        help="An institution's ledger, where it is not in the run's folder, or instead of that. Repeatable.",
    ),
]
Delta = Annotated[
    float | None, typer.Option(help="At which epsilon is computed. Default: as the ledgers state.", show_default=False)
]


def recompute(run: Run, ledger: Ledgers = None, delta: Delta = None, as_json: AsJson = False) -> None:
    """Compute every privacy figure of the run in folder or archive RUN again, over all runs in each ledger; compare.

    By PLD, by PRV, and by RDP as the outer bound; noise from the plan; sampling rates from the sizes; what left without
    a charge, and what without a guarantee.

    Exit code 0: every claim holds; 1: one does not; 2: something cannot be read.
    """
    if delta is not None and not 0 < delta < 1:
        raise typer.BadParameter(f"expected --delta above 0 and below 1, found {delta:g}")
    from fedft.audit.recompute import recompute_any
    from fedft.display.audit import recomputed_view

    found = recompute_any(run, [named(text) for text in ledger or ()], delta=delta)
    if as_json:
        say(strict_json.dumps(found.as_json(), indent=2))
    else:
        console().print(recomputed_view(found))
    raise typer.Exit(found.exit_code)


def named(text: str) -> tuple[str | None, Path]:
    """ "north=FILE", or FILE alone."""
    name, equals, file = text.partition("=")
    return (name, Path(file)) if equals and not Path(text).exists() else (None, Path(text))
