"""An agent that trains nothing, behind a real socket: in a thread here, or as a process of its own."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from fedft.config import InstitutionPolicy, load_policy, parse_policy, policy_template
from fedft.deployment.agent_http import AgentServer, Desk, serve
from fedft.deployment.agent_log import agent_log
from fedft.deployment.agent_socket import bound_socket

TEMPLATE = policy_template("north", "hospitals", "ed25519:" + "a1" * 32)


class FakeAgent:
    """Answers with what it was sent, once it may; a callable as ``then`` decides instead."""

    def __init__(self, then: Callable[[bytes], bytes] | None = None) -> None:
        self._then = then
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked: list[bytes] = []
        self.at_once = self.most_at_once = 0
        self.threads: set[int] = set()

    def answer(self, body: bytes) -> bytes:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.threads.add(threading.get_ident())
        try:
            self.asked.append(body)
            self.may_answer.wait(20)
            return b"answer to " + body if self._then is None else self._then(body)
        finally:
            self.at_once -= 1

    def unmask(self, body: bytes) -> bytes:
        return b"shares for " + body if self._then is None else self._then(body)

    def roll_call(self, body: bytes) -> bytes:
        return b"north, asked with " + body if self._then is None else self._then(body)

    def busy(self, event: str, body: bytes) -> bytes:
        return b"busy: " + body if self._then is None else self._then(body)

    def receipt(self, body: bytes) -> bytes:
        return b"receipt for " + body if self._then is None else self._then(body)


class SlowAgent:
    """For another process: answers b"slow" when a file "go" stands in the folder, and anything else at once."""

    def __init__(self, folder: Path) -> None:
        self._go = folder / "go"

    def answer(self, body: bytes) -> bytes:
        (self._go.parent / "begun").touch()
        while body == b"slow" and not self._go.exists():
            time.sleep(0.02)
        return b"done: " + body

    def unmask(self, body: bytes) -> bytes:
        return b"shares: " + body

    def receipt(self, body: bytes) -> bytes:
        return b"receipt: " + body

    def roll_call(self, body: bytes) -> bytes:
        return b"north"

    def busy(self, event: str, body: bytes) -> bytes:
        return b"busy: " + body


@contextmanager
def home() -> Iterator[Path]:
    """A folder of a short path: a socket's may have a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="fedft-") as folder:
        yield Path(folder)


def policy_in(folder: Path, **agent: Any) -> InstitutionPolicy:
    body = tomllib.loads(TEMPLATE)
    body["agent"] |= agent
    return parse_policy(body, folder=folder)


def client_of(path: Path, **options: Any) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent", timeout=30, **options)


@contextmanager
def served(agent: FakeAgent, policy: InstitutionPolicy) -> Iterator[httpx.Client]:
    """``agent`` at the policy's socket, in a thread of this process, and a client that speaks to it."""
    with agent_log(policy.agent.log) as events, bound_socket(policy.agent.socket) as bound:
        desk = Desk(agent, policy, events)
        server = AgentServer(desk, policy)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            with closing(desk), client_of(policy.agent.socket) as client:
                yield client
                server.stop()
        finally:
            agent.may_answer.set()
            server.stop()
            thread.join(30)
    assert not thread.is_alive()


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def lines_of(policy: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in policy.agent.log.read_text().splitlines()]


def claiming(folder: Path, length: str) -> tuple[int, Any]:
    """Status and words for a request of which nothing comes but the length it claims."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.connect(str(folder / "agent.sock"))
        asking.settimeout(10)
        asking.sendall(b"POST /v1/answer HTTP/1.1\r\nhost: agent\r\ncontent-length: %s\r\n\r\n" % length.encode())
        reply = b"".join(iter(lambda: asking.recv(4096), b""))
    return int(reply.split()[1]), json.loads(reply.split(b"\r\n\r\n")[1])


def is_living(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def is_answering(path: Path) -> bool:
    with client_of(path) as client:
        try:
            return client.get("/v1/health").is_success
        except httpx.TransportError:
            return False


def play(policy: str) -> None:
    """A process of its own: SlowAgent by the policy in this file."""
    serve(SlowAgent(Path(policy).parent), load_policy(policy))
