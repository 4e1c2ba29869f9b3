"""The command that packs a run's evidence into one file: audit bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedft import strict_json
from fedft.cli.frame import AsJson, Run, fail, say
from fedft.cli.verify import BAD_INPUT, in_words
from fedft.errors import FedftError


def bundle(
    run: Run,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="A new file, .tar.gz.", show_default=False)],
    ledger: Annotated[
        list[Path] | None, typer.Option("--ledger", metavar="L", help="An institution's ledger. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the run in folder RUN, then pack what anyone needs to check it again: records, ledgers, report, checksums.

    No key and no log is packed. Exit code 0: packed. 1: the run is not valid, or has not ended, and nothing was packed.
    2: no run, no ledger or no place was given.
    """
    from fedft.audit.bundle import bundle as packed
    from fedft.audit.verify_files import listed

    try:
        verdict, made = packed(run, to, ledgers=ledger or ())
    except FedftError as error:
        fail(str(error))
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        about = {} if made is None else asdict(made)
        say(strict_json.dumps({"packed": about or None, "verdict": verdict.as_json()}, indent=2))
    elif made is None:
        say(f"{in_words(verdict)}\nnothing was packed")
    else:
        lines = [
            f"packed {run} into {to}: {len(made.names)} files, {made.bytes:,} bytes",
            f"SHA-256: {made.sha256}",
            f"ledgers in it: {listed(made.ledgers) or 'none'}, with the bytes of their newest releases",
            f"left out: {listed(made.left_out) or 'nothing'}",
        ]
        say("\n".join([in_words(verdict), *lines]))
    if made is None:
        raise typer.Exit(1)
