"""fedft coordinate only watches: another may watch instead of it, and a second ServerApp is turned away."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest

from fedft.deployment import coordinate
from fedft.deployment.coordinator import play_on
from fedft.deployment.events import EventWriter, follow, last_beginning
from fedft.errors import ConfigError, FederationError
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from tests.deployment.deployed import Deployed, Provisioned
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
        wait_for(lambda: RunFolder(run).is_played, 60)
        with pytest.raises(FederationError, match="found that another process does: wait"):
            play_on(lambda strategy: strategy.start(SocketGrid(sockets)), run)
        late = Going(run)
        summary = coordinate.play(run, members.coordinator, late)  # no SuperLink is there to start anything anew
        assert late.rounds == [0, 1, 2]
        assert summary["rounds_done"] == 2
        process.join(60)
        assert process.exitcode == 0
    assert not RunFolder(run).is_played


def test_one_that_asks_whether_it_is_played_does_not_turn_the_serverapp_away(tmp_path: Path) -> None:
    """The watcher looks five times a second, and holds the lock while it looks."""
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        Timer(0.2, looking.close).start()
        with pytest.raises(ConfigError, match=r"with config\.json"):  # past the lock: there is no run in this folder
            play_on(lambda strategy: None, tmp_path)


def test_who_joins_a_run_that_failed_before_hears_of_its_newest_serverapp(tmp_path: Path) -> None:
    events = EventWriter(tmp_path)
    events.run_started("tiny", 2, NAMES)
    events.failed("no quorum")
    events.run_started("tiny", 2, NAMES)
    events.run_finished({"rounds_done": 2})
    told = list(follow(tmp_path, Observer(), start=last_beginning(tmp_path), alive=lambda: False))
    assert [event for event, _ in told] == ["run_started", "run_finished"]
    assert last_beginning(tmp_path / "nowhere") == 0


def test_asking_where_a_run_stands_changes_nothing(short: Path) -> None:
    """Another may write there: a line put right by the one who asks would be lost to the one who plays."""
    members, run = Deployed(short / "all", federation(short / "data", *OFF)), short / "run"
    members.begin(run)
    assert coordinate.status(run)["rounds_done"] == 0
    members.play(run)
    members.close()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"round": 3, "cut')
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
    found = coordinate.status(run)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
    assert after == before
    assert (found["rounds_done"], found["finished"], found["playing"]) == (2, True, False)
    assert found["last_round"]["round"] == 2
