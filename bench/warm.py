"""From a request at the agent to the first training step, warm and cold.

    python bench/warm.py [--quick] [--base FOLDER] [--write bench/results/warm.json]

A real agent in a process of its own, provisioned as for fedft rehearse, asked over its Unix socket for rounds of
scenarios/hospitals.toml (patient-level DP, one hospital, the embedded model or that in ``--base``). What is timed ends
when the first loss of the round's first step is computed. It holds what an agent does before: signature, policy,
budget over all past events, the intent's fsync, loading the adapter, drawing the batch.

- ``warm_s``: a later round of the run, median;
- ``first_s``: the run's first round, at an agent that is up: the base model, the rows and the noise are made ready;
- ``cold_s``: the same first round at an agent that is started for it, as where each message starts a process: with
  Python's start and the imports of torch, transformers, peft and the rest, median.

``ratio`` is cold_s over warm_s. Goal: warm_s at most 0.3.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from _result import emit

SCENARIO = Path(__file__).resolve().parent.parent / "scenarios" / "hospitals.toml"
OVERRIDES = (
    "federation.min_institutions=1",
    "federation.rounds=60",
    "training.local_steps=1",
    "continual.method=none",
    "continual.strength=",
    "institutions=",
)


def serve_here(policy: str, first_losses: Any) -> None:
    """An agent, which tells when each round's first loss was computed."""
    from fedft.config import load_policy
    from fedft.deployment.agent import Agent
    from fedft.deployment.agent_http import serve
    from fedft.training import local, losses

    original: Callable[..., Any] = losses.per_example_loss
    told: set[int] = set()

    def timed(*args: Any) -> Any:
        found = original(*args)
        turn = len(told)
        if turn not in told and armed[0]:
            told.add(turn)
            armed[0] = False
            first_losses.put(time.monotonic())
        return found

    armed = [False]
    train = Agent.answer

    def answer(self: Agent, body: bytes) -> bytes:
        armed[0] = True
        return train(self, body)

    with patch.object(local, "per_example_loss", timed), patch.object(Agent, "answer", answer):
        allowed = load_policy(policy)
        agent = Agent(allowed)
        try:
            serve(agent, allowed)
        finally:
            agent.close()


class Asker:
    """The coordinator of one hospital, without a network: it asks, and steps with what comes."""

    def __init__(self, folder: Path, base: str | None) -> None:
        from fedft.assembly.coordinator import PublicParts, make_coordinator
        from fedft.config import load_config
        from fedft.deployment import rehearse
        from fedft.deployment.terms import terms_of
        from fedft.rounds.progress import Observer
        from fedft.rounds.run_folder import RunFolder

        config = load_config(SCENARIO, [*OVERRIDES, *([f"model.base={base}"] if base else [])])
        with patch.object(rehearse, "_may_choose_users", lambda: False):
            self.members, self.homes = rehearse.provision(config, folder)
        self.name = next(iter(self.homes))
        parts = PublicParts(config)
        self.terms = terms_of(config, labels=parts.labels, base_digest=parts.model.base_digest)
        self.runs = 0

        def begin() -> Any:
            self.runs += 1
            store = RunFolder(folder / f"run-{self.runs}")
            store.path.mkdir()
            return make_coordinator(
                parts, run=f"warm/{self.runs}", cohort=(self.name,), store=store, observer=Observer(), terms=self.terms
            )

        self.begin = begin

    def ask(self, coordinator: Any) -> float:
        """Play one round; when the request was sent, on the clock that all processes share."""
        import httpx

        from fedft.identity.keys import PrivateKey
        from fedft.identity.signed import open_signed, seal
        from fedft.rounds.messages import ANSWER_LABEL, REQUEST_LABEL, decode_answer, encode_request

        home = self.homes[self.name].folder
        request = coordinator.request()
        body = seal(REQUEST_LABEL, encode_request(request, self.terms), self.members.key)
        opened = coordinator.open_round(request)
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(home / "agent.sock"), retries=0), timeout=600
        ) as client:
            while True:
                try:
                    client.get("http://agent/v1/health")
                    break
                except httpx.HTTPError:
                    time.sleep(0.02)
            sent = time.monotonic()
            answer = client.post("http://agent/v1/answer", content=body)
        answer.raise_for_status()
        key = PrivateKey.load(home / "identity.key").public
        update = decode_answer(open_signed(ANSWER_LABEL, answer.content, key))
        if not isinstance(update, bytes):
            raise SystemExit(f"expected an update, found a refusal: {update.reason}; see {home / 'agent.log'}")
        opened.receive(self.name, update)
        coordinator.close(opened, bytes_down=0)
        return sent


def measured(folder: Path, base: str | None, *, rounds: int, starts: int) -> dict[str, Any]:
    asker = Asker(folder, base)
    fresh = multiprocessing.get_context("spawn")
    policy = str(asker.homes[asker.name].folder / "policy.toml")
    cold, first, warm = [], [], []
    for number in range(starts):
        losses: Any = fresh.Queue()
        agent = fresh.Process(target=serve_here, args=(policy, losses))
        begun = time.monotonic()
        agent.start()
        try:
            coordinator = asker.begin()
            sent = asker.ask(coordinator)
            seen = losses.get(timeout=60)
            cold.append(seen - begun)
            first.append(seen - sent)
            for _ in range(rounds if number == starts - 1 else 0):
                sent = asker.ask(coordinator)
                warm.append(losses.get(timeout=60) - sent)
        finally:
            agent.terminate()
            agent.join()
    return {
        "warm_s": statistics.median(warm),
        "first_s": statistics.median(first),
        "cold_s": statistics.median(cold),
        "ratio": statistics.median(cold) / statistics.median(warm),
        "warm_each": warm,
        "cold_each": cold,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one start, two warm rounds")
    parser.add_argument("--base", help="a base model's folder; default: the embedded one")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds, starts = (2, 1) if args.quick else (7, 3)
        figures = measured(Path(folder) / "all", args.base, rounds=rounds, starts=starts)
    emit("warm", figures, write=args.write)


if __name__ == "__main__":
    main()
