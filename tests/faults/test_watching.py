"""fedft coordinate only watches: another may watch instead of it, and a second ServerApp is turned away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedft.deployment import coordinate
from fedft.deployment.coordinator import is_played, play_on
from fedft.errors import FederationError
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from tests.deployment.deployed import Provisioned
from tests.deployment.fake_agent import wait_for
from tests.dying import processes
from tests.faults.agent_process import agent_process
from tests.faults.test_killed_coordinator import SocketGrid
from tests.federation import NAMES, OFF, federation


def _play(run: str, sockets: Sequence[str]) -> None:
    """Its summary waits for a file "go"."""
    write = RunFolder.write_summary

    def waiting(self: RunFolder, summary: dict[str, object]) -> None:
        while not (self.path / "go").exists():
            time.sleep(0.02)
        write(self, summary)

    setattr(RunFolder, "write_summary", waiting)  # noqa: B010 - in a process of its own
    play_on(lambda strategy: strategy.start(SocketGrid(sockets)), Path(run))


class Going(Observer):
    """Lets the run end when it has heard of both rounds."""

    def __init__(self, run: Path) -> None:
        self._run, self.rounds = run, [0]

    def round_started(self, round: int, rounds: int, cohort: Sequence[str]) -> None:
        self.rounds.append(round)
        if round == rounds:
            (self._run / "go").touch()


def test_who_comes_later_hears_everything_and_nobody_plays_twice(short: Path) -> None:
    members, run = Provisioned(short / "all", federation(short / "data", *OFF)), short / "run"
    members.begin(run)
    with ExitStack() as stack:
        agents = [stack.enter_context(agent_process(members.policy_file(name))) for name in NAMES]
        sockets = [str(agent.socket) for agent in agents]
        process = processes.Process(target=_play, args=(str(run), sockets))
        process.start()
        stack.callback(process.join, 60)
        stack.callback(process.kill)
        wait_for(lambda: is_played(run), 60)
        with pytest.raises(FederationError, match="found a ServerApp: wait"):
            play_on(lambda strategy: strategy.start(SocketGrid(sockets)), run)
        late = Going(run)
        summary = coordinate.play(run, members.coordinator, late)  # no SuperLink is there to start anything anew
        assert late.rounds == [0, 1, 2]
        assert summary["rounds_done"] == 2
        process.join(60)
        assert process.exitcode == 0
    assert not is_played(run)
