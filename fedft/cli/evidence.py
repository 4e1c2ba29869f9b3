"""Command that shows what happened: ledger show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedft import strict_json
from fedft.cli.frame import AsJson, console, say


def show(
    path: Annotated[Path, typer.Argument(metavar="PATH", show_default=False)],
    institution: Annotated[str | None, typer.Option(metavar="NAME", help="Of this institution alone.")] = None,
    delta: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="At which epsilon is computed. Default: as charged.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What was charged and released, in order, and the epsilon it comes to; PATH is a ledger or a run's folder."""
    from fedft.display.ledger import find_ledgers, read_story, story_view

    found = find_ledgers(path, institution=institution)
    stories = [read_story(name, file, delta=delta) for name, file in found.items()]
    if as_json:
        say(strict_json.dumps([story.as_json() for story in stories], indent=2))
    else:
        for story in stories:
            console().print(story_view(story))
