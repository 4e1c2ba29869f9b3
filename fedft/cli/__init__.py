"""The command line: one function per command, which reads its options, calls one thing and prints what it returns.

Exit codes: 0; 1 an error of fedft; 2 wrong usage; 3 an attack contradicts a privacy claim; 4 a check that the scenario
announces does not hold, or an attack has no power; 130 interrupted. Of audit recompute and verify also 1: a claim does
not hold, a finding; 2: something that they need cannot be read.
Heavy libraries are imported inside the commands that need them, so that ``fedft --help`` is quick.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from fedft.cli.audit import app as _audit
from fedft.cli.deployment import agent, coordinate, rehearse, status
from fedft.cli.evidence import show
from fedft.cli.frame import Commands
from fedft.cli.leaving import withdraw
from fedft.cli.machine import doctor, version
from fedft.cli.planning import plan
from fedft.cli.provision import app as _provision
from fedft.cli.running import init, simulate
from fedft.cli.using import evaluate, export, local_accuracy, predict

_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run a federation": (init, plan, simulate),
    "Across organisations": (rehearse, coordinate, status, agent, withdraw),
    "Use what it learned": (evaluate, predict, export, local_accuracy),
    "This machine": (doctor, version),
}

app = typer.Typer(
    name="fedft",
    cls=Commands,
    help="Hospitals and banks fine-tune one language model together; the records stay where they are.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)

_ledger = typer.Typer(help="The privacy ledger of an institution.", no_args_is_help=True)
_ledger.command()(show)
app.add_typer(_ledger, name="ledger", rich_help_panel="See what happened")
app.add_typer(_audit, name="audit", rich_help_panel="See what happened")
app.add_typer(_provision, name="provision", rich_help_panel="Across organisations")


def main() -> None:
    """Entry point of the ``fedft`` command."""
    app()
