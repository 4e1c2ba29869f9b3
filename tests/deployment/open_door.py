"""What answers at a SuperLink's door: every path Flower serves, called from an institution's side with each credential.

    python tests/deployment/open_door.py        # writes docs/open-door.md; needs nginx

A real SuperLink behind the real proxy, all on loopback; both are stopped at the end.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedft.deployment.certificates import Authority, make_request, new_key
from fedft.deployment.provision import Coordinator
from fedft.deployment.provision_institution import Institution
from fedft.deployment.provision_superlink import QUIET, superlink_command
from fedft.deployment.proxy import nginx_command
from fedft.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "open-door.md"
CREDENTIALS = ("none", "another authority's", "a server's", "a revoked one", "a valid one")
PROTOBUF = {"Content-Type": "application/protobuf", "Accept": "application/protobuf"}

try:
    nginx_command(Path())
    NGINX = True
except ConfigError:
    NGINX = False
needs_nginx = pytest.mark.skipif(not NGINX, reason="needs nginx: apt-get install nginx")


@dataclass(frozen=True)
class Route:
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Answer:
    """status: of the answer; by_nginx: the proxy wrote it, and nothing was passed on."""

    status: int
    by_nginx: bool

    def __str__(self) -> str:
        return f"{self.status} proxy" if self.by_nginx else f"**{self.status} SuperLink**"


@dataclass(frozen=True)
class Door:
    """A running SuperLink behind its proxy. contexts: TLS of an institution's side by credential."""

    folder: Path
    coordinator: Coordinator
    north: Institution
    contexts: dict[str, ssl.SSLContext]
    log: Path

    @property
    def port(self) -> int:
        return self.coordinator.federation.port

    def call(self, route: Route, credential: str, body: bytes = b"", *, port: int | None = None) -> Answer:
        """Call a path as it is spelled, in a connection of its own."""
        context = self.contexts[credential]
        connection = http.client.HTTPSConnection("localhost", port or self.port, context=context, timeout=10)
        try:
            connection.request(route.method, route.path, body=body, headers=PROTOBUF)
            response = connection.getresponse()
            by_nginx = response.headers.get_content_type() == "text/html" and b"<center>nginx" in response.read(4096)
            return Answer(response.status, by_nginx)
        finally:
            connection.close()

    def reached(self) -> set[str]:
        """The paths that reached the SuperLink, by its own log."""
        return set(re.findall(r'"(?:[A-Z]+) (\S+) HTTP/1\.1"', self.log.read_text(encoding="utf-8")))


def routes() -> list[Route]:
    """Every method and path of the SuperLink's app in the installed Flower."""
    os.environ.update(QUIET)
    from fastapi.routing import iter_route_contexts
    from flwr.superlink.main import create_app

    found = set()
    for context in iter_route_contexts(create_app().routes):
        for method in sorted((getattr(context, "methods", None) or {"GET"}) - {"HEAD"}):
            found.add(Route(method, re.sub(r"\{[^}]*\}", "x", str(context.path))))
    return sorted(found, key=lambda route: (route.path, route.method))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], *, folder: Path, log: Path, port: int, home: Path) -> Iterator[None]:
    """A server while it is needed: it listens when this begins, and is gone when it ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **QUIET, "FLWR_HOME": str(home)}, stdout=output, stderr=output
        )
        try:
            _await_port(process, port, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"a server ended before it listened: {log.read_text()[-2000:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on {port}: {log.read_text()[-2000:]}")


def made(folder: Path) -> tuple[Coordinator, dict[str, Institution]]:
    """A federation on loopback: north is a member, south was one."""
    ports = free_port(), free_port()
    coordinator = Coordinator.init(
        folder / "coordinator",
        name="hospitals", host="localhost", listen="127.0.0.1", port=ports[0], superlink_port=ports[1],
    )  # fmt: skip
    institutions = {}
    for name in ("north", "south"):
        institution = Institution.request(
            folder / name,
            name=name, federation="hospitals", coordinator=coordinator.federation.coordinator,
            forwarder_port=free_port(),
        )  # fmt: skip
        coordinator.admit(coordinator.read_request(folder / name / "request.json"))
        coordinator.kit(name, folder / f"{name}.tar.gz")
        institution.accept(folder / f"{name}.tar.gz")
        institutions[name] = institution
    coordinator.revoke("south")
    return coordinator, institutions


@contextmanager
def open_door(folder: Path) -> Iterator[Door]:
    coordinator, institutions = made(folder)
    (folder / "other").mkdir()
    other = Authority.make(
        "hospitals", key_file=folder / "other" / "ca.key", certificate_file=folder / "other" / "ca.crt"
    )
    key = new_key(folder / "other" / "client.key")
    (folder / "other" / "client.crt").write_bytes(other.client("north", make_request("north", key), days=10))
    proxy = coordinator.folder / "proxy"
    pairs: tuple[tuple[Path, str] | None, ...] = (
        None,
        (folder / "other", "client"),
        (proxy, "server"),
        (institutions["south"].folder / "forwarder", "client"),
        (institutions["north"].folder / "forwarder", "client"),
    )
    contexts = {}
    for credential, pair in zip(CREDENTIALS, pairs, strict=True):
        context = ssl.create_default_context(cafile=str(coordinator.folder / "ca.crt"))
        if pair is not None:
            context.load_cert_chain(pair[0] / f"{pair[1]}.crt", pair[0] / f"{pair[1]}.key")
        contexts[credential] = context
    home, log = coordinator.folder / "flower", folder / "superlink.log"
    with ExitStack() as stack:
        superlink = superlink_command(coordinator.folder, port=coordinator.superlink_port)
        start = dict(folder=folder, home=home)
        stack.enter_context(running(superlink, log=log, port=coordinator.superlink_port, **start))
        stack.enter_context(
            running(nginx_command(proxy), log=folder / "proxy.log", port=coordinator.federation.port, **start)
        )
        forwarder = institutions["north"].folder / "forwarder"
        stack.enter_context(
            running(
                nginx_command(forwarder),
                log=folder / "forwarder.log",
                port=institutions["north"].forwarder_port,
                **start,
            )
        )
        yield Door(folder, coordinator, institutions["north"], contexts, log)


def walk(door: Door) -> dict[Route, dict[str, Answer]]:
    """Every path with every credential, through the proxy."""
    return {route: {credential: door.call(route, credential) for credential in CREDENTIALS} for route in routes()}


def walk_inside(door: Door) -> dict[Route, Answer]:
    """Every path at the SuperLink itself, on the coordinator's loopback, without any credential."""
    return {route: door.call(route, "none", port=door.coordinator.superlink_port) for route in routes()}


def document(outside: dict[Route, dict[str, Answer]], inside: dict[Route, Answer]) -> str:
    import flwr

    lines = [
        "# The open door",
        "",
        f"What answers, path by path, at a SuperLink of Flower {flwr.__version__} with TLS, node authentication and a",
        "database, behind the proxy that `fedft provision` sets up. Made by `python tests/deployment/open_door.py`;",
        "`tests/deployment/test_open_door.py` walks the same paths, holds what is said here, and fails when Flower has",
        "a path that is not in this table.",
        "",
        "The first columns are an institution's side, with each client certificate that it could show; the last is",
        "the SuperLink's own port, which listens on the coordinator's loopback alone, called without any credential.",
        "Each request has an empty body and no node key: 401 in bold is the SuperLink asking a Fleet caller for one,",
        "and what is bold in the last column is open to every program on the coordinator's machine: it could start a",
        "run, whose ServerApp signs with the coordinator's key. So nothing else should run there.",
        "",
        "What an admitted institution reaches behind the ten paths, with its node key: messages to its own node, and",
        "any object of a run by its id, which is the SHA-256 of its content (read in Flower 1.42): to name another",
        "institution's answer it would have to know it. Answers are signed, so that a node speaks in no other",
        "institution's name. What it sends can cost others a round; its certificate's name is in the proxy's log.",
        "",
        f"| path | {' | '.join(f'certificate: {credential}' for credential in CREDENTIALS)} | inside, no credential |",
        f"|---|{'---|' * (len(CREDENTIALS) + 1)}",
    ]
    for route, answers in outside.items():
        cells = [str(answers[credential]) for credential in CREDENTIALS]
        lines.append(f"| `{route}` | {' | '.join(cells)} | {inside[route]} |")
    return "\n".join(lines) + "\n"


def documented() -> list[str]:
    """The paths in the committed table."""
    return re.findall(r"^\| `([A-Z]+ [^`]+)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, open_door(Path(folder)) as door:
        DOCUMENT.write_text(document(walk(door), walk_inside(door)), encoding="utf-8")


if __name__ == "__main__":
    main()
