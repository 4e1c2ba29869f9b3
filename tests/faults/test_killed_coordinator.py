"""kill -9 of the coordinator at each step of a run, its agents living on: the same bits, each round paid once.

bench/faults.py does the same at hundreds of random instants.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import client.app
import fedft.assembly.coordinator
import fedft.deployment.coordinator
import fedft.model.checkpoint
from fedft.deployment.coordinator import play_on
from fedft.flower.local_grid import LocalGrid
from fedft.rounds.coordinator import Coordinator
from fedft.rounds.open_round import OpenRound
from fedft.rounds.run_folder import RunFolder
from fedft.simulation.run import play
from tests.deployment.deployed import Provisioned
from tests.dying import KILLED, dying, processes
from tests.faults.agent_process import agent_process
from tests.federation import NAMES, OFF, adapter_of, federation, records_of
from tests.simulation.killed_run import half_a_line, to

POINTS: dict[str, Callable[[], None]] = {
    "before the roll call": dying(LocalGrid, "push_messages"),
    "before it asks": dying(Coordinator, "request"),
    "asked": dying(LocalGrid, "push_messages", after=True, nth=2),
    "heard one": dying(OpenRound, "receive", after=True),
    "heard two": dying(OpenRound, "receive", after=True, nth=2),
    "heard all": dying(OpenRound, "receive", after=True, nth=3),
    "before the evaluation": dying(fedft.assembly.coordinator, "evaluate"),
    "in a checkpoint": dying(fedft.model.checkpoint, "write_whole", after=True, nth=3),
    "before the rename": dying(Path, "rename", only=to("checkpoints/round-")),
    "after the rename": dying(Path, "rename", only=to("checkpoints/round-"), after=True),
    "half a line": half_a_line,
    "after the line": dying(RunFolder, "_append", after=True),
    "after the best": dying(RunFolder, "write_best", after=True, nth=2),
    "before the export": dying(fedft.deployment.coordinator, "export_adapter"),
    "before the summary": dying(RunFolder, "write_summary"),
}
"""In an order in which one run can die at all of them."""
ROUNDS = 8


class SocketGrid(LocalGrid):
    """The real relay, and an agent's socket for each node."""

    def __init__(self, sockets: Sequence[str]) -> None:
        super().__init__(client.app.app, len(sockets))
        for node, socket in enumerate(sockets, start=1):
            self._contexts[node].node_config["agent"] = socket


def play_in_child(run: Path, sockets: Sequence[str], point: str | None = None) -> int:
    process = processes.Process(target=_play, args=(str(run), sockets, point))
    process.start()
    process.join(300)
    code = process.exitcode
    assert code is not None
    return code


def _play(run: str, sockets: Sequence[str], point: str | None) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    if point is not None:
        POINTS[point]()
    play_on(lambda strategy: strategy.start(SocketGrid(sockets)), Path(run))


def test_killed_at_every_step_it_ends_with_the_bits_of_an_undisturbed_run(short: Path) -> None:
    config = federation(short / "data", *OFF, f"federation.rounds={ROUNDS}")
    play(config, folder=short / "undisturbed")
    members, run = Provisioned(short / "all", config), short / "run"
    members.begin(run)
    with ExitStack() as stack:
        agents = [stack.enter_context(agent_process(members.policy_file(name))) for name in NAMES]
        sockets = [str(agent.socket) for agent in agents]
        for point in POINTS:
            assert play_in_child(run, sockets, point) == KILLED, f"{point} was never reached"
        assert play_in_child(run, sockets) == 0
    assert [record["updates"] for record in records_of(run)] == [sorted(NAMES)] * ROUNDS
    assert np.array_equal(adapter_of(run), adapter_of(short / "undisturbed"))
    assert (run / "summary.json").is_file()
    assert [len(members.charges(name)) for name in NAMES] == [ROUNDS] * 3
