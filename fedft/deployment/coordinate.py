"""Begin or resume a run on the SuperLink, and watch it: what fedft coordinate does.

The ServerApp plays in a process that Flower's SuperExec starts; it holds RUN/lock while it lives, and tells its events
in RUN/events.jsonl (deployment/events.py). Watching can stop and begin again without it noticing.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedft.assembly import retraining
from fedft.assembly.runs import as_written, run_name
from fedft.config import FederationConfig
from fedft.deployment.bundle import write_bundle
from fedft.deployment.coordinator import POLL_S, Deployment
from fedft.deployment.events import FILE, follow, last_beginning
from fedft.deployment.provision import Coordinator
from fedft.deployment.provision_superlink import FLOWER_HOME, QUIET, flower_program
from fedft.errors import ConfigError, FederationError
from fedft.identity.roster import Roster
from fedft.records.lineage import Parent
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder

START_S = 120.0
"""How long Flower may take from the run's submission to the ServerApp's first sign of life."""
SUBMIT_S = 120


def begin(config: FederationConfig, folder: Path, coordinator: Coordinator, *, poll_s: float = POLL_S) -> None:
    """Make the folder of a new run for the members of the roster as it stands now.

    Raises
    ------
    ConfigError
        Nobody is a member yet, the file names someone who is not, or wants a larger quorum than there are members; the
        folder holds a run already.
    """
    cohort = _cohort(config, coordinator.roster)
    if config.variants:
        raise ConfigError("expected a federation without [variants], found some: they are for simulations; leave one")
    RunFolder(folder).create(as_written(config, run=run_name(config, folder, resume=False)))
    home = coordinator.folder.resolve()
    Deployment(str(home / "coordinator.key"), str(home / "roster.json"), cohort, poll_s).write(folder)


def begin_without(
    names: Sequence[str], *, parent: Path, folder: Path, coordinator: Coordinator, overrides: Sequence[str] = ()
) -> Parent:
    """Make ``folder`` the run that trains ``parent`` anew without ``names``, for who was in it and still is a member.

    Raises ConfigError as retraining.begin_without.
    """
    before = Deployment.read(parent)
    made = retraining.begin_without(names, parent=parent, folder=folder, overrides=overrides)
    members = {member.name for member in coordinator.roster.members}
    home = coordinator.folder.resolve()
    cohort = tuple(name for name in before.cohort if name in members and name not in made.without)
    Deployment(str(home / "coordinator.key"), str(home / "roster.json"), cohort, before.poll_s).write(folder)
    return made


def play(folder: Path, coordinator: Coordinator, observer: Observer, *, superlink: str | None = None) -> dict[str, Any]:
    """Hand the run in ``folder`` to the SuperLink, unless it is being played already; its summary when it has ended.

    Raises
    ------
    FederationError
        The run ended with an error, which is in the text, or without a word: its ServerApp is gone. It can be resumed.
    """
    Deployment.read(folder)
    events = folder / FILE
    if RunFolder(folder).is_played:
        start = last_beginning(folder)
    else:
        start = events.stat().st_size if events.exists() else 0
        submit(folder, coordinator, superlink=superlink)
    begun = time.monotonic()
    ended: tuple[str, list[Any]] | None = None

    def alive() -> bool:
        return RunFolder(folder).is_played or (not seen and time.monotonic() - begun < START_S)

    seen: list[str] = []
    for event, values in follow(folder, observer, start=start, alive=alive):
        seen.append(event)
        ended = (event, values)
    if ended is not None and ended[0] == "run_finished":
        return dict(ended[1][0])
    if ended is not None and ended[0] == "failed":
        raise FederationError(str(ended[1][0]))
    raise FederationError(
        "expected the ServerApp to play the run to its end, found it gone: see the SuperExec's log, then resume; if "
        "the SuperLink's database is new, fedft provision register comes first"
    )


def submit(folder: Path, coordinator: Coordinator, *, superlink: str | None = None) -> None:
    """flwr run, with the bundle that holds the ServerApp and the relay. Raises FederationError when it is refused."""
    home = coordinator.folder.resolve()
    bundle = write_bundle(home / "bundle")
    command = [
        flower_program("flwr"), "run", str(bundle), superlink or coordinator.federation.name,
        "--run-config", f"folder={json.dumps(str(folder.resolve()))}", "--format", "json",
    ]  # fmt: skip
    environment = {**os.environ, **QUIET, "FLWR_HOME": str(home / FLOWER_HOME)}
    try:
        done = subprocess.run(  # noqa: S603  a fixed program, and arguments of ours
            command, env=environment, cwd=home, capture_output=True, text=True, timeout=SUBMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _refused(type(error).__name__) from error
    if '"success": true' not in done.stdout:
        raise _refused(done.stdout + done.stderr)


def status(folder: Path) -> dict[str, Any]:
    """Where the run in ``folder`` stands, from its files alone; nothing there is changed, whoever plays it."""
    store, deployment = RunFolder(folder), Deployment.read(folder)
    config = store.config()
    done, last = store.progress()
    return {
        "run": config["run"],
        "playing": RunFolder(folder).is_played,
        "rounds_done": done,
        "rounds": config["federation"]["rounds"],
        "finished": (folder / "summary.json").exists(),
        "cohort": list(deployment.cohort),
        "last_round": last,
    }


def _cohort(config: FederationConfig, roster: Roster) -> tuple[str, ...]:
    members = tuple(member.name for member in roster.members)
    listed = tuple(section.name for section in config.institutions)
    strangers = [name for name in listed if name not in members]
    if not members:
        raise ConfigError("expected members of the federation, found none: admit some with fedft provision admit")
    if strangers:
        raise ConfigError(
            f"expected [[institutions]] among the members {', '.join(members)}, found {', '.join(strangers)}: admit "
            "them, or leave them out"
        )
    cohort = listed or members
    if config.federation.min_institutions > len(cohort):
        raise ConfigError(
            f"expected federation.min_institutions to be at most the {len(cohort)} members, found "
            f"{config.federation.min_institutions}: admit more, or lower it"
        )
    return cohort


def _refused(said: str) -> FederationError:
    return FederationError(
        f"expected flwr run to start the run, found: {' '.join(said.split())[:300]}: start the SuperLink and its "
        "SuperExec, check the connection, then resume"
    )
