"""Certificates that are over, and their successors, at a real nginx. Behind the door nobody answers: 502 is through."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedft.deployment.certificates import load_key, read_certificate
from fedft.deployment.provision import Coordinator
from fedft.deployment.provision_institution import Institution
from fedft.deployment.proxy import FLEET_PATHS, nginx_command
from fedft.errors import IdentityError
from tests.deployment.fake_agent import wait_for
from tests.deployment.open_door import made, needs_nginx, running

pytestmark = needs_nginx
THROUGH, REFUSED = 502, 400
OVER = 0
"""Days from now."""


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[Coordinator, Institution]]:
    """The coordinator's nginx and north's, and no SuperLink."""
    coordinator, institutions = made(tmp_path)
    north = institutions["north"]
    with ExitStack() as stack:
        for name, folder, port in (
            ("proxy", coordinator.folder / "proxy", coordinator.federation.port),
            ("forwarder", north.folder / "forwarder", north.forwarder_port),
        ):
            log, command = tmp_path / f"{name}.log", nginx_command(folder)
            stack.enter_context(running(command, folder=tmp_path, log=log, port=port, home=tmp_path))
        yield coordinator, north


def status_at(port: int, authority: Path, client: Path | None = None) -> int:
    context = ssl.create_default_context(cafile=str(authority))
    if client is not None:
        context.load_cert_chain(client / "client.crt", client / "client.key")
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
    try:
        connection.request("POST", FLEET_PATHS[0], body=b"")
        return connection.getresponse().status
    finally:
        connection.close()


def through_the_door(coordinator: Coordinator, north: Institution) -> int:
    """With north's certificate, at the proxy itself."""
    return status_at(coordinator.federation.port, coordinator.folder / "ca.crt", north.folder / "forwarder")


def test_an_institutions_certificate_that_is_over_is_refused_and_a_new_one_is_not(
    door: tuple[Coordinator, Institution],
) -> None:
    coordinator, north = door
    certificate = north.folder / "forwarder" / "client.crt"
    valid, request = certificate.read_bytes(), north.folder / "request.json"
    asked = coordinator.read_request(request).certificate_request
    assert through_the_door(coordinator, north) == THROUGH
    certificate.write_bytes(coordinator.authority.client("north", asked, days=OVER))
    assert through_the_door(coordinator, north) == REFUSED
    with pytest.raises(IdentityError, match="check the clock, or ask for a new kit"):
        north.check()
    certificate.write_bytes(valid)
    north.check()
    assert through_the_door(coordinator, north) == THROUGH


def test_the_coordinators_certificate_that_is_over_is_not_believed_until_it_is_renewed(
    door: tuple[Coordinator, Institution],
) -> None:
    coordinator, north = door
    proxy, forwarder = coordinator.folder / "proxy", north.folder / "forwarder"
    key = load_key(proxy / "server.key")
    (proxy / "server.crt").write_bytes(coordinator.authority.server("fedft proxy", ["localhost"], key, days=OVER))
    assert coordinator.reload_proxy()
    errors = forwarder / "error.log"

    def refused() -> bool:
        status_at(north.forwarder_port, forwarder / "loopback.crt")
        return "certificate has expired" in errors.read_text()

    wait_for(refused)
    old = read_certificate(proxy / "server.crt")
    coordinator.renew()
    assert read_certificate(proxy / "server.crt").public_key() == old.public_key()
    assert coordinator.reload_proxy()
    access = proxy / "access.log"
    before = access.read_text().count('"status":502')

    def passed_on() -> bool:
        status_at(north.forwarder_port, forwarder / "loopback.crt")
        return access.read_text().count('"status":502') > before

    wait_for(passed_on)
