"""Flower's commands, as its own parsers read them, and what fedft makes of their answers."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest

from fedft.deployment import provision_superlink
from fedft.deployment.provision_kit import supernode_command
from fedft.deployment.provision_superlink import (
    flower_configuration,
    flower_program,
    register_node,
    superlink_command,
    unregister_node,
)
from fedft.errors import FederationError
from tests.deployment.federation import Made

REGISTERED = '{"success": true, "node-id": "%s"}'


def parsed(parser: ArgumentParser, command: list[str]) -> Any:
    return parser.parse_args(command[1:])


def test_the_superlinks_command_is_one_and_closed(tmp_path: Path) -> None:
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink

    found = parsed(_parse_args_run_superlink(), superlink_command(tmp_path, port=8123))
    assert (found.host, found.port, found.insecure) == ("127.0.0.1", 8123, False)
    assert found.enable_supernode_auth
    assert found.isolation == "process"
    assert found.database == str(tmp_path / "superlink" / "state.db")
    assert found.runtime_dependency_install is False


def test_the_supernodes_command_is_flowers(tmp_path: Path) -> None:
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    parser = _parse_args_run_supernode()
    command = supernode_command(str(tmp_path), forwarder_port=9093, socket=str(tmp_path / "agent.sock"))
    found = parsed(parser, command)
    assert (found.superlink, found.insecure) == ("localhost:9093", False)
    assert found.root_certificates == str(tmp_path / "supernode" / "loopback.crt")
    assert found.node_config == f'agent="{tmp_path}/agent.sock"'
    assert found.runtime_dependency_install is False


def test_flower_reads_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.cli.flower_config import read_superlink_connection

    made = Made.at(tmp_path)
    monkeypatch.setenv("FLWR_HOME", str(made.coordinator.folder / "flower"))
    for name in (None, "hospitals"):
        connection = read_superlink_connection(name)
        assert connection.address == "127.0.0.1:8000"
        assert Path(str(connection.root_certificates)).samefile(made.coordinator.folder / "ca.crt")
        assert not connection.insecure
    assert '"a\\"b"' in flower_configuration('a"b', "127.0.0.1:1", tmp_path)


@pytest.fixture
def flwr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Flower's command: says what the file "answer" holds, and notes how it was called."""
    script = tmp_path / "flwr"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys, pathlib\n"
        f"pathlib.Path({str(tmp_path / 'called')!r}).open('a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"home = pathlib.Path(os.environ['FLWR_HOME'], 'config.toml')\n"
        f"pathlib.Path({str(tmp_path / 'home')!r}).write_text(home.read_text())\n"
        f"print(pathlib.Path({str(tmp_path / 'answer')!r}).read_text())\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(provision_superlink, "flower_program", lambda _: str(script))
    return tmp_path


def test_nodes_are_those_of_the_roster(flwr: Path) -> None:
    made = Made.at(flwr / "made")
    made.member("north")
    made.member("south")
    (flwr / "answer").write_text(REGISTERED % 7)
    assert made.coordinator.register() == ("north", "south")
    assert [one["registered"] for one in made.coordinator.listed()] == [True, True]
    (flwr / "answer").write_text('{"success": false, "error-message": "Public key already in use"}')
    assert made.coordinator.register() == ()
    made.coordinator.revoke("south")
    (flwr / "called").unlink()
    (flwr / "answer").write_text('{"success": true}')
    with pytest.raises(FederationError, match="register"):
        made.coordinator.register()
    lines = (flwr / "called").read_text().splitlines()
    assert lines[0] == "supernode unregister 7 hospitals --format json"
    assert lines[1].startswith("supernode register")
    assert not list((made.coordinator.folder / "revoked").rglob("node-id"))


def test_an_address_is_a_connection_too(flwr: Path) -> None:
    made = Made.at(flwr / "made")
    made.member("north")
    (flwr / "answer").write_text(REGISTERED % 9)
    made.coordinator.register("127.0.0.1:9999")
    assert 'address = "127.0.0.1:9999"' in (flwr / "home").read_text()
    assert (made.coordinator.folder / "members" / "north" / "node-id").read_text() == "9\n"


def test_a_superlink_that_says_no_or_nothing_is_an_error(flwr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made.at(flwr / "made")
    folder = made.coordinator.folder
    (flwr / "answer").write_text('{"success": false, "error-message": "Connection to the SuperLink is unavailable"}')
    with pytest.raises(FederationError, match="start the SuperLink"):
        register_node(folder, "hospitals", name="north", public_key=folder / "ca.crt")
    with pytest.raises(FederationError, match="unavailable"):
        unregister_node(folder, "hospitals", "7")
    (flwr / "answer").write_text("Node 7 not found")
    unregister_node(folder, "hospitals", "7")
    monkeypatch.setattr(provision_superlink, "flower_program", lambda _: "no-such-program")
    with pytest.raises(FederationError, match="FileNotFoundError"):
        unregister_node(folder, "hospitals", "7")


def test_a_program_is_taken_from_beside_this_python() -> None:
    assert Path(flower_program("flwr")).parent == Path(sys.executable).parent
    assert flower_program("no-such-program") == "no-such-program"
