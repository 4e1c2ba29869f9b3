"""Commands about this machine: doctor, version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedft import strict_json
from fedft.cli.frame import AsJson, console, say

Model = Annotated[str | None, typer.Argument(help="Print this base model's digest instead, for a policy's models.")]


def doctor(model: Model = None, as_json: AsJson = False) -> None:
    """Check this machine: versions, devices, memory, disk, access to the model hub. With MODEL: print its digest."""
    from dataclasses import asdict

    from fedft.display.tables import findings_table
    from fedft.doctor import examine, is_healthy
    from fedft.model.files import digest_of, resolve_base

    if model is not None:
        digest = digest_of(Path(resolve_base(model)))
        say(strict_json.dumps({"model": model, "sha256": digest}) if as_json else digest)
        return
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
