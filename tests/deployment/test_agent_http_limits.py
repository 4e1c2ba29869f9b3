"""The agent's socket turns away what is too long, too slow, too much or no HTTP."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

import fedft.deployment.agent_http
from fedft import __version__
from fedft.errors import IdentityError
from tests.deployment.fake_agent import FakeAgent, claiming, client_of, lines_of, policy_in, served, wait_for


@pytest.mark.parametrize("length", ["1025", "99999999999999", "9" * 20])
def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(folder: Path, length: str) -> None:
    agent = FakeAgent()
    with served(agent, policy_in(folder, max_request_bytes=1024)) as client:
        assert claiming(folder, length) == (413, {"error": "too-large"})
        assert client.post("/v1/answer", content=bytes(1024)).status_code == 200
    assert agent.asked == [bytes(1024)]


def test_a_body_that_is_too_long_is_refused_while_it_comes(folder: Path) -> None:
    """10 GB in chunks, of which no more is taken than the limit."""
    agent, sent = FakeAgent(), 0
    policy = policy_in(folder, max_request_bytes=4 * 2**20)

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 2**20
            yield bytes(2**20)

    with served(agent, policy) as client:
        before = memory()
        with suppress(httpx.ReadError, httpx.WriteError):  # the other end may be closed while this one writes
            assert client.post("/v1/answer", content=endless()).status_code == 413
        assert memory() - before < 40 * 2**20
        assert sent < 64 * 2**20
        wait_for(lambda: client.get("/v1/health").json()["waiting"] == 0)
    assert agent.asked == []
    assert {"answer: too-large"} <= {f"{line['event']}: {line.get('outcome')}" for line in lines_of(policy)}


def test_a_roll_call_as_long_as_a_request_is_refused(folder: Path) -> None:
    with served(FakeAgent(), policy_in(folder)) as client:
        assert client.post("/v1/roll-call", content=bytes(5000)).status_code == 413


def test_a_body_that_does_not_come_holds_no_place_for_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedft.deployment.agent_http, "READ_SECONDS", 0.2)
    agent = FakeAgent()
    policy = policy_in(folder, queue=0)
    with served(agent, policy) as client:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
            slow.connect(str(policy.agent.socket))
            slow.sendall(b"POST /v1/answer HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf")
            assert slow.recv(4096).startswith(b"HTTP/1.1 408")
        assert client.post("/v1/answer", content=b"x").status_code == 200
    assert agent.asked == [b"x"]


@pytest.mark.parametrize("raw", [b"\x16\x03\x01", b"GET\r\n\r\n", b"POST / HTTP/9\r\n\r\n", b"x" * 200_000])
def test_what_is_no_http_harms_nobody(folder: Path, raw: bytes) -> None:
    policy = policy_in(folder)
    with served(FakeAgent(), policy) as client:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as odd:
            odd.connect(str(policy.agent.socket))
            odd.settimeout(10)
            try:
                odd.sendall(raw)
                odd.shutdown(socket.SHUT_WR)
                odd.recv(4096)
            except OSError:
                pass
        assert client.get("/v1/health").status_code == 200


def memory() -> int:
    """Bytes of this process in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ten_thousand_requests_are_answered_or_refused_without_growth(folder: Path) -> None:
    """From four sides at once, a good part of them more than may wait, not signed, or too long."""
    agent = FakeAgent(lambda body: body if body == b"good" else _refuse())
    policy = policy_in(folder, queue=1, max_request_bytes=4096)
    bodies = [b"good", b"bad", bytes(5000), b"good"]

    def side(count: int) -> Counter[int]:
        with client_of(policy.agent.socket) as client:
            return Counter(client.post("/v1/answer", content=bodies[number % 4]).status_code for number in range(count))

    with served(agent, policy) as client, ThreadPoolExecutor(4) as sides:
        side(200)
        before, threads = memory(), threading.active_count()
        agent.asked = Forgetful()
        found = sum(sides.map(side, [2500] * 4), Counter())
        assert threading.active_count() <= threads + 5, "four sides, and the one thread that refuses"
        grown = memory() - before
        assert client.get("/v1/health").json() == {
            "status": "ok", "version": __version__, "name": "north", "training": False, "waiting": 0,
        }  # fmt: skip
    assert found.total() == 10_000
    assert found.keys() <= {200, 400, 413}
    assert min(found[status] for status in (200, 400, 413)) > 100
    assert grown < 16 * 2**20
    assert len(lines_of(policy)) < 10_000, "those turned away in masses share lines"


class Forgetful(list[bytes]):
    def append(self, item: bytes) -> None:
        """Nothing: what grows here would be the test's own."""


def _refuse() -> bytes:
    raise IdentityError("not signed")
