"""One rehearsal of everything that organisations would run, its programs killed by kill -9 one after the other.

SuperNode, agent, ServerApp, SuperLink: the supervisor starts again what ended, a person resumes the run once, and it
ends. With privacy, so that a round that is trained again must be found paid. One test, so that it is played once. Who
answers in time depends on the machine; what is asserted does not.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedft.config import load_policy
from fedft.deployment import coordinate
from fedft.deployment.rehearse import Rehearsal, rehearsal
from fedft.errors import FederationError
from fedft.ledger.store import Ledger
from fedft.rounds.progress import Observer
from tests.deployment.fake_agent import client_of, wait_for
from tests.deployment.living import children, command_of, in_sessions
from tests.deployment.open_door import needs_nginx
from tests.federation import NAMES, adapter_of, federation, records_of

ROUNDS, LONGEST_S = 6, 400.0
SUPERLINK_DOWN_S = 5.0
OF_AN_INSTITUTION = ("agent", "forwarder", "supernode")
PROGRAMS = ("proxy", "superlink", "superexec", *(f"{name}-{part}" for name in NAMES for part in OF_AN_INSTITUTION))


class Playing(Observer):
    """Plays the run in a thread, and resumes it when its ServerApp is gone, as a person would."""

    def __init__(self, made: Rehearsal) -> None:
        self._made, self._heard, self._read = made, threading.Condition(), 0
        self.events: list[tuple[str, Any]] = []
        self.ends: list[str] = []
        self.summary: dict[str, Any] | None = None
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def _play(self) -> None:
        while self.summary is None and len(self.ends) < 5:
            try:
                self.summary = coordinate.play(self._made.run, self._made.coordinator, self)
            except FederationError as error:
                self.ends.append(str(error))

    def _tell(self, event: str, value: Any) -> None:
        with self._heard:
            self.events.append((event, value))
            self._heard.notify_all()

    def round_started(self, round: int, rounds: int, cohort: Sequence[str]) -> None:
        self._tell("started", round)

    def answered(self, institution: str, outcome: str) -> None:
        self._tell("answered", outcome)

    def round_finished(self, record: Mapping[str, Any]) -> None:
        self._tell("finished", record["round"])

    def hear(self, event: str, value: Any = None) -> None:
        """Wait for it, with any value for None; what was heard before does not count again."""
        end = time.monotonic() + LONGEST_S
        with self._heard:
            while True:
                for position in range(self._read, len(self.events)):
                    heard, with_value = self.events[position]
                    if heard == event and value in (None, with_value):
                        self._read = position + 1
                        return
                assert self._heard.wait(end - time.monotonic()), f"{event} {value} never came: {self.events[-9:]}"

    def hear_the_end(self) -> dict[str, Any]:
        self._thread.join(LONGEST_S)
        assert self.summary is not None, (self.ends, self.events[-9:])
        return self.summary


@needs_nginx
def test_it_outlives_the_death_of_each_of_its_programs() -> None:
    with tempfile.TemporaryDirectory(prefix="fedft-") as name:  # a socket's path may have a hundred bytes
        folder = Path(name).resolve()
        config = federation(
            folder / "data",
            f"federation.rounds={ROUNDS}",
            "federation.min_institutions=2",
            "federation.round_timeout_s=12",
            f"evaluation.every={ROUNDS}",
        )
        with rehearsal(config, folder / "all") as made:
            first = [made.programs.pid(program) for program in PROGRAMS]
            playing = Playing(made)
            disturb(made, playing)
            playing.hear_the_end()
            its_programs_are_back(made)
            last = [made.programs.pid(program) for program in PROGRAMS]
        assert "found it gone: see the SuperExec's log, then resume" in playing.ends[0]
        the_run_is_whole(made)
        assert in_sessions([*first, *last], folder) == []


def disturb(made: Rehearsal, playing: Playing) -> None:
    programs = made.programs
    playing.hear("started", 2)
    programs.kill("west-supernode")
    playing.hear("started", 3)
    kill_while_training(made, "north")
    playing.hear("started", 4)
    playing.hear("answered")
    os.kill(serverapp(made), signal.SIGKILL)
    playing.hear("started")  # the same again
    playing.hear("started")
    programs.kill("superlink", down_s=SUPERLINK_DOWN_S)


def kill_while_training(made: Rehearsal, name: str) -> None:
    socket = load_policy(made.homes[name].folder / "policy.toml").agent.socket
    end = time.monotonic() + LONGEST_S
    with client_of(socket) as agent:
        while not agent.get("/v1/health").json()["training"]:
            assert time.monotonic() < end
            time.sleep(0.002)
    made.programs.kill(f"{name}-agent")


def serverapp(made: Rehearsal) -> int:
    found = [pid for pid in children(made.programs.pid("superexec")) if "flwr-serverapp" in " ".join(command_of(pid))]
    assert len(found) == 1
    return found[0]


def its_programs_are_back(made: Rehearsal) -> None:
    """A SuperNode that was killed is let in again when its heartbeat has run out; before, Flower ends it with 305."""
    programs = made.programs
    for name in ("west-supernode", "north-agent", "superlink"):
        assert programs.restarts(name) >= 1
    log = made.coordinator.folder / "proxy" / "access.log"
    position = log.stat().st_size

    def west_calls() -> bool:
        calls = [line for line in log.read_text()[position:].splitlines() if '"CN=west"' in line]
        return any("pull-messages" in line and '"status":200' in line for line in calls)

    wait_for(west_calls, LONGEST_S)
    wait_for(lambda: all(programs.is_running(name) for name in PROGRAMS), LONGEST_S)


def the_run_is_whole(made: Rehearsal) -> None:
    records = records_of(made.run)
    assert [record["round"] for record in records] == list(range(1, ROUNDS + 1))
    assert any(record["quorum"] for record in records)
    assert "west" in records[1]["missing"]
    assert np.isfinite(adapter_of(made.run)).all()
    assert (made.run / "summary.json").is_file()
    for name in NAMES:
        with Ledger.open(made.homes[name].folder / "ledger.sqlite", read_only=True) as ledger:
            charged = Counter(entry.fields["round"] for entry in ledger.entries() if entry.kind == "intent")
            events = ledger.events(name)
        answered = {record["round"] for record in records if name in record["updates"]}
        assert answered <= set(charged) <= set(range(1, ROUNDS + 1))
        assert set(charged.values()) == {1}
        assert len(events) == len(charged)
