"""A round over TLS, without its training: fedft's against a plain Flower app with FedAvg that sends as many values.

    python bench/round_overhead.py [--quick] [--write bench/results/round_overhead.json]

Everything of fedft rehearse on loopback (proxy, SuperLink with TLS, node authentication and database, SuperExec; four
institutions with forwarder, SuperNode and agent), the embedded model, fedavg without privacy. On the same SuperLink and
SuperNodes runs a plain Flower app: FedAvg, whose clients send the received arrays back at once. Timed is a round at the
ServerApp, from before its messages are made to after its replies are aggregated; of fedft's the slowest agent's answer
is taken off, as its log tells it. Public rows are evaluated after the last round alone.

``ratio`` is fedft's over Flower's, medians, with Flower's own polling (3 s) on both sides; goal at most 1.1.
``masked_ratio``: fedft's with secure aggregation over fedft's without, both with their own polling; the second exchange
is all that may be added. ``ratio_default``: with fedft's own polling, 0.5 s at the coordinator. A SuperNode asks every
3 s in both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from _result import emit

from fedft.config import FederationConfig, load_config
from fedft.deployment import coordinate
from fedft.deployment.provision_superlink import FLOWER_HOME, QUIET, flower_program
from fedft.deployment.rehearse import Rehearsal, rehearsal
from fedft.model.checkpoint import read_checkpoint
from fedft.rounds.progress import Observer

SCENARIO = Path(__file__).resolve().parent.parent / "scenarios" / "hospitals.toml"
FLOWERS_POLL_S, OWN_POLL_S = 3.0, 0.5
MASKED = ("secure_aggregation.enabled=true", "secure_aggregation.range=10.0")

SERVER = """
import json, time
import numpy as np
from flwr.app import ArrayRecord, Array
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        self.begun = time.perf_counter()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        found = super().aggregate_train(server_round, list(replies))
        with open(self.path, "a") as file:
            file.write(json.dumps(time.perf_counter() - self.begun) + "\\n")
        return found


@app.main()
def main(grid, context):
    config = context.run_config
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=config["nodes"], min_available_nodes=config["nodes"])
    strategy.path = config["path"]
    arrays = ArrayRecord([np.zeros(config["values"], np.float32)])
    strategy.start(grid, initial_arrays=arrays, num_rounds=config["rounds"])
    with open(config["path"], "a") as file:
        file.write("null\\n")
"""

CLIENT = """
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)
"""

PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "plain"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = []

[tool.flwr.app]
publisher = "fedft"
fab-include = ["plain/*.py"]

[tool.flwr.app.components]
serverapp = "plain.server_app:app"
clientapp = "plain.client_app:app"

[tool.flwr.app.config]
path = ""
nodes = 0
rounds = 0
values = 0
"""


def plain_rounds(made: Rehearsal, folder: Path, *, rounds: int, values: int) -> list[float]:
    """Seconds of each round of the plain app on the rehearsal's SuperLink."""
    (folder / "plain").mkdir(parents=True)
    for name, text in {"plain/__init__.py": "", "plain/server_app.py": SERVER, "plain/client_app.py": CLIENT}.items():
        (folder / name).write_text(text)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "LICENSE").write_text("Apache-2.0\n")
    told = folder / "rounds.jsonl"
    home = made.coordinator.folder
    words = f"path={json.dumps(str(told))} nodes={len(made.homes)} rounds={rounds} values={values}"
    done = subprocess.run(
        [flower_program("flwr"), "run", str(folder), made.coordinator.federation.name, "--run-config", words],
        env={**os.environ, **QUIET, "FLWR_HOME": str(home / FLOWER_HOME)}, cwd=home, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    end = time.monotonic() + 60 + 30 * rounds
    while not (told.exists() and told.read_text().endswith("null\n")):
        if time.monotonic() > end or done.returncode:
            raise SystemExit(f"expected the plain app to end, found it did not: {done.stdout}{done.stderr}")
        time.sleep(0.5)
    return [json.loads(line) for line in told.read_text().splitlines()[:-1]]


def our_rounds(made: Rehearsal, config: FederationConfig, run: Path, *, poll_s: float) -> list[float]:
    """Seconds of each round beyond the slowest agent's answer."""
    coordinate.begin(config, run, made.coordinator, poll_s=poll_s)
    coordinate.play(run, made.coordinator, Observer())
    name = json.loads((run / "config.json").read_text())["run"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    answers = [
        {event["round"]: event["seconds"] for event in events if event["event"] == "answer" and event["run"] == name}
        for home in made.homes.values()
        if (events := [json.loads(line) for line in (home.folder / "agent.log").read_text().splitlines()])
    ]
    return [record["seconds"] - max(answer[record["round"]] for answer in answers) for record in records]


def measured(rounds: int, folder: Path) -> dict[str, Any]:
    sets = (
        f"federation.rounds={rounds}", f"evaluation.every={rounds}", "aggregation.method=fedavg", "privacy.mode=off",
        "privacy.epsilon=", "privacy.delta=", "privacy.clip_norm=", "continual.method=none", "continual.strength=",
        "training.local_steps=1", "training.learning_rate=0.01", "outcome.checks=[]",
    )  # fmt: skip
    config = load_config(SCENARIO, sets)
    with rehearsal(config, folder / "all") as made:
        own = our_rounds(made, config, folder / "own", poll_s=OWN_POLL_S)
        values = read_checkpoint(next((folder / "own" / "checkpoints").glob("round-*")))[0]["adapter"].size
        plain = plain_rounds(made, folder / "plain", rounds=rounds, values=values)
        masked = our_rounds(made, load_config(SCENARIO, (*sets, *MASKED)), folder / "masked", poll_s=OWN_POLL_S)
        equal = our_rounds(made, config, folder / "equal", poll_s=FLOWERS_POLL_S)
    kinds = (("plain", plain), ("equal", equal), ("own", own), ("masked", masked))
    median = {name: statistics.median(found) for name, found in kinds}
    return {
        "ratio": median["equal"] / median["plain"],
        "ratio_default": median["own"] / median["plain"],
        "masked_ratio": median["masked"] / median["own"],
        "seconds": {
            "flower": plain,
            "fedft, polling as Flower": equal,
            "fedft, its own polling": own,
            "fedft, masked": masked,
        },
        "values": values,
        "rounds": rounds,
        "institutions": len(made.homes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of each")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(2 if args.quick else 6, Path(folder))
    emit("round_overhead", figures, write=args.write)


if __name__ == "__main__":
    main()
