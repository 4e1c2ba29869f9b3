"""A whole federation on loopback with everything that organisations would run: what fedft rehearse does.

Coordinator: nginx, SuperLink with database, TLS and node authentication, SuperExec. Each institution: forwarder,
SuperNode, agent, with keys, policy, rows and ledger in a folder of its own, that belongs to a system user of its own
where this process runs as root. All of it is in one folder, started, watched and stopped by this process.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedft.assembly.coordinator import PublicParts
from fedft.assembly.shares import deal
from fedft.config import FederationConfig
from fedft.config.policy import policy_template
from fedft.data.examples import DataSet
from fedft.deployment import coordinate
from fedft.deployment.processes import Programs
from fedft.deployment.provision import Coordinator
from fedft.deployment.provision_institution import Institution
from fedft.deployment.provision_kit import supernode_command
from fedft.deployment.provision_relay import RELAY
from fedft.deployment.provision_superlink import QUIET, flower_program, superexec_command, superlink_command
from fedft.deployment.proxy import nginx_command
from fedft.errors import ConfigError
from fedft.identity.secret_files import write_secret
from fedft.rounds.progress import Observer

FIRST_USER = 61000
"""Agents run as this system user and those after it; SuperNodes from FIRST_USER + 500 on. Nobody else has them."""

RELAY_GROUP = 62000
ROWS = "rows.jsonl"
FLOWER = {**QUIET, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
"""Flower's programs start others of Flower by their names alone."""


@dataclass
class Home:
    """One institution of the rehearsal. agent_user None: everything runs as this process's user."""

    name: str
    folder: Path
    institution: Institution
    agent_user: int | None
    relay_user: int | None
    epsilon: float | None = None


@dataclass
class Rehearsal:
    """What runs, for whoever disturbs it."""

    folder: Path
    coordinator: Coordinator
    homes: Mapping[str, Home]
    programs: Programs
    run: Path

    def start_proxy(self) -> None:
        self.programs.start(
            "proxy",
            nginx_command(self.coordinator.folder / "proxy"),
            ready=lambda: _accepts(self.coordinator.federation.port),
        )

    def start_superlink(self) -> None:
        home, port = self.coordinator.folder, self.coordinator.superlink_port
        self.programs.start(
            "superlink",
            superlink_command(home, port=port),
            env=FLOWER,
            ready=lambda: _answers(port, home / "ca.crt"),
        )

    def start_superexec(self) -> None:
        home = self.coordinator.folder
        self.programs.start(
            "superexec",
            superexec_command(home, port=self.coordinator.superlink_port),
            env={**FLOWER, "FLWR_HOME": str(home / "superexec")},
        )

    def start_agent(self, name: str) -> None:
        home = self.homes[name]
        self.programs.start(
            f"{name}-agent",
            [sys.executable, "-m", "fedft", "agent", "--policy", str(home.folder / "policy.toml")],
            ready=lambda: _listens(home.folder / "agent.sock"),
            user=home.agent_user,
            group=None if home.agent_user is None else RELAY_GROUP,
            env={"HOME": str(home.folder)},
        )

    def start_relay(self, name: str) -> None:
        """The institution's forwarder and SuperNode."""
        home, port = self.homes[name], self.homes[name].institution.forwarder_port
        self.programs.start(
            f"{name}-forwarder",
            nginx_command(home.folder / "forwarder"),
            ready=lambda: _answers(port, home.folder / "forwarder" / "loopback.crt"),
        )
        program, *arguments = supernode_command(
            str(home.folder),
            forwarder_port=port,
            socket=str(home.folder / "agent.sock"),
            runtime_port=free_port(),
        )
        self.programs.start(
            f"{name}-supernode",
            [flower_program(program), *arguments],
            env={
                **FLOWER,
                "PATH": f"{home.folder / RELAY}{os.pathsep}{FLOWER['PATH']}",
                "FLWR_HOME": str(home.folder / "supernode" / "flower"),
                "HOME": str(home.folder / "supernode"),
            },
            user=home.relay_user,
            group=None if home.relay_user is None else RELAY_GROUP,
        )


@contextmanager
def rehearsal(config: FederationConfig, folder: Path) -> Iterator[Rehearsal]:
    """Everything provisioned and running, and a run prepared; stopped on leaving. What ends meanwhile is started again.

    Raises
    ------
    ConfigError
        The folder is in use, nginx is missing, or what is wrong with the file, its rows or its model.
    FederationError
        A program did not start; the message names its log.
    """
    if shutil.which("nginx") is None:
        raise ConfigError("expected nginx for the federation's door, found none: apt-get install nginx")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"expected a new or empty folder, found {folder} in use: choose another")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    coordinator, homes = provision(config, folder)
    with Programs(folder / "logs") as programs:
        made = Rehearsal(folder, coordinator, homes, programs, folder / "run")
        made.start_proxy()
        made.start_superlink()
        made.start_superexec()
        for name in homes:
            made.start_agent(name)
        programs.wait()
        coordinator.register()
        for name in homes:
            made.start_relay(name)
        programs.wait()
        coordinate.begin(config, made.run, coordinator)
        with programs.supervised():
            yield made


def rehearse(config: FederationConfig, folder: Path, observer: Observer) -> dict[str, Any]:
    """Play the federation across the programs of ``rehearsal``; the run's summary."""
    with rehearsal(config, folder) as made:
        return coordinate.play(made.run, made.coordinator, observer)


def provision(config: FederationConfig, folder: Path) -> tuple[Coordinator, dict[str, Home]]:
    """Keys, certificates, roster, and each institution's folder with its rows and policy."""
    _require_files(config)
    parts = PublicParts(config)
    shares = deal(config, parts.labels)
    if config.federation.min_institutions > len(shares):
        raise ConfigError(
            f"expected federation.min_institutions to be at most the {len(shares)} institutions of the data, found "
            f"{config.federation.min_institutions}: lower it"
        )
    coordinator = Coordinator.init(
        folder / "coordinator",
        name=config.federation.name,
        host="localhost",
        port=free_port(),
        listen="127.0.0.1",
        superlink_port=free_port(),
    )
    separate = _may_choose_users()
    homes: dict[str, Home] = {}
    for number, (name, (section, rows)) in enumerate(shares.items()):
        home = folder / "institutions" / name
        made = Institution.request(
            home,
            name=name,
            federation=config.federation.name,
            coordinator=coordinator.federation.coordinator,
            forwarder_port=free_port(),
        )
        coordinator.admit(coordinator.read_request(home / "request.json"))
        homes[name] = Home(
            name,
            home,
            made,
            agent_user=FIRST_USER + number if separate else None,
            relay_user=FIRST_USER + 500 + number if separate else None,
            epsilon=section.epsilon or config.privacy.epsilon,
        )
        _write_rows(rows, home / ROWS, unit=config.data.unit)
    for home_of in homes.values():
        _furnish(config, parts, coordinator, home_of)
    return coordinator, homes


def _furnish(config: FederationConfig, parts: PublicParts, coordinator: Coordinator, home: Home) -> None:
    """The kit, the policy, the base model, public rows; and the files' owners."""
    coordinator.kit(home.name, home.folder / "kit.tar.gz")
    home.institution.accept(home.folder / "kit.tar.gz")
    reference = None if config.data.reference is None else home.folder / "reference.jsonl"
    if reference is not None:
        shutil.copyfile(str(config.data.reference), reference)
    shutil.copytree(config.model.base, home.folder / "model")
    (home.folder / "policy.toml").unlink(missing_ok=True)
    write_secret(home.folder / "policy.toml", _policy(config, parts, home, reference).encode())
    if home.agent_user is not None and home.relay_user is not None:
        _hand_over(home.folder, home.agent_user, home.relay_user)


def _policy(config: FederationConfig, parts: PublicParts, home: Home, reference: Path | None) -> str:
    """What the federation file asks for, and nothing more: a rehearsal of the plan, not of the officer's judgement."""
    privacy, unprotected = config.privacy, config.privacy.mode == "off"
    values: dict[str, object] = {
        "models.sha256": parts.model.base_digest,
        "models.path": "model",
        "datasets.name": home.name,
        "datasets.path": ROWS,
        "datasets.unit": config.data.unit,
        "datasets.epsilon": home.epsilon or 1.0,
        "datasets.delta": privacy.delta or 1e-6,
        "datasets.reference": None if reference is None else reference.name,
        "allow.tasks": [config.task.kind],
        "allow.adapters": [config.adapter.method],
        "allow.aggregations": [config.aggregation.method],
        "allow.min_noise_multiplier": 0.0 if unprotected else 0.1,
        "allow.max_clip_norm": privacy.clip_norm or 1.0,
        "allow.max_rounds": config.federation.rounds,
        "allow.max_local_steps": config.training.local_steps,
        "allow.distributed_against": (privacy.colluding or 0) if privacy.mode == "distributed" else None,
        "release.unprotected": ["update"] if unprotected else [],
        "release.private_fisher": config.continual.fisher == "private-dp",
    }
    return policy_template(home.name, config.federation.name, home.institution.coordinator.text, values)


def _write_rows(rows: DataSet, path: Path, *, unit: str | None) -> None:
    lines = []
    for example in rows.examples:
        own = {} if unit is None else {unit: example.unit}
        lines.append(json.dumps({**example.fields, **own}))
    write_secret(path, ("\n".join(lines) + "\n").encode())


def _require_files(config: FederationConfig) -> None:
    """Each institution gets the base model and the public reference as files. Raises ConfigError for what is none."""
    reference = config.data.reference
    for key, found, is_there in (
        ("model.base", config.model.base, Path(config.model.base).is_dir()),
        ("data.reference", reference, reference is None or Path(reference).is_file()),
    ):
        if not is_there:
            raise ConfigError(
                f'expected {key} on this machine for a rehearsal, found "{found}": download it, and name its path'
            )


def _hand_over(folder: Path, agent: int, relay: int) -> None:
    """Agent and SuperNode get users of their own; only the socket is between them."""
    owners = {folder: agent, folder / "supernode": relay, folder / "forwarder": 0}
    for top, owner in owners.items():
        for path in (top, *top.rglob("*")):
            os.chown(path, owner, RELAY_GROUP)
            path.chmod(path.stat().st_mode & 0o700)
    for path in (folder / RELAY, *(folder / RELAY).iterdir()):
        path.chmod(0o750)  # to read and run, not to change
    folder.chmod(0o710)  # the relay may pass through to the socket, and sees no names


def _may_choose_users() -> bool:
    """As root, and where others can read this Python and fedft."""
    return os.geteuid() == 0 and all(
        _passable(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix, __file__)
    )


def _passable(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in (path, *path.parents) if parent.is_dir())


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


def _answers(port: int, authority: Path) -> bool:
    """Whether a TLS server with a certificate of ``authority`` listens there."""
    context = ssl.create_default_context(cafile=str(authority))
    try:
        plain = socket.create_connection(("127.0.0.1", port), timeout=2)
        with plain, context.wrap_socket(plain, server_hostname="localhost"):
            return True
    except OSError:
        return False


def _listens(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            probe.connect(str(path))
            return True
    except OSError:
        return False
