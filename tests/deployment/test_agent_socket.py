"""The socket's file, and how an agent starts, stops and comes back after a death: each with a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedft.deployment.agent_socket import LONGEST_PATH, bound_socket
from fedft.errors import ConfigError
from tests.deployment.fake_agent import TEMPLATE, client_of, is_answering, is_living, wait_for

ROOT = Path(__file__).parents[2]
SCRIPT = "import sys; from tests.deployment.fake_agent import play; play(sys.argv[1])"


@contextmanager
def process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An agent in a process of its own that answers: its socket is there before its log and its signal handlers are."""
    policy = folder / "policy.toml"
    policy.write_text(TEMPLATE)
    policy.chmod(0o600)
    started = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(policy)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_for(lambda: is_answering(folder / "agent.sock") or started.poll() is not None, 60)
        yield started
    finally:
        started.kill()
        started.wait(30)
        if started.stdout is not None:
            started.stdout.close()


def events(folder: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (folder / "agent.log").read_text().splitlines()]


def test_the_socket_is_for_its_owner_and_group_from_its_first_moment(folder: Path) -> None:
    path = folder / "agent.sock"
    with bound_socket(path):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert is_living(path)
    assert not path.exists()


def test_the_file_of_a_dead_agent_is_replaced(folder: Path) -> None:
    path = folder / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with bound_socket(path):
        assert is_living(path)


def test_a_living_agent_is_not_disturbed(folder: Path) -> None:
    path = folder / "agent.sock"
    with bound_socket(path):
        with pytest.raises(ConfigError, match="found one that lives"), bound_socket(path):
            pass
        assert is_living(path)


def test_a_file_of_another_kind_is_not_touched(folder: Path) -> None:
    path = folder / "agent.sock"
    path.write_text("a letter")
    with pytest.raises(ConfigError, match="found another file"), bound_socket(path):
        pass
    assert path.read_text() == "a letter"
    link = folder / "link.sock"
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="found another file"), bound_socket(link):
        pass


def test_another_agents_socket_is_not_taken_away_at_the_end(folder: Path) -> None:
    path = folder / "agent.sock"
    with bound_socket(path):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


@pytest.mark.parametrize("name", ["no/such/agent.sock", "x" * LONGEST_PATH])
def test_where_no_socket_can_be_it_says_so(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"agent\.socket"), bound_socket(folder / name):
        pass


def test_on_sigterm_the_running_answer_is_finished_and_what_waits_is_not_begun(folder: Path) -> None:
    with process(folder) as agent, ThreadPoolExecutor(2) as others:
        client = client_of(folder / "agent.sock")
        running = others.submit(client.post, "/v1/answer", content=b"slow")
        wait_for((folder / "begun").exists)
        waiting = others.submit(client_of(folder / "agent.sock").post, "/v1/answer", content=b"second")
        wait_for(lambda: client.get("/v1/health").json()["waiting"] == 1)
        agent.send_signal(signal.SIGTERM)
        wait_for(lambda: not is_living(folder / "agent.sock"))
        (folder / "go").touch()
        assert (running.result().status_code, running.result().content) == (200, b"done: slow")
        assert waiting.result().status_code == 503
        assert agent.wait(20) == 0
        assert agent.stdout is not None
        assert agent.stdout.read() == b""
    assert not (folder / "agent.sock").exists()
    assert events(folder) == ["started", "answer", "answer", "stopped"]


def test_without_work_it_stops_at_once_also_by_hand(folder: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with process(folder) as agent:
            agent.send_signal(number)
            assert agent.wait(20) == 0


def test_after_a_death_it_starts_again_at_the_same_place(folder: Path) -> None:
    with process(folder) as agent:
        agent.kill()
        agent.wait(20)
        assert (folder / "agent.sock").exists()
        with process(folder) as again:
            assert client_of(folder / "agent.sock").post("/v1/answer", content=b"x").content == b"done: x"
            assert again.poll() is None
    assert events(folder)[:2] == ["started", "started"]


def test_a_second_agent_at_one_socket_says_why_not(folder: Path) -> None:
    with process(folder) as first, process(folder) as second:
        assert second.wait(60) != 0
        assert second.stdout is not None
        assert b"found one that lives" in second.stdout.read()
        assert client_of(folder / "agent.sock").get("/v1/health").json()["status"] == "ok"
        assert first.poll() is None
