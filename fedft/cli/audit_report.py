"""Command that writes a run's report: audit report. It needs no network, no GPU and no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedft.cli.frame import Run, say
from fedft.cli.recompute import Ledgers, named


def report(
    run: Run,
    form: Annotated[Literal["html", "json", "pdf"], typer.Option("--format", help="pdf: by Chromium.")] = "html",
    ledger: Ledgers = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option("--policy", metavar="FILE", help="An institution's policy, for its [processing]. Repeatable."),
    ] = None,
    attack: Annotated[
        list[Path] | None,
        typer.Option("--attack", metavar="FILE", help="Evidence that audit attack kept. Repeatable."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Default: report.FORMAT in RUN.", show_default=False)
    ] = None,
) -> None:
    """Write the report on the run in folder RUN, to be filed: nine parts, and which clause each is evidence for.

    Everything in it is verified and computed again first; what does not hold is said on top.
    """
    from fedft.report.write import write_report

    ledgers = [named(text) for text in ledger or ()]
    written = write_report(run, to, form=form, ledgers=ledgers, policies=policy or (), attacks=attack or ())
    say(f"wrote {written}")
