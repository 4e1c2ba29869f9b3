"""Commands about an institution that leaves: withdraw; audit contributions, what of it stays; the option --without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedft import strict_json
from fedft.cli.frame import AsJson, Run, console, hint, private_files, say

if TYPE_CHECKING:
    from fedft.records.lineage import Parent

Without = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="NAME", help="With --resume: train anew without this institution. Repeatable."),
]


def withdraw(
    policy: Annotated[Path, typer.Option(metavar="FILE", help="The institution's policy.")] = Path("policy.toml"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Institution: leave the federation. From now on nothing that depends on a row leaves; there is no way back.

    A running agent needs no restart. What left before stays where it is.
    """
    from fedft.audit.findings import rounds_text
    from fedft.config import load_policy
    from fedft.deployment.withdrawal import released, statement_file
    from fedft.deployment.withdrawal import withdraw as leave

    own = load_policy(policy)
    name, federation = own.institution.name, own.institution.federation
    if not yes:
        typer.confirm(f'"{name}" leaves "{federation}" for good, under this key?', abort=True)
    with private_files():
        left, recorded = leave(own)
    say(f'"{name}" has left "{federation}", {left.time_utc}, after {left.entries} entries of its ledger')
    say("its ledger has it" if recorded else "its agent runs, takes it before its next answer, and needs no restart")
    for run, rounds in released(own).items():
        say(f"left before, and stays in what was made of it: {run}, {rounds_text(rounds)}")
    hint(
        f"send {statement_file(own)} to the coordinator: fedft provision revoke DIR {name} --withdrawal withdrawal.json"
    )


def contributions(run: Run, as_json: AsJson = False) -> None:
    """Whose updates are in the adapters of the run in folder RUN, and what being without one would take."""
    from fedft.audit.contributions import contributions_of
    from fedft.display.contributions import contributions_view

    found = contributions_of(run)
    if as_json:
        say(strict_json.dumps(found.as_json(), indent=2))
    else:
        console().print(contributions_view(found))


def folder_without(run: Path, names: list[str]) -> Path:
    """Where a run is trained anew, unless another folder is given: beside it."""
    return run.resolve().with_name(f"{run.resolve().name}-without-{'-'.join(sorted(set(names)))}")


def tell_begun(parent: Parent, folder: Path) -> None:
    """What was made of --without, and what it costs."""
    state = f"the state after round {parent.round}" if parent.round else "the start"
    say(f"{parent.run} anew from {state}, without {', '.join(parent.without)}, in {folder}; it stays as it is itself")
    hint("what the others spent stays spent, and they are charged for these rounds again, within their caps")
