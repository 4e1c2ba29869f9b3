"""A SuperLink's door, with a real SuperLink and a real nginx on loopback: what docs/open-door.md says, walked."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from fedft.deployment.proxy import FLEET, FLEET_PATHS
from tests.deployment.open_door import (
    CREDENTIALS,
    Answer,
    Door,
    Route,
    documented,
    needs_nginx,
    open_door,
    routes,
    walk,
)

VALID = "a valid one"
MARK = b"what-nobody-may-keep"
OTHER_SPELLINGS = (
    "/v1/fleet/../control/list-nodes",
    "/v1/fleet/pull-messages/../../control/list-nodes",
    "/v1/fleet/%2e%2e/control/list-nodes",
    "/v1/fleet/pull-messages%2f..%2f..%2fcontrol%2flist-nodes",
    "//v1/control/list-nodes",
    "/v1//control/list-nodes",
    "/v1/control/list-nodes?/v1/fleet/pull-messages",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages;/../../control/list-nodes",
    "/V1/FLEET/PULL-MESSAGES",
    "/v1/fleet/",
    "/",
)
FLEET_BY_ANOTHER_NAME = ("/v1/control/../fleet/pull-messages", "/v1/fleet/%70ull-messages", "//v1/fleet/pull-messages")


def test_the_paths_passed_on_are_flowers_fleet_paths_but_for_two() -> None:
    fleet = {route.path for route in routes() if route.path.startswith(f"{FLEET}/")}
    assert fleet - set(FLEET_PATHS) == {f"{FLEET}/register-node", f"{FLEET}/unregister-node"}
    assert set(FLEET_PATHS) <= fleet


def test_the_table_lists_every_path_of_the_installed_flower() -> None:
    assert documented() == [str(route) for route in routes()]


@needs_nginx
def test_from_an_institutions_side_only_fleet_answers_and_only_with_a_valid_certificate(tmp_path: Path) -> None:
    with open_door(tmp_path) as door:
        for route, answers in walk(door).items():
            passed_on = route.path in FLEET_PATHS
            for credential in CREDENTIALS:
                expected = Answer(400, by_nginx=True)
                if credential == VALID:
                    expected = Answer(401, by_nginx=False) if passed_on else Answer(403, by_nginx=True)
                assert answers[credential] == expected, (str(route), credential)
        assert door.reached() == set(FLEET_PATHS)
        other_spellings(door)
        other_methods_and_sizes(door)
        plain_http(door)
        a_registered_node(door)
        nothing_is_kept(door)


def other_spellings(door: Door) -> None:
    for path in OTHER_SPELLINGS:
        assert door.call(Route("POST", path), VALID) == Answer(403, by_nginx=True), path
    for path in FLEET_BY_ANOTHER_NAME:
        assert door.call(Route("POST", path), VALID) == Answer(401, by_nginx=False), path
    assert door.reached() == set(FLEET_PATHS)


def other_methods_and_sizes(door: Door) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        assert door.call(Route(method, FLEET_PATHS[0]), VALID) == Answer(403, by_nginx=True)
    two_mib = MARK * (2**21 // len(MARK))
    assert door.call(Route("POST", f"{FLEET}/pull-messages"), VALID, two_mib) == Answer(413, by_nginx=True)
    large = door.call(Route("POST", f"{FLEET}/push-object"), VALID, MARK * (2**24 // len(MARK)))
    assert not large.by_nginx


def plain_http(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as connection:
        connection.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        assert b" 400 " in connection.recv(100)


def a_registered_node(door: Door) -> None:
    """Flower's own client, through the forwarder, with the node key that was admitted; and with another."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.proto.fleet_pb2 import ActivateNodeRequest
    from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
    from httpx import HTTPStatusError

    folder = door.north.folder / "supernode"
    own = load_ssh_private_key((folder / "node.key").read_bytes(), password=None)
    assert isinstance(own, EllipticCurvePrivateKey)

    def activate(keys: tuple[EllipticCurvePrivateKey, EllipticCurvePublicKey]) -> int:
        with FleetHttpClient.from_server_address(
            f"localhost:{door.north.forwarder_port}",
            False,
            str(folder / "loopback.crt"),
            interceptors=[NodeAuthHttpInterceptor(*keys)],
        ) as client:
            request = ActivateNodeRequest(public_key=public_key_to_bytes(keys[1]), heartbeat_interval=30)
            return int(client.ActivateNode(request).node_id)

    assert door.coordinator.register() == ("north",)
    assert door.coordinator.register() == ()
    node = int((door.coordinator.folder / "members" / "north" / "node-id").read_text())
    assert activate((own, own.public_key())) == node
    with pytest.raises(HTTPStatusError):
        activate(generate_key_pairs())


def nothing_is_kept(door: Door) -> None:
    for place in (door.coordinator.folder / "proxy", door.north.folder / "forwarder"):
        assert list(place.rglob("temp_*/*")) == []
        for log in place.glob("*.log"):
            assert MARK not in log.read_bytes()


@needs_nginx
def test_who_is_revoked_is_out_at_once_and_its_node_too(tmp_path: Path) -> None:
    with open_door(tmp_path) as door:
        coordinator, route = door.coordinator, Route("POST", f"{FLEET}/pull-messages")
        coordinator.register()
        assert door.call(route, VALID) == Answer(401, by_nginx=False)
        coordinator.revoke("north")
        assert coordinator.reload_proxy()
        for _ in range(100):
            if (answer := door.call(route, VALID)) == Answer(400, by_nginx=True):
                break
            time.sleep(0.05)
        assert answer == Answer(400, by_nginx=True)
        assert coordinator.register() == ()
        assert not list(coordinator.folder.rglob("node-id"))
    assert not coordinator.reload_proxy()
