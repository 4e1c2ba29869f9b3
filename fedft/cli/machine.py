"""Commands about this machine: doctor, version."""

from __future__ import annotations

import typer

from fedft import strict_json
from fedft.cli.frame import AsJson, console, say


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: versions, devices, memory, disk, access to the model hub."""
    from dataclasses import asdict

    from fedft.display.tables import findings_table
    from fedft.doctor import examine, is_healthy

    findings = examine()
    if as_json:
        say(strict_json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        console().print(findings_table(findings))
    if not is_healthy(findings):
        raise typer.Exit(1)


def version() -> None:
    """Print the version."""
    from fedft import __version__

    say(f"fedft {__version__}")
