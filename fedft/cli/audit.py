"""What an auditor does with a run: the group of commands audit."""

from __future__ import annotations

import typer

from fedft.cli.verify import verify

app = typer.Typer(help="What an auditor does with a run, trusting nobody.", no_args_is_help=True)
app.command()(verify)
