"""Commands of a federation across organisations: agent, coordinate, status, rehearse."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedft import strict_json
from fedft.cli.frame import (
    INTERRUPTED,
    AsJson,
    File,
    Overrides,
    Plain,
    Run,
    console,
    fail,
    hint,
    log_into,
    private_files,
    say,
)
from fedft.cli.leaving import Without, folder_without, tell_begun
from fedft.errors import ConfigError, FedftError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedft.config import FederationConfig
    from fedft.rounds.progress import Observer

Home = Annotated[
    Path, typer.Option("--coordinator", metavar="DIR", help="The coordinator's folder, of fedft provision init.")
]


def agent(
    policy: Annotated[Path, typer.Option(metavar="FILE", help="The institution's policy.")] = Path("policy.toml"),
) -> None:
    """Serve this institution's part: data, model, policy, key and ledger, over a Unix socket, until stopped."""
    from fedft.config import load_policy
    from fedft.deployment.agent import Agent
    from fedft.deployment.agent_http import serve

    allowed = load_policy(policy)
    with private_files():  # the relay's user may be of its group, for the socket, which is made with its own mode
        served = Agent(allowed)
        say(f"{served.name} listens at {allowed.agent.socket}; stop it with Ctrl-C or SIGTERM")
        try:
            serve(served, allowed)
        finally:
            served.close()


def coordinate(
    file: Annotated[Path | None, typer.Argument(metavar="FILE")] = None,
    home: Home = Path("coordinator"),
    set_: Overrides = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's new folder. Default: runs/NAME-DATE-TIME.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with an unfinished run's folder.")] = None,
    without: Without = None,
    superlink: Annotated[
        str | None, typer.Option(metavar="NAME", help="Connection in DIR/flower/config.toml. Default: its own.")
    ] = None,
    poll: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.05, help="Of a new run: between two questions for replies.")
    ] = 0.5,
    plain: Plain = False,
) -> None:
    """Run the federation in FILE across its members over the SuperLink; with --resume, go on with one.

    With --resume RUN --without NAME, train RUN anew from its newest state that has no update of NAME, in a new folder.
    """
    from fedft.assembly.retraining import is_begun
    from fedft.deployment import coordinate as runs
    from fedft.deployment.provision import Coordinator

    if (file is None) == (resume is None) or (without and resume is None):
        raise typer.BadParameter("give FILE, or --resume DIR alone, or with --without")
    opened = Coordinator.open(home)
    if resume is not None and without:
        parent, resume = resume, folder or folder_without(resume, without)
        if not is_begun(resume, parent=parent, names=without):
            made = runs.begin_without(without, parent=parent, folder=resume, coordinator=opened, overrides=set_ or ())
            tell_begun(made, resume)
    where = resume or folder
    if file is not None:
        config = _config(file, set_)
        where = where or Path("runs") / f"{config.federation.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
        runs.begin(config, where, opened, poll_s=poll)
    chosen = where or Path()
    again = f"fedft coordinate --coordinator {shlex.quote(str(home))} --resume {shlex.quote(str(chosen))}"
    _watch(
        chosen,
        plain,
        lambda display: runs.play(chosen, opened, display, superlink=superlink),
        stopped=f"no longer watching; the run goes on; watch it again with: {again}",
        resume=f"what is done is kept; go on with: {again}",
    )


def status(run: Run, as_json: AsJson = False) -> None:
    """Where the run in RUN stands: rounds done, who answered, whether it is being played."""
    from fedft.deployment.coordinate import status as status_of

    found = status_of(run)
    if as_json:
        say(strict_json.dumps(found, indent=2))
        return
    state = "finished" if found["finished"] else "being played" if found["playing"] else "stopped"
    say(f"{found['run']}: {state}, {found['rounds_done']} of {found['rounds']} rounds")
    last = found["last_round"]
    if last is not None:
        refused = [f"{name} ({reason})" for name, reason in last["refused"].items()]
        for title, names in (("updates", last["updates"]), ("refused", refused), ("missing", last["missing"])):
            say(f"last round, {title}: {', '.join(names) or 'none'}")
    if not found["finished"] and not found["playing"]:
        hint(f"go on with: fedft coordinate --resume {run}")


def rehearse(
    file: File,
    set_: Overrides = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder of everything. Default: rehearsals/NAME-DATE-TIME.")
    ] = None,
    plain: Plain = False,
) -> None:
    """Play FILE with everything that organisations would run, on loopback: proxy, SuperLink, SuperNodes, agents."""
    from fedft.deployment.rehearse import rehearse as play

    config = _config(file, set_)
    where = folder or Path("rehearsals") / f"{config.federation.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    ended = f"every program is stopped; their logs are in {where / 'logs'}; play it again with a new --folder"
    _watch(where / "run", plain, lambda display: play(config, where, display), stopped=ended, resume=ended)


def _config(file: Path, overrides: list[str] | None) -> FederationConfig:
    from fedft.config import load_config

    return load_config(file, overrides or ())


def _watch(run: Path, plain: bool, play: Callable[[Observer], dict[str, Any]], *, stopped: str, resume: str) -> None:
    """``stopped``, ``resume``: what to say after Ctrl-C, and after an error once the run had begun."""
    from fedft.display.make import make_display
    from fedft.display.summary import next_steps, summary_view
    from fedft.report.write import write_report

    output = console()
    display = make_display(output, plain=plain)
    try:
        with display:
            summary = play(display)
        with log_into(run) as log:
            write_report(run)
    except KeyboardInterrupt:
        hint(stopped)
        raise typer.Exit(INTERRUPTED) from None
    except FedftError as error:
        fail(str(error))
        if not isinstance(error, ConfigError) and (run / "config.json").exists():
            hint(resume)
        raise typer.Exit(1) from None
    output.print(summary_view(summary))
    if not any(found["rounds_answered"] for found in summary["institutions"].values()):
        fail(f"expected updates, found that nobody answered with one: see who refused in {run / 'report.html'}")
        raise typer.Exit(1)
    say("\n".join(next_steps(summary, run, log)))
