"""The services of docker-compose.yml as processes, for want of a Docker engine.

Each gets a folder in place of its file system, as its entry says; its exact command and health check are run with the
container's paths replaced by those in one table, in network namespaces that are joined as the entry says. Nothing
leaves these namespaces: their only device is their own loopback.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from fedft.config.policy import policy_template
from fedft.deployment import rehearse
from fedft.deployment.provision import Coordinator
from fedft.deployment.provision_institution import Institution
from fedft.identity.keys import PrivateKey
from fedft.identity.roster import Roster

ROOT = Path(__file__).resolve().parents[2]
VOLUMES = ("socket", "superlink-state")
"""Of Docker's; all others are folders."""
OWNERS = {
    "federation": "10010:10010",
    "institution": "10020:10020",
    "institution/fedft/supernode/node.key": "10021",
    "institution/fedft/forwarder/client.key": "10022",
    "institution/fedft/forwarder/loopback.key": "10022",
}
"""Whom the files have to belong to, in this order; docs/deploy.md says the same."""
POLICY = {
    "institution.identity": "/run/secrets/identity.key",
    "agent.socket": "/run/fedft/agent.sock",
    "agent.ledger": "/ledger/ledger.sqlite",
    "agent.state": "/ledger/state",
    "agent.log": "/ledger/agent.log",
    "models.path": "/models/base",
    "datasets.path": "/data/notes.jsonl",
}
"""Where a policy finds things in the agent's container; docs/deploy.md says the same."""
LOOPBACK_UP = """
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
"""


def read(values: Mapping[str, str]) -> dict[str, Any]:
    """The file, with ``${NAME:-default}`` replaced by what ``values`` has, or the default."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: values.get(found[1], found[2]), text)
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def mounts(service: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Source, target and whether it is only read: of each volume."""
    for entry in service.get("volumes", []):
        if isinstance(entry, str):
            source, target, *options = entry.split(":")
            yield source, target, options == ["ro"]
        else:
            yield entry["source"], entry["target"], entry.get("read_only", False)


@dataclass
class Containers:
    """The services in ``folder``, which other users may pass through.

    network: the process that holds the namespace which the two sides share here. as_users: run each as its own user.
    key, roster: the coordinator's.
    """

    folder: Path
    compose: dict[str, Any]
    as_users: bool
    key: PrivateKey
    roster: Roster
    network: int | None = None
    tables: dict[str, dict[str, Path]] = field(default_factory=dict)

    @classmethod
    def provisioned(cls, folder: Path) -> Containers:
        """A federation with one member, as its people make it, in the folders that the file names."""
        federation, home = folder / "federation", folder / "institution"
        made = Coordinator.init(federation / "coordinator", name="hospitals", host="localhost", listen="127.0.0.1")
        key = made.federation.coordinator
        institution = Institution.request(home / "fedft", name="north", federation="hospitals", coordinator=key)
        made.admit(made.read_request(home / "fedft" / "request.json"))
        made.kit("north", folder / "kit.tar.gz")
        institution.accept(folder / "kit.tar.gz")
        (home / "fedft" / "policy.toml").write_text(
            policy_template("north", "hospitals", key.text, POLICY), encoding="utf-8"
        )
        for part in (home / "data", home / "models", home / "ledger", *(folder / "volumes" / name for name in VOLUMES)):
            part.mkdir(parents=True)
        compose = read({"FEDFT_FEDERATION": str(federation), "FEDFT_INSTITUTION": str(home)})
        made_here = cls(folder, compose, rehearse._may_choose_users(), made.key, made.roster)
        if made_here.as_users:
            for name, owner in OWNERS.items():
                subprocess.run(["chown", "-R", owner, folder / name], check=True)
            _own(folder / "volumes" / "superlink-state", "uid=10010,gid=10010,mode=0700")  # as in flower.Dockerfile
            _own(folder / "volumes" / "socket", compose["volumes"]["socket"]["driver_opts"]["o"])
        return made_here

    def start(self, name: str, command: list[str] | None = None) -> subprocess.Popen[bytes]:
        """The service's command, or another in its place, in its namespace."""
        service = self.compose["services"][name]
        with (self.folder / f"{name}.log").open("ab") as output:
            if self.as_users:  # as a container's runtime does
                os.fchown(output.fileno(), *map(int, service["user"].split(":")))
            return subprocess.Popen(
                self._words(name, command or service["command"]),
                cwd=self.table(name).get(service.get("working_dir", ""), self.folder),
                env=self._environment(name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def is_healthy(self, name: str) -> bool:
        """What the service's own health check says."""
        check = self.compose["services"][name]["healthcheck"]["test"]
        words, environment = self._words(name, check[1:]), self._environment(name)
        return subprocess.run(words, env=environment, capture_output=True, timeout=20, check=False).returncode == 0

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def table(self, name: str) -> dict[str, Path]:
        """The one substitution table: what stands for each path of the container. Its files are put in place."""
        if name not in self.tables:
            self.tables[name] = self._made_table(self.compose["services"][name], self.folder / "containers" / name)
        return self.tables[name]

    def _made_table(self, service: Mapping[str, Any], root: Path) -> dict[str, Path]:
        found = {"/run/secrets": root / "run/secrets", "/etc/fedft": root / "etc/fedft"}
        for source, target, _ in mounts(service):
            found[target] = self.folder / "volumes" / source if source in VOLUMES else Path(source)
        for place in service.get("tmpfs", []):
            target, options = place.split(":")
            found[target] = root / target.lstrip("/")
            found[target].mkdir(parents=True)
            if self.as_users:
                _own(found[target], options)
        for kind in ("configs", "secrets"):
            for entry in service.get(kind, []):
                file = root / os.path.join("/run/secrets", entry["target"]).lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                original = Path(self.compose[kind][entry["source"]]["file"])
                shutil.copy(original, file)
                os.chown(file, original.stat().st_uid, original.stat().st_gid)
                if file.suffix == ".toml":
                    file.write_text(_replaced(file.read_text(), found), encoding="utf-8")
        return found

    def _words(self, name: str, command: list[str]) -> list[str]:
        service = self.compose["services"][name]
        joined = ["nsenter", f"--net=/proc/{self.network}/ns/net", "--"]
        start = ["unshare", "--net", "--"] if service["network_mode"] == "none" else joined
        if self.as_users:
            user, group = service["user"].split(":")
            start += ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs", "--"]
        return [*start, *(_replaced(word, self.table(name)) for word in command)]

    def _environment(self, name: str) -> dict[str, str]:
        """The container's, and nothing else but what this machine's processor needs."""
        here = {key: value for key, value in os.environ.items() if key.startswith(("OMP_", "OPENBLAS_"))}
        programs = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"}
        given = self.compose["services"][name].get("environment", {})
        return {**here, **programs, **{key: _replaced(value, self.table(name)) for key, value in given.items()}}


def _own(folder: Path, options: str) -> None:
    """As a mount with these options: uid, gid and mode."""
    given = dict(option.split("=") for option in options.split(","))
    os.chown(folder, int(given.get("uid", 0)), int(given.get("gid", 0)))
    folder.chmod(int(given["mode"], 8))


def _replaced(text: str, table: Mapping[str, Path]) -> str:
    pattern = "|".join(re.escape(path) for path in sorted(table, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({pattern})(?![\w.-])", lambda found: str(table[found[0]]), text)


def may_make_namespaces() -> bool:
    """Whether this process may make a network of its own."""
    programs = all(shutil.which(program) for program in ("unshare", "nsenter"))
    return programs and subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


def shared_network() -> subprocess.Popen[bytes]:
    """A process that holds a new network, in which loopback is up."""
    made = [sys.executable, "-c", f"{LOOPBACK_UP}\nprint(flush=True); import time; time.sleep(120)"]
    holder = subprocess.Popen(["unshare", "--net", "--", *made], stdout=subprocess.PIPE, start_new_session=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    return holder


def stop(*processes: subprocess.Popen[bytes]) -> None:
    """Each of them and what it started is gone afterwards."""
    for process in processes:
        process.terminate()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait(condition: Callable[[], bool], seconds: float, *processes: subprocess.Popen[bytes]) -> bool:
    """Whether ``condition`` came true in time, and while all of the processes ran."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and all(process.poll() is None for process in processes):
        if condition():
            return True
        time.sleep(0.2)
    return False
