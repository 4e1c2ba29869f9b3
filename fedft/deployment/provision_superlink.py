"""Nodes of the SuperLink, through Flower's own command: flwr supernode register and unregister.

The SuperLink listens on loopback and takes these calls from whoever reaches it (docs/open-door.md), so they run on the
coordinator's machine.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedft.errors import FederationError

FLOWER_HOME = "flower"
SUPEREXEC_FILE = "superexec.secret"
TIMEOUT_S = 60
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""What Flower's programs run with: nothing is told to others."""

_ALREADY = "already in use"


def flower_configuration(connection: str, address: str, authority: Path) -> str:
    """config.toml for Flower's commands: one connection, which is also the default."""
    return (
        f"[superlink]\ndefault = {json.dumps(connection)}\n\n"
        f"[superlink.{json.dumps(connection)}]\naddress = {json.dumps(address)}\n"
        f"root-certificates = {json.dumps(str(authority))}\n"
    )


def flower_program(name: str) -> str:
    """A program of Flower beside this Python, or by its name."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else name


def superlink_command(folder: Path, *, port: int) -> list[str]:
    """How the coordinator's SuperLink is started: on loopback alone, with TLS, node authentication and a database.

    It starts no ServerApp itself: flower-superexec does, so that a run outlives the SuperLink.
    """
    return [flower_program("flower-superlink"), *superlink_arguments(f"{folder.resolve()}/superlink", port=port)]


def superlink_arguments(place: str, *, port: int) -> list[str]:
    """``place``: the folder superlink/ of the coordinator's."""
    return [
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--ssl-ca-certfile", f"{place}/ca.crt"),
        *("--ssl-certfile", f"{place}/server.crt", "--ssl-keyfile", f"{place}/server.key"),
        *("--enable-supernode-auth", "--database", f"{place}/state.db"),
        *("--isolation", "process", "--superexec-auth-secret-file", f"{place}/{SUPEREXEC_FILE}"),
        "--disable-runtime-dependency-installation",
    ]


def superexec_command(folder: Path, *, port: int) -> list[str]:
    """How the coordinator's SuperExec, which starts the ServerApp, is started: it alone knows the secret."""
    return [flower_program("flower-superexec"), *superexec_arguments(f"{folder.resolve()}/superlink", port=port)]


def superexec_arguments(place: str, *, port: int) -> list[str]:
    """``place``: the folder superlink/ of the coordinator's."""
    return [
        *("--runtime-api-address", f"127.0.0.1:{port}", "--root-certificates", f"{place}/ca.crt"),
        *("--superexec-auth-secret-file", f"{place}/{SUPEREXEC_FILE}"),
    ]


def register_node(folder: Path, superlink: str, *, name: str, public_key: Path) -> str | None:
    """Register a node's public key; its id, or None if the SuperLink knows the key already.

    Parameters
    ----------
    folder : the coordinator's folder
    superlink : a connection in Flower's configuration there, or host:port

    Raises
    ------
    FederationError
        The SuperLink cannot be reached, or says no.
    """
    said = _flwr(folder, superlink, "register", str(public_key.resolve()), more=("--name", name))
    if _ALREADY in said:
        return None
    found = re.search(r'"node-id":\s*"?(\d+)', said)
    if found is None:
        raise _failed("register", said)
    return found[1]


def unregister_node(folder: Path, superlink: str, node: str) -> None:
    """Take a node off the SuperLink, which then refuses its calls. Raises FederationError as register_node does."""
    said = _flwr(folder, superlink, "unregister", node)
    if '"success": true' not in said and "not found" not in said.lower():
        raise _failed("unregister", said)


def _flwr(folder: Path, superlink: str, verb: str, argument: str, *, more: tuple[str, ...] = ()) -> str:
    with _home(folder, superlink) as (home, connection):
        command = [flower_program("flwr"), "supernode", verb, argument, connection, *more, "--format", "json"]
        environment = {**os.environ, **QUIET, "FLWR_HOME": str(home)}
        try:
            done = subprocess.run(  # noqa: S603  a fixed program, and arguments that were checked
                command, env=environment, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _failed(verb, type(error).__name__) from error
        return done.stdout + done.stderr


@contextmanager
def _home(folder: Path, superlink: str) -> Iterator[tuple[Path, str]]:
    """Flower's home and a connection in it; for an address, one that is made for the call."""
    if ":" not in superlink:
        yield (folder / FLOWER_HOME).resolve(), superlink
        return
    with tempfile.TemporaryDirectory() as home:
        text = flower_configuration("given", superlink, (folder / "ca.crt").resolve())
        (Path(home) / "config.toml").write_text(text, encoding="utf-8")
        yield Path(home), "given"


def _failed(verb: str, said: str) -> FederationError:
    return FederationError(
        f"expected flwr supernode {verb} to succeed, found: {' '.join(said.split())[:300]}: "
        "start the SuperLink, check the address, and run fedft provision register"
    )
