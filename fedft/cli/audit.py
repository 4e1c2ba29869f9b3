"""What an auditor does with a run: the group of commands audit."""

from __future__ import annotations

import typer

from fedft.cli.attack import attack
from fedft.cli.audit_plan import plan
from fedft.cli.audit_report import report
from fedft.cli.bundle import bundle
from fedft.cli.leaving import contributions
from fedft.cli.recompute import recompute
from fedft.cli.verify import verify

app = typer.Typer(help="What an auditor does with a run, trusting nobody; no network.", no_args_is_help=True)
app.command()(verify)
app.command()(recompute)
app.command()(bundle)
app.command()(contributions)
app.command()(plan)
app.command()(attack)
app.command()(report)
