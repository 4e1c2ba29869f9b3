"""The relay: bytes in, bytes out, patience with an agent that restarts, and "no answer" when there is none."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.user_config import UserConfig

import client.app as relay
from fedft.deployment.bundle import BUNDLE, write_bundle
from fedft.errors import IdentityError
from fedft.flower.local_grid import LocalGrid
from fedft.flower.records import body_content, body_of
from fedft.flower.strategy import FedftStrategy
from fedft.identity.keys import PrivateKey
from fedft.identity.signed import open_signed, seal
from fedft.rounds.messages import (
    ANSWER_LABEL,
    REQUEST_LABEL,
    ROLL_CALL_LABEL,
    decode_question,
    decode_request,
    encode_presence,
)
from tests.deployment.fake_agent import TEMPLATE, FakeAgent, home, is_living, policy_in, served, wait_for
from tests.rounds import small
from tests.rounds.small import COHORT, update_of

ROOT = Path(__file__).parents[2]
CANARY = "zq7canary"


@pytest.fixture
def folder() -> Iterator[Path]:
    with home() as path:
        yield path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RECONNECT_SECONDS", 0.3)
    monkeypatch.setattr(relay, "PAUSE_SECONDS", 0.05)


def context_at(socket: object, node: int = 1) -> Context:
    config = UserConfig({"agent": socket})  # type: ignore[dict-item]
    return Context(run_id=1, node_id=node, node_config=config, state=RecordDict(), run_config=UserConfig())


def message_of(content: RecordDict, kind: str = "train", ttl: float = 60.0) -> Message:
    grid = LocalGrid(relay.app, 1)
    message = grid.create_message(content, kind, 1, "group", ttl=ttl)
    grid.push_messages([message])
    return message


def carried(body: bytes, folder: Path, kind: str = "train") -> bytes:
    reply = relay.app(message_of(body_content(body), kind), context_at(str(folder / "agent.sock")))
    return body_of(reply.content)


def test_a_rounds_bytes_go_there_and_come_back(folder: Path) -> None:
    with served(FakeAgent(), policy_in(folder)):
        assert carried(b"a request", folder) == b"answer to a request"
        assert carried(b"a nonce", folder, "query") == b"north, asked with a nonce"


@pytest.mark.parametrize("size", [0, 1, relay.CHUNK_BYTES - 1, relay.CHUNK_BYTES, relay.CHUNK_BYTES + 1, 40 * 2**20])
def test_a_body_of_any_size_arrives_whole(folder: Path, size: int) -> None:
    body = os.urandom(size)
    agent = FakeAgent(lambda came: hashlib.sha256(came).digest() + came)
    with served(agent, policy_in(folder)):
        begun = time.monotonic()
        assert carried(body, folder) == hashlib.sha256(body).digest() + body
        assert time.monotonic() - begun < 15, "httpx copies what is left with every write of one long body"


def test_it_speaks_as_fedft_does_and_knows_nothing_of_it() -> None:
    assert RecordDict({relay.RECORD: ConfigRecord({relay.BODY: b"x"})}) == body_content(b"x")


def test_an_agent_that_starts_late_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PAUSE_SECONDS", 0.05)
    replies: list[bytes] = []
    waiting = threading.Thread(target=lambda: replies.append(carried(b"early", folder)))
    waiting.start()
    time.sleep(0.3)
    with served(FakeAgent(), policy_in(folder)):
        waiting.join(20)
    assert replies == [b"answer to early"]


DYING = """
import os, sys
from tests.deployment.fake_agent import SlowAgent, play
SlowAgent.answer = lambda *_: os.kill(os.getpid(), 9)
play(sys.argv[1])
"""


def test_an_agent_that_dies_at_work_is_asked_again_when_it_is_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PAUSE_SECONDS", 0.05)
    policy = folder / "policy.toml"
    policy.write_text(TEMPLATE)
    policy.chmod(0o600)
    dying = subprocess.Popen([sys.executable, "-c", DYING, str(policy)], cwd=ROOT)
    try:
        wait_for(lambda: is_living(folder / "agent.sock"), 60)
        replies: list[bytes] = []
        asking = threading.Thread(target=lambda: replies.append(carried(b"again", folder)))
        asking.start()
        assert dying.wait(30) == -9
        with served(FakeAgent(), policy_in(folder)):
            asking.join(20)
        assert replies == [b"answer to again"]
    finally:
        dying.kill()
        dying.wait(30)


def test_an_agents_busy_is_carried_as_its_own_words(folder: Path) -> None:
    agent = FakeAgent()
    agent.may_answer.clear()
    with served(agent, policy_in(folder, queue=0)):
        first = threading.Thread(target=lambda: carried(b"slow", folder))
        first.start()
        wait_for(lambda: agent.at_once == 1)
        assert carried(b"second", folder) == b"busy: second"
        agent.may_answer.set()
        first.join(20)


def test_who_waits_at_an_agent_that_stops_is_answered_by_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PAUSE_SECONDS", 0.05)
    stopping, replies = FakeAgent(), list[bytes]()
    stopping.may_answer.clear()
    asking = [threading.Thread(target=lambda body=body: replies.append(carried(body, folder))) for body in (b"1", b"2")]
    with served(stopping, policy_in(folder)) as agent:
        asking[0].start()
        wait_for(lambda: stopping.at_once == 1)
        asking[1].start()
        wait_for(lambda: agent.get("/v1/health").json()["waiting"] == 1)
        threading.Timer(0.5, stopping.may_answer.set).start()
    with served(FakeAgent(), policy_in(folder)):
        for one in asking:
            one.join(20)
    assert replies == [b"answer to 1", b"answer to 2"]
    assert stopping.asked == [b"1"]


class Failing(FakeAgent):
    def answer(self, body: bytes) -> bytes:
        raise self.error

    roll_call = answer
    error: Exception = RuntimeError(CANARY)


def refused(message: Message, socket: object) -> str:
    """All that Flower could learn of the error."""
    with pytest.raises(relay.NoAnswer) as caught:
        relay.app(message, context_at(socket))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert str(caught.value) == "no answer"
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["train", "query"])
def test_without_an_agent_it_says_no_answer_and_nothing_else(folder: Path, kind: str) -> None:
    begun = time.monotonic()
    assert CANARY not in refused(message_of(body_content(b"x"), kind), str(folder / f"{CANARY}.sock"))
    assert time.monotonic() - begun < 10


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("error", [IdentityError(CANARY), RuntimeError(CANARY)])
def test_an_agent_that_refuses_is_no_answer(folder: Path, error: Exception) -> None:
    agent = Failing()
    agent.error = error
    with served(agent, policy_in(folder)):
        assert CANARY not in refused(message_of(body_content(b"x")), str(folder / "agent.sock"))


ODD = {
    "nothing": RecordDict(),
    "another record": RecordDict({"other": ConfigRecord({"body": b"x"})}),
    "another field": RecordDict({"fedft": ConfigRecord({"update": b"x"})}),
    "text": RecordDict({"fedft": ConfigRecord({"body": CANARY})}),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", ODD)
def test_a_message_of_another_form_is_no_answer(folder: Path, name: str) -> None:
    assert CANARY not in refused(message_of(ODD[name]), str(folder / "agent.sock"))


@pytest.mark.usefixtures("impatient")
def test_a_node_that_does_not_know_its_agent_gives_no_answer() -> None:
    message = message_of(body_content(b"x"))
    with pytest.raises(relay.NoAnswer):
        relay.app(
            message,
            Context(run_id=1, node_id=1, node_config=UserConfig(), state=RecordDict(), run_config=UserConfig()),
        )
    refused(message, 17)


@pytest.mark.usefixtures("impatient")
def test_it_waits_no_longer_than_its_message_lives(folder: Path) -> None:
    agent = FakeAgent()
    agent.may_answer.clear()
    with served(agent, policy_in(folder)):
        begun = time.monotonic()
        refused(message_of(body_content(b"x"), ttl=1.0), str(folder / "agent.sock"))
        assert 0.5 < time.monotonic() - begun < 5
        agent.may_answer.set()
    assert agent.asked == [b"x"], "a request that takes too long is not sent again"


KEYS = {name: PrivateKey.generate() for name in ("coordinator", *COHORT)}


class Signing(FakeAgent):
    """An agent as far as its messages go: it checks who asks, answers with an update made by hand, and signs."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def answer(self, body: bytes) -> bytes:
        request, _ = decode_request(open_signed(REQUEST_LABEL, body, KEYS["coordinator"].public))
        return seal(ANSWER_LABEL, update_of(self._name, request), KEYS[self._name])

    def roll_call(self, body: bytes) -> bytes:
        nonce, _ = decode_question(open_signed(ROLL_CALL_LABEL, body, KEYS["coordinator"].public))
        return seal(ROLL_CALL_LABEL, encode_presence(nonce, self._name), KEYS[self._name])


def test_a_run_over_relays_and_sockets_ends_with_the_bits_it_has_without_them(tmp_path: Path) -> None:
    direct, over = small.coordinator(tmp_path / "direct"), small.coordinator(tmp_path / "relayed")
    small.play(direct)
    with ExitStack() as stack:
        grid = LocalGrid(relay.app, 3)
        for node, name in enumerate(COHORT, 1):
            at = stack.enter_context(home())
            stack.enter_context(served(Signing(name), policy_in(at)))
            grid._contexts[node] = context_at(str(at / "agent.sock"), node)
        FedftStrategy(
            over,
            round_timeout_s=30.0,
            sign=lambda label, payload: seal(label, payload, KEYS["coordinator"]),
            opened=lambda label, name, data: open_signed(label, data, KEYS[name].public),
        ).start(grid)
    assert [record["updates"] for record in over.state.records] == [list(COHORT)] * 4
    assert over.state.adapter.tobytes() == direct.state.adapter.tobytes()


def test_it_imports_flower_httpx_and_the_standard_library_alone() -> None:
    found: set[str] = set()
    for name in ("__init__.py", "app.py"):
        for node in ast.walk(ast.parse((ROOT / "client" / name).read_text())):
            if isinstance(node, ast.Import):
                found |= {one.name.split(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                found.add(str(node.module).split(".")[0])
    assert found - sys.stdlib_module_names == {"flwr", "httpx"}


def bundled(project: Path, into: Path) -> set[str]:
    """The files of the bundle that Flower makes of ``project``."""
    environment = {**os.environ, "FLWR_HOME": str(into / "home"), "FLWR_TELEMETRY_ENABLED": "0"}
    flwr = Path(sys.executable).with_name("flwr")
    done = subprocess.run(
        [flwr, "build", "--app", project], cwd=into, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (bundle,) = into.glob("*.fab")
    with zipfile.ZipFile(bundle) as files:
        return set(files.namelist())


FILES = {
    "pyproject.toml", ".info/CONTENT", "server/__init__.py", "server/app.py", "client/__init__.py", "client/app.py",
}  # fmt: skip


def test_what_flower_sends_is_the_server_app_the_relay_and_nothing_else(tmp_path: Path) -> None:
    assert set(BUNDLE) == {name for name in FILES if name.endswith(".py")}
    assert bundled(ROOT, tmp_path) == FILES


def test_what_coordinate_sends_is_the_same(tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    assert bundled(write_bundle(tmp_path / "bundle"), into) == FILES
