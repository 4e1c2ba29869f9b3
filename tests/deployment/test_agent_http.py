"""The agent's socket: what it answers, what it turns away, and that masses of requests change nothing."""

from __future__ import annotations

import logging
import socket
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from fedft import __version__
from fedft.errors import ConfigError, IdentityError, StorageError
from fedft.identity.keys import PrivateKey
from fedft.identity.signed import seal
from fedft.rounds.messages import ANSWER_LABEL, encode_answer
from fedft.update.envelope import seal as seal_update
from fedft.update.release import Refusal
from tests.deployment.fake_agent import FakeAgent, claiming, client_of, lines_of, policy_in, served, wait_for

CANARY = "zq7canary"
KEY = PrivateKey.generate()


def test_an_answer_is_the_agents_bytes(folder: Path) -> None:
    agent = FakeAgent()
    with served(agent, policy_in(folder)) as client:
        reply = client.post("/v1/answer", content=b"a request")
    assert (reply.status_code, reply.content) == (200, b"answer to a request")
    assert reply.headers["content-type"] == "application/octet-stream"
    assert agent.asked == [b"a request"]


def test_a_roll_call_is_answered_also_while_one_trains(folder: Path) -> None:
    agent = FakeAgent()
    agent.may_answer.clear()
    with served(agent, policy_in(folder)) as client, ThreadPoolExecutor(1) as others:
        training = others.submit(client.post, "/v1/answer", content=b"slow")
        wait_for(lambda: agent.at_once == 1)
        assert client.post("/v1/roll-call", content=b"a nonce").content == b"north, asked with a nonce"
        agent.may_answer.set()
        assert training.result().status_code == 200


def test_health_says_what_goes_on_also_while_one_trains(folder: Path) -> None:
    agent = FakeAgent()
    agent.may_answer.clear()
    with served(agent, policy_in(folder)) as client, ThreadPoolExecutor(3) as others:
        still = {"status": "ok", "version": __version__, "name": "north", "training": False, "waiting": 0}
        assert client.get("/v1/health").json() == still
        asked = [others.submit(client.post, "/v1/answer", content=b"slow") for _ in range(3)]
        wait_for(lambda: client.get("/v1/health").json() == {**still, "training": True, "waiting": 2})
        agent.may_answer.set()
        assert [one.result().status_code for one in asked] == [200] * 3
        assert client.get("/v1/health").json() == still


def test_one_is_trained_at_a_time_always_by_the_same_thread(folder: Path) -> None:
    agent = FakeAgent()
    with served(agent, policy_in(folder, queue=8)) as client, ThreadPoolExecutor(8) as others:
        replies = list(others.map(lambda number: client.post("/v1/answer", content=b"%d" % number), range(8)))
    assert sorted(reply.content for reply in replies) == sorted(b"answer to %d" % number for number in range(8))
    assert (agent.most_at_once, len(agent.threads)) == (1, 1)


def test_more_than_may_wait_are_busy_in_the_agents_own_name(folder: Path) -> None:
    agent = FakeAgent()
    agent.may_answer.clear()
    with served(agent, policy_in(folder, queue=2)) as client, ThreadPoolExecutor(3) as others:
        full = {"training": True, "waiting": 2}  # waiting alone is also 2 when two have come and neither is begun
        asked = [others.submit(client.post, "/v1/answer", content=b"slow") for _ in range(3)]
        wait_for(lambda: full.items() <= client.get("/v1/health").json().items())
        for path in ("answer", "unmask"):
            reply = client.post(f"/v1/{path}", content=b"one more")
            assert (reply.status_code, reply.content) == (200, b"busy: one more")
        assert claiming(folder, "9" * 15) == (413, {"error": "too-large"})
        assert client.get("/v1/health").json()["waiting"] == 2
        agent.may_answer.set()
        assert [one.result().status_code for one in asked] == [200] * 3
        assert client.post("/v1/answer", content=b"now").status_code == 200
    assert agent.asked == [b"slow"] * 3 + [b"now"]


def test_without_a_queue_the_second_is_busy(folder: Path) -> None:
    agent = FakeAgent()
    agent.may_answer.clear()
    with served(agent, policy_in(folder, queue=0)) as client, ThreadPoolExecutor(1) as others:
        first = others.submit(client.post, "/v1/answer", content=b"slow")
        wait_for(lambda: agent.at_once == 1)
        assert client.post("/v1/answer", content=b"x").content == b"busy: x"
        agent.may_answer.set()
        assert first.result().status_code == 200


def test_of_those_that_find_it_busy_one_is_read_at_a_time(folder: Path) -> None:
    agent = FakeAgent()
    agent.may_answer.clear()
    with served(agent, policy_in(folder, queue=0)) as client, ThreadPoolExecutor(2) as others:
        first = others.submit(client.post, "/v1/answer", content=b"slow")
        wait_for(lambda: agent.at_once == 1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as half:
            half.connect(str(folder / "agent.sock"))
            half.sendall(b"POST /v1/answer HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf")
            time.sleep(0.2)
            behind = others.submit(client.post, "/v1/answer", content=b"x")
            time.sleep(0.3)
            assert not behind.done()
        assert behind.result().content == b"busy: x"
        agent.may_answer.set()
        assert first.result().status_code == 200


def test_a_busy_agent_says_nothing_to_who_is_not_the_coordinator(folder: Path) -> None:
    agent = Strict()
    agent.may_answer.clear()
    policy = policy_in(folder, queue=0)
    with served(agent, policy) as client, ThreadPoolExecutor(1) as others:
        first = others.submit(client.post, "/v1/answer", content=b"slow")
        wait_for(lambda: agent.at_once == 1)
        refused = client.post("/v1/answer", content=b"x")
        assert (refused.status_code, refused.json()) == (400, {"error": "identity"})
        agent.may_answer.set()
        assert first.result().status_code == 200


class Strict(FakeAgent):
    def busy(self, event: str, body: bytes) -> bytes:
        raise IdentityError(CANARY)


def test_who_has_gone_is_not_trained_for(folder: Path) -> None:
    agent = FakeAgent()
    agent.may_answer.clear()
    policy = policy_in(folder)
    with served(agent, policy) as client, ThreadPoolExecutor(1) as others:
        first = others.submit(client.post, "/v1/answer", content=b"slow")
        wait_for(lambda: agent.at_once == 1)
        with client_of(policy.agent.socket) as leaving, pytest.raises(httpx.ReadTimeout):
            leaving.post("/v1/answer", content=b"never asked", timeout=0.2)
        agent.may_answer.set()
        assert first.result().status_code == 200
        wait_for(lambda: client.get("/v1/health").json()["waiting"] == 0)
    assert agent.asked == [b"slow"]


class Failing(FakeAgent):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def answer(self, body: bytes) -> bytes:
        raise self._error

    roll_call = answer


@pytest.mark.parametrize("path", ["/v1/answer", "/v1/roll-call"])
@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (IdentityError(CANARY), 400, "identity"), (ConfigError(CANARY), 400, "config"),
        (RuntimeError(CANARY), 500, "internal"), (MemoryError(CANARY), 500, "internal"),
    ],
)  # fmt: skip
def test_an_error_is_one_word_and_its_text_stays(
    folder: Path, path: str, error: Exception, status: int, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    policy = policy_in(folder)
    with served(Failing(error), policy) as client:
        refused = client.post(path, content=b"x")
        assert client.get("/v1/health").json()["training"] is False
    assert (refused.status_code, refused.json()) == (status, {"error": word})
    captured = capfd.readouterr()
    assert CANARY not in f"{refused.text} {refused.headers} {policy.agent.log.read_text()} {captured}"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/v1/answer", 405), ("POST", "/v1/health", 405), ("GET", "/docs", 404),
        ("POST", "/v2/answer", 404), ("GET", "/v1/../ledger.sqlite", 404), ("PUT", "/v1/answer", 405),
    ],
)  # fmt: skip
def test_there_are_three_doors_and_no_other(folder: Path, method: str, path: str, status: int) -> None:
    agent = FakeAgent()
    with served(agent, policy_in(folder)) as client:
        assert client.request(method, path).status_code == status
    assert agent.asked == []


def update() -> bytes:
    delta = np.zeros(3, np.float32)
    return seal_update(
        run="run-1", round=2, institution="north", plan_digest="1" * 64, layout_digest="2" * 64, delta=delta
    )


@pytest.mark.parametrize(
    ("answer", "outcome"), [(update(), "update"), (Refusal("north", "run-1", 2, "policy"), "policy")]
)
def test_the_log_says_which_round_and_how_it_went(folder: Path, answer: bytes | Refusal, outcome: str) -> None:
    policy = policy_in(folder)
    sealed = seal(ANSWER_LABEL, encode_answer(answer), KEY)
    with served(FakeAgent(lambda _: sealed), policy) as client:
        client.post("/v1/answer", content=b"x")
    (line,) = [line for line in lines_of(policy) if line["event"] == "answer"]
    assert {"run": "run-1", "round": 2, "outcome": outcome}.items() <= line.items()
    assert line.keys() == {"time", "event", "run", "round", "outcome", "seconds"}
    assert 0 <= line["seconds"] < 10


def test_the_log_is_for_its_owner_alone(folder: Path) -> None:
    policy = policy_in(folder)
    with served(FakeAgent(), policy):
        assert stat.S_IMODE(policy.agent.log.stat().st_mode) == 0o600


def test_what_fedft_says_is_in_the_log_and_nowhere_else(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def answer(body: bytes) -> bytes:
        logging.getLogger("fedft.rounds.institution").warning("refuses: 17 units")
        return body

    policy = policy_in(folder)
    with served(FakeAgent(answer), policy) as client:
        client.post("/v1/answer", content=b"x")
    assert [line["text"] for line in lines_of(policy) if line["event"] == "note"] == ["refuses: 17 units"]
    assert not caplog.records, "the root logger, which writes to the terminal, hears nothing"


def test_without_a_log_it_does_not_begin(folder: Path) -> None:
    with pytest.raises(StorageError, match=r"agent\.log"), served(FakeAgent(), policy_in(folder, log="no/agent.log")):
        pass
