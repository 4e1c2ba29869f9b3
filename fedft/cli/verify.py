"""The command that checks a run's records: audit verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedft import strict_json
from fedft.cli.frame import AsJson, Run, fail, say
from fedft.errors import FedftError

if TYPE_CHECKING:
    from fedft.audit.verify import Verdict

BAD_INPUT = 2


def verify(
    run: Run,
    ledger: Annotated[
        list[Path] | None, typer.Option("--ledger", metavar="L", help="An institution's ledger. Repeatable.")
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="H", help="A signed head that you remember: a file, or its text. Repeatable."),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="TEXT", help="The coordinator's key or fingerprint, as you know it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every record of the run in folder RUN, or in an archive: chains, signatures, receipts, each file's bytes.

    Exit code 0: all of it holds. 1: the first thing that does not, named. 2: no run, no whole archive, no ledger, or no
    head was given.
    """
    from fedft.audit.bundle import verify as checked

    try:
        verdict = checked(run, ledgers=ledger or (), heads=head or (), key=key)
    except FedftError as error:
        fail(str(error))
        raise typer.Exit(BAD_INPUT) from None
    say(strict_json.dumps(verdict.as_json(), indent=2) if as_json else in_words(verdict))
    if not verdict.valid:
        raise typer.Exit(1)


def in_words(verdict: Verdict) -> str:
    lines = []
    if verdict.run:
        lines += [
            f"run {verdict.run}: {verdict.entries} entries of the coordinator's log, {verdict.rounds} rounds",
            f"coordinator's key: {verdict.fingerprint}",
        ]
    if verdict.ledgers:
        lines.append(f"ledgers that fit: {', '.join(verdict.ledgers)}")
    if verdict.not_covered:
        lines += ["not covered:", *(f"  {words}" for words in verdict.not_covered)]
    if verdict.finding is None:
        return "\n".join([*lines, "valid: every chain, signature, receipt and file holds"])
    return "\n".join([*lines, f"NOT VALID: {verdict.finding.as_text()}"])
