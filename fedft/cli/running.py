"""Commands that run a federation: init, simulate."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedft.cli.frame import (
    CHECK_FAILED,
    INTERRUPTED,
    Overrides,
    Plain,
    console,
    fail,
    hint,
    log_into,
    say,
)
from fedft.cli.leaving import Without, folder_without, tell_begun
from fedft.errors import ConfigError, FedftError

if TYPE_CHECKING:
    from fedft.config import FederationConfig


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE")] = Path("federation.toml"),
) -> None:
    """Write a commented federation file to start from, at FILE, which must be new."""
    from fedft.config import template

    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(template())
    except FileExistsError:
        raise ConfigError(f"expected a new file, found {file}: choose another name") from None
    say(f"wrote {file}; next: fedft plan {file}")


def simulate(
    file: Annotated[Path | None, typer.Argument(metavar="FILE")] = None,
    set_: Overrides = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's new folder. Default: runs/NAME-DATE-TIME.")
    ] = None,
    engine: Annotated[
        Literal["local", "flower"], typer.Option(help="In this process, or on Flower's simulation runtime.")
    ] = "local",
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with an unfinished run's folder.")] = None,
    without: Without = None,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="Play this variant of the file alone.")] = None,
    plain: Plain = False,
) -> None:
    """Play the whole federation in FILE on this machine; with --resume, go on with one, FILE or not.

    With --resume RUN --without NAME, train RUN anew from its newest state that has no update of NAME, in a new folder.

    Exit code 4: a check that the file announces does not hold.
    """
    from fedft.display.make import make_display
    from fedft.display.summary import checks_hold, next_steps, summary_view

    if without:
        if resume is None or file is not None or variant is not None:
            raise typer.BadParameter("give --without with --resume RUN, and no FILE")
        resume, set_ = _begun_without(without, resume, folder, set_), None
    if file is None and (resume is None or set_ or variant is not None):
        raise typer.BadParameter("give FILE, or --resume DIR alone")
    config = None if file is None else config_of(file, set_ or [], variant)
    where = resume or folder or _new_folder(config)
    output = console()
    display = make_display(output, plain=plain)
    try:
        with display, log_into(where) as log:
            from fedft.report.write import write_report
            from fedft.simulation.run import play

            chosen = _chosen(config, where, resumed=resume is not None)
            summary = play(chosen, folder=where, engine=engine, resume=resume is not None, observer=display)
            for run in (where, *(where / name for name in summary.get("variants", ()))):
                write_report(run)
    except KeyboardInterrupt:
        hint(f"interrupted; {_how_to_resume(where)}")
        raise typer.Exit(INTERRUPTED) from None
    except FedftError as error:
        fail(str(error))
        if not isinstance(error, ConfigError):
            hint(_how_to_resume(where))
        raise typer.Exit(1) from None
    output.print(summary_view(summary))
    say("\n".join(next_steps(summary, where, log)))
    if not checks_hold(summary):
        raise typer.Exit(CHECK_FAILED)


def config_of(file: Path, overrides: list[str], variant: str | None) -> FederationConfig:
    from fedft.config import load_config, variant_config

    config = load_config(file, overrides)
    if variant is None:
        return config
    if variant not in config.variants:
        known = ", ".join(config.variants) or "none"
        raise ConfigError(f'expected --variant to name one of the variants ({known}), found "{variant}": correct it')
    return variant_config(config, variant)


def _chosen(given: FederationConfig | None, where: Path, *, resumed: bool) -> FederationConfig:
    """What to play; of a run to be resumed its own configuration, and ``given`` must not differ."""
    if given is not None and not resumed:
        return given
    from fedft.assembly.runs import resume_config

    stored = resume_config(where)
    if given not in (None, stored):
        raise ConfigError(
            "expected the configuration that the run was started with, found another: leave FILE and --set out, or "
            "start a new run"
        )
    return stored


def _begun_without(names: list[str], parent: Path, folder: Path | None, overrides: list[str] | None) -> Path:
    """The folder of the run that trains ``parent`` anew without ``names``."""
    from fedft.assembly.retraining import begin_without, is_begun

    where = folder or folder_without(parent, names)
    if not is_begun(where, parent=parent, names=names):
        tell_begun(begin_without(names, parent=parent, folder=where, overrides=overrides or ()), where)
    return where


def _how_to_resume(where: Path) -> str:
    if not (where / "config.json").is_file():
        return "nothing was begun"
    return f"what is done is kept; go on with: fedft simulate --resume {shlex.quote(str(where))}"


def _new_folder(config: FederationConfig | None) -> Path:
    name = "run" if config is None else config.federation.name
    return Path("runs") / f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
