"""Code that the coordinator sends to a SuperNode runs as the relay's user: what that user can read of the institution.

The agent is a process here and answers meanwhile; the relay's user is another system user, as in fedft rehearse, the
kit and the compose file. Needs root.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedft.deployment import rehearse
from fedft.deployment.provision_relay import PROGRAMS
from fedft.deployment.rehearse import FIRST_USER, RELAY_GROUP
from tests.deployment.deployed import Provisioned
from tests.dying import processes
from tests.faults.agent_process import AgentProcess, agent_process
from tests.federation import federation

RELAY_USER = FIRST_USER + 500
HEALTH = b"GET /v1/health HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
THE_RELAYS = ("supernode", "relay", "agent.sock")
"""All that its group may see."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another system user reads")


@pytest.fixture(scope="module")
def answering(short_for_all: Path) -> Iterator[tuple[Provisioned, AgentProcess, bytes]]:
    """North's folder with the owners and modes of a rehearsal, its agent having answered; and the answered request."""
    short_for_all.chmod(0o711)
    members = Provisioned(short_for_all / "all", federation(short_for_all / "data"))
    rehearse._hand_over(members.homes["north"].folder, os.geteuid(), RELAY_USER)
    members.begin(short_for_all / "run")
    body = members.signed(*members.request(short_for_all / "run"))
    with agent_process(members.policy_file("north"), group=RELAY_GROUP) as agent:
        agent.ask(body)
        yield members, agent, body


def read_by_the_relay(path: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/bin/cat", str(path)], user=RELAY_USER, group=RELAY_GROUP, extra_groups=[], capture_output=True, check=False
    )


def test_the_relays_user_reads_neither_rows_nor_ledger_nor_key_nor_memory_while_the_agent_answers(
    answering: tuple[Provisioned, AgentProcess, bytes],
) -> None:
    members, agent, _ = answering
    home = members.homes["north"].folder
    files = {path.relative_to(home): path for path in home.rglob("*") if path.is_file()}
    assert {Path("rows.jsonl"), Path("ledger.sqlite"), Path("identity.key"), Path("policy.toml")} <= set(files)
    for name, path in files.items():
        done = read_by_the_relay(path)
        if name.parts[0] not in THE_RELAYS:
            assert (done.returncode, done.stdout) == (1, b""), f"{name} can be read"
            assert b"Permission denied" in done.stderr
    for part in ("mem", "maps", "environ"):
        done = read_by_the_relay(Path(f"/proc/{agent.pid}/{part}"))
        assert (done.returncode, done.stdout) == (1, b""), f"the agent's {part} can be read"
        assert b"Permission denied" in done.stderr
    assert read_by_the_relay(home / "supernode" / "node.key").returncode == 0, "the relay's own can be"
    assert asked_by_the_relay(agent) == b"HTTP/1.1 200 OK"


def test_the_relays_user_runs_its_program_and_cannot_change_it(
    answering: tuple[Provisioned, AgentProcess, bytes],
) -> None:
    relay = answering[0].homes["north"].folder / "relay"
    assert {path.name for path in relay.iterdir()} == {"relay.py", *PROGRAMS}
    for path in (relay, *relay.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o750
        assert path.stat().st_uid != RELAY_USER


def test_the_agents_log_is_its_owners_and_holds_no_row(answering: tuple[Provisioned, AgentProcess, bytes]) -> None:
    """Not the relay's: why a request was refused may say how many units there are, and the relay hears one word."""
    members, _, _ = answering
    home = members.homes["north"].folder
    assert stat.S_IMODE((home / "agent.log").stat().st_mode) == 0o600
    assert read_by_the_relay(home / "agent.log").returncode == 1
    said = (home / "agent.log").read_text()
    assert '"outcome": "update"' in said
    rows = [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()]
    assert not [row for row in rows if row["text"] in said or row["patient"] in said]


def asked_by_the_relay(agent: AgentProcess) -> bytes:
    """The first line of what the agent says to a process of the relay's user."""
    reader, writer = processes.Pipe(duplex=False)
    process = processes.Process(target=_ask, args=(str(agent.socket), writer))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    line = reader.recv_bytes()
    return bytes(line)


def _ask(path: str, writer: object) -> None:
    os.setgroups([])
    os.setgid(RELAY_GROUP)
    os.setuid(RELAY_USER)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(HEALTH)
        writer.send_bytes(connection.recv(4096).split(b"\r\n")[0])  # type: ignore[attr-defined]
