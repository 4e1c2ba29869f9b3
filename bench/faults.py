"""Deaths of a federation of agents, at random instants, and what is left of its run.

    python bench/faults.py [--quick] [--kills 200] [--minutes 30] [--write bench/results/faults.json]
    python bench/faults.py --superlink-down 80 [--empty-database]      # needs nginx, and a minute or two more
    python bench/faults.py --network-down 60

Without an option the coordinator dies. Three agents are processes of their own, each with key, policy, rows and ledger;
the coordinator is another one, that asks them through the relay and their sockets, without Flower's network. It is
killed by kill -9 after a random time, begun again on its folder, killed again; a run that ends is compared and the next
one begun. Privacy is off, so that a run is a function of its seed: ``identical`` says whether every run ended with the
undisturbed run's adapter bit for bit, ``charged_once`` whether each ledger has each round of each run exactly once.
``died_after`` counts deaths by the last thing that the coordinator had told.

The other two play a rehearsal with everything that organisations would run, kill -9 its SuperLink, or one institution's
way to it, and start it again after that many seconds. What a person would do is done, and counted in ``resumed``;
``identical`` compares with the simulation of the same federation, and is null if a round went on without somebody.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _result import emit

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ROOT / "scenarios"
INSTITUTIONS, ROUNDS, WARM_UP_S = 3, 10, 120.0

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["fedft.deployment.agent", "fedft.deployment.agent_http", "fedft.flower.local_grid"])


def federation(rounds: int) -> Any:
    """Little work, all that a round has."""
    from fedft.config import parse_config

    body = {
        "federation": {"name": "faults", "rounds": rounds, "seed": 1, "round_timeout_s": 900},
        "model": {"base": "model"},
        "adapter": {"rank": 4, "alpha": 8},
        "task": {"kind": "classification", "max_length": 32},
        "data": {
            "train": "synthetic/data/hospitals-train.jsonl",
            "evaluation": "synthetic/data/hospitals-evaluation.jsonl",
            "unit": "patient",
            "partition": {"method": "iid", "institutions": INSTITUTIONS},
        },
        "training": {"local_steps": 1, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"},
        "privacy": {"mode": "off"},
        "evaluation": {"max_rows": 50},
    }
    return parse_config(body, folder=SCENARIOS)


def serve_agent(policy: str) -> None:
    """A process of its own: one institution, until SIGTERM."""
    from fedft.config import load_policy
    from fedft.deployment.agent import Agent
    from fedft.deployment.agent_http import serve

    _be_quiet()
    allowed = load_policy(policy)
    agent = Agent(allowed)
    serve(agent, allowed)
    agent.close()


def coordinate(run: str, sockets: Sequence[str]) -> None:
    """A process of its own: the run in this folder to its end, through the relay that Flower would send."""
    from fedft.deployment.coordinator import play_on
    from fedft.flower.local_grid import LocalGrid

    _be_quiet()
    sys.path.insert(0, str(ROOT))
    from client.app import app

    grid = LocalGrid(app, len(sockets))
    for node, socket in enumerate(sockets, start=1):
        grid._contexts[node].node_config["agent"] = socket
    play_on(lambda strategy: strategy.start(grid), Path(run))


def _be_quiet() -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)


class Federation:
    """Provisioned, with living agents."""

    def __init__(self, folder: Path, rounds: int) -> None:
        from fedft.deployment import rehearse

        self.folder, self.config = folder, federation(rounds)
        rehearse._may_choose_users = lambda: False
        self.coordinator, self.homes = rehearse.provision(self.config, folder / "all")
        self.policies = {name: home.folder / "policy.toml" for name, home in self.homes.items()}
        self.sockets = [str(home.folder / "agent.sock") for home in self.homes.values()]
        self.runs: list[Path] = []

    @contextmanager
    def living(self) -> Iterator[None]:
        agents = [_processes.Process(target=serve_agent, args=(str(policy),)) for policy in self.policies.values()]
        for agent in agents:
            agent.start()
        try:
            end = time.monotonic() + WARM_UP_S
            while not all(Path(socket).exists() for socket in self.sockets):
                if time.monotonic() > end or not all(agent.is_alive() for agent in agents):
                    raise RuntimeError("an agent did not start: see its agent.log")
                time.sleep(0.05)
            yield
        finally:
            for agent in agents:
                agent.terminate()
            for agent in agents:
                agent.join()

    def begin(self) -> Path:
        from fedft.deployment import coordinate as runs

        self.runs.append(self.folder / f"run-{len(self.runs)}")
        runs.begin(self.config, self.runs[-1], self.coordinator)
        return self.runs[-1]

    def play(self, run: Path, *, life_s: float | None = None) -> bool:
        """Whether it came to its end before it was killed."""
        process = _processes.Process(target=coordinate, args=(str(run), self.sockets))
        process.start()
        if life_s is not None:
            process.join(life_s)
            process.kill()
        process.join()
        code = process.exitcode
        if code not in (0, -9):
            raise RuntimeError(f"the coordinator ended with {code}: {last_event(run)}")
        return code == 0

    def charged_once(self) -> bool:
        """Each round of each run, in each ledger, exactly once."""
        from fedft.ledger.store import Ledger

        expected = {
            (json.loads((run / "config.json").read_text())["run"], number): 1
            for run in self.runs
            for number in range(1, self.config.federation.rounds + 1)
        }
        for home in self.homes.values():
            with Ledger.open(home.folder / "ledger.sqlite", read_only=True) as ledger:
                entries = [entry.fields for entry in ledger.entries() if entry.kind == "intent"]
            if Counter((fields["run"], fields["round"]) for fields in entries) != expected:
                return False
        return True


def adapter_of(run: Path) -> npt.NDArray[np.float32]:
    from fedft.model.checkpoint import read_checkpoint

    newest = sorted((run / "checkpoints").glob("round-*"))[-1]
    return np.asarray(read_checkpoint(newest)[0]["adapter"])


def last_event(run: Path) -> str:
    """What the coordinator told last, in one word."""
    with suppress(OSError, ValueError, IndexError):
        return str(json.loads((run / "events.jsonl").read_bytes().splitlines()[-1])[0])
    return "nothing"


def random_kills(folder: Path, kills: int, rounds: int, minutes: float, seed: int) -> dict[str, Any]:
    members, begun = Federation(folder, rounds), time.monotonic()
    died_after: Counter[str] = Counter()
    rng = np.random.default_rng(seed)
    with members.living():
        members.play(members.begin())  # loads the models
        timed = time.monotonic()
        undisturbed = members.begin()
        members.play(undisturbed)
        whole_s, expected = time.monotonic() - timed, adapter_of(undisturbed)
        different = ended = 0
        run, end = members.begin(), begun + 60 * minutes
        while died_after.total() < kills and time.monotonic() < end:
            told = (run / "events.jsonl").stat().st_size if (run / "events.jsonl").exists() else 0
            if members.play(run, life_s=float(rng.uniform(0, whole_s / 2))):
                ended += 1
                different += not np.array_equal(adapter_of(run), expected)
                run = members.begin()
                continue
            now = (run / "events.jsonl").stat().st_size if (run / "events.jsonl").exists() else 0
            died_after[last_event(run) if now > told else "before it told anything"] += 1
        members.play(run)
        different += not np.array_equal(adapter_of(run), expected)
    return {
        "kills": died_after.total(),
        "identical": different == 0,
        "charged_once": members.charged_once(),
        "seconds": time.monotonic() - begun,
        "runs": ended + 1,
        "different": different,
        "rounds": rounds,
        "institutions": INSTITUTIONS,
        "died_after": dict(sorted(died_after.items())),
        "seconds_of_an_undisturbed_run": whole_s,
        "seed": seed,
    }


class Watcher:
    """Plays a rehearsal's run in a thread, and resumes it as often as it must be."""

    def __init__(self, made: Any) -> None:
        from fedft.rounds.progress import Observer

        watcher = self

        class Heard(Observer):
            def round_started(self, round: int, rounds: int, cohort: Sequence[str]) -> None:
                watcher.round = round

            def round_finished(self, record: Mapping[str, Any]) -> None:
                watcher.records.append(dict(record))

        self.round = 0
        self.records: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.summary: dict[str, Any] | None = None
        self._made, self._heard = made, Heard()
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def _play(self) -> None:
        from fedft.deployment import coordinate as runs
        from fedft.errors import FedftError

        while self.summary is None and len(self.said) < 100:
            try:
                self.summary = runs.play(self._made.run, self._made.coordinator, self._heard)
            except FedftError as error:
                self.said.append(str(error))
                time.sleep(5)

    def wait_for_round(self, number: int) -> None:
        while self.round < number and self._thread.is_alive():
            time.sleep(0.05)

    def wait(self) -> None:
        self._thread.join()


def program_down(folder: Path, *, program: str, down_s: float, empty: bool, rounds: int) -> dict[str, Any]:
    from fedft.deployment.rehearse import rehearsal
    from fedft.simulation.run import play

    config = federation(rounds)
    play(config, folder=folder / "simulated")
    with rehearsal(config, folder / "all") as made:
        name = program or f"{next(iter(made.homes))}-forwarder"
        watcher, registered = Watcher(made), 0
        watcher.wait_for_round(2)
        killed = time.monotonic()
        made.programs.kill(name, down_s=down_s)
        if empty:
            for file in (made.coordinator.folder / "superlink").glob("state.db*"):
                file.unlink()
        while not made.programs.is_running(name):
            time.sleep(0.2)
        up = time.monotonic()
        if empty:
            registered = register_again(made)
        watcher.wait()
        ended, restarts = time.monotonic(), {one: made.programs.restarts(one) for one in made.programs.names()}
    missing = sum(len(record["missing"]) for record in watcher.records)
    return {
        "program": name,
        "down_s": up - killed,
        "empty_database": empty,
        "finished": watcher.summary is not None,
        "resumed": sum("then resume" in said and "gone" in said for said in watcher.said),
        "said": sorted({said[:160] for said in watcher.said}),
        "registered_again": registered,
        "identical": None if missing else np.array_equal(adapter_of(made.run), adapter_of(folder / "simulated")),
        "answers_missing": missing,
        "seconds_from_up_to_the_end": ended - up,
        "restarts": {one: count for one, count in restarts.items() if count},
        "rounds": rounds,
    }


def register_again(made: Any) -> int:
    """fedft provision register, as soon as the SuperLink answers."""
    from fedft.errors import FederationError

    for _ in range(60):
        with suppress(FederationError):
            return len(made.coordinator.register())
        time.sleep(1)
    raise RuntimeError("the SuperLink did not come back")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three deaths of a run of three rounds")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30.0, help="no further death after these")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--superlink-down", type=float, metavar="SECONDS")
    parser.add_argument("--empty-database", action="store_true", help="the SuperLink comes back without its own")
    parser.add_argument("--network-down", type=float, metavar="SECONDS", help="one institution's forwarder")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    down_s = args.superlink_down or args.network_down
    with tempfile.TemporaryDirectory(prefix="fedft-") as folder:
        place = Path(folder).resolve()
        if down_s:
            program = "superlink" if args.superlink_down else ""
            figures = program_down(
                place, program=program, down_s=down_s, empty=args.empty_database, rounds=min(args.rounds, 4)
            )
        else:
            kills, rounds = (3, 3) if args.quick else (args.kills, args.rounds)
            figures = random_kills(place, kills, rounds, args.minutes, args.seed)
    emit("faults", figures, write=args.write)


if __name__ == "__main__":
    main()
