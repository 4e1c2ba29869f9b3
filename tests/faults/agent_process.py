"""An institution's agent as a process of its own, at its socket; it can be told where to die, and what time it is."""

from __future__ import annotations

import datetime as date_and_time
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import fedft.ledger.store
import fedft.training.local
from fedft.config import load_policy
from fedft.deployment.agent import Agent
from fedft.deployment.agent_http import serve
from fedft.ledger.store import Ledger
from tests.deployment.fake_agent import client_of, is_answering, wait_for
from tests.dying import dying, processes

POINTS: dict[str, Callable[[], None]] = {
    "before the intent": dying(Ledger, "record_intent"),
    "after the intent": dying(Ledger, "record_intent", after=True),
    "while training": dying(fedft.training.local, "per_example_loss", nth=2),
    "before the release": dying(Ledger, "record_release"),
    "after the release": dying(Ledger, "record_release", after=True),
    "before the reply": dying(Agent, "answer", after=True),
}
"""Of one answer, in its order."""


class AgentProcess:
    """Started, and stopped by ``stop`` or by its own death."""

    def __init__(
        self, policy: Path, *, point: str | None = None, clock_s: float = 0.0, group: int | None = None
    ) -> None:
        self.socket = load_policy(policy).agent.socket
        self._process = processes.Process(target=_serve, args=(str(policy), point, clock_s, group))
        self._process.start()
        wait_for(lambda: is_answering(self.socket) or not self._process.is_alive(), 60)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def client(self) -> httpx.Client:
        return client_of(self.socket)

    def ask(self, body: bytes) -> bytes:
        """Its answer. Raises httpx.TransportError when it dies over it."""
        with self.client() as client:
            return client.post("/v1/answer", content=body, timeout=120).raise_for_status().content

    def stop(self) -> int:
        """Its exit code; negative when a signal ended it."""
        if self._process.is_alive():
            self._process.terminate()
        return self.ended()

    def ended(self) -> int:
        self._process.join(60)
        code = self._process.exitcode
        assert code is not None
        return code


@contextmanager
def agent_process(policy: Path, **options: Any) -> Iterator[AgentProcess]:
    process = AgentProcess(policy, **options)
    try:
        yield process
    finally:
        process.stop()


def _serve(policy: str, point: str | None, clock_s: float, group: int | None) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    if group is not None:
        os.setgid(group)
    if clock_s:
        _set_clock(clock_s)
    if point is not None:
        POINTS[point]()
    allowed = load_policy(policy)
    agent = Agent(allowed)
    serve(agent, allowed)
    agent.close()


def _set_clock(ahead_s: float) -> None:
    """What fedft reads of this process's time; never put back."""
    real, ahead = time.time, date_and_time.timedelta(seconds=ahead_s)

    class Shifted(date_and_time.datetime):
        @classmethod
        def now(cls, tz: date_and_time.tzinfo | None = None) -> Shifted:
            return super().now(tz) + ahead

    setattr(time, "time", lambda: real() + ahead_s)  # noqa: B010 - not for good
    setattr(fedft.ledger.store, "datetime", Shifted)  # noqa: B010
