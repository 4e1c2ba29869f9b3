"""docker-compose.yml: what it promises, read off the file; and its commands, run as processes (compose.py)."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from fedft import __version__
from fedft.deployment.provision_kit import supernode_command
from fedft.deployment.provision_relay import PROGRAMS as PROGRAMS_OF_APPS
from fedft.deployment.provision_superlink import superexec_command, superlink_command
from fedft.identity.signed import open_signed, seal
from fedft.rounds.messages import ROLL_CALL_LABEL, decode_presence, encode_question, fresh_nonce
from tests.deployment.compose import (
    OWNERS,
    POLICY,
    ROOT,
    VOLUMES,
    Containers,
    may_make_namespaces,
    mounts,
    read,
    shared_network,
    stop,
    wait,
)

COORDINATOR = ("proxy", "superlink", "superexec")
INSTITUTION = ("forwarder", "supernode", "agent")
PROGRAMS = COORDINATOR + INSTITUTION
HOLDERS = ("coordinator-network", "institution-network")
COMMANDS = ("coordinator", "institution")
FLOWER = ("superlink", "superexec", "supernode", *COMMANDS)
ALONE = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1", "HF_HUB_OFFLINE": "1"}
PINNED = re.compile(r"[a-z0-9/.-]+:\d+\.\d+\.\d+(-[a-z0-9.-]+)?@sha256:[0-9a-f]{64}")
COMPOSE = read({})
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def users(*services: str) -> list[str]:
    return [SERVICES[service]["user"].split(":")[0] for service in services]


def test_there_are_these_services_under_these_profiles() -> None:
    assert set(SERVICES) == {*PROGRAMS, *HOLDERS, *COMMANDS}
    for name in (*COORDINATOR, "coordinator-network"):
        assert SERVICES[name]["profiles"] == ["coordinator"]
    for name in (*INSTITUTION, "institution-network"):
        assert SERVICES[name]["profiles"] == ["institution"]
    for name in COMMANDS:  # started by docker compose run alone
        assert SERVICES[name]["profiles"] == [f"{name}-command"]


def test_of_an_institution_the_agent_alone_mounts_data_model_or_ledger() -> None:
    seen = {service: {target for _, target, _ in mounts(SERVICES[service])} for service in INSTITUTION}
    assert seen == {
        "agent": {"/data", "/models", "/ledger", "/run/fedft"},
        "supernode": {"/run/fedft"},
        "forwarder": set(),
    }
    written = {target for _, target, only_read in mounts(SERVICES["agent"]) if not only_read}
    assert written == {"/ledger", "/run/fedft"}
    assert list(mounts(SERVICES["supernode"])) == [("socket", "/run/fedft", True)]


def test_the_agent_has_no_network_nor_has_who_sees_its_folder() -> None:
    for name in ("agent", "institution"):
        assert SERVICES[name]["network_mode"] == "none"
        assert "ports" not in SERVICES[name]
        assert "networks" not in SERVICES[name]


def test_the_ledger_is_a_folder_that_docker_does_not_remove() -> None:
    (source,) = [source for source, target, _ in mounts(SERVICES["agent"]) if target == "/ledger"]
    assert source == "./institution/ledger"
    assert set(COMPOSE["volumes"]) == set(VOLUMES)


def test_no_secret_is_in_an_environment() -> None:
    allowed = {*ALONE, "HOME", "FLWR_HOME", "FLWR_DISABLE_UPDATE_CHECK", "NVIDIA_DRIVER_CAPABILITIES"}
    for service in SERVICES.values():
        assert set(service.get("environment", {})) <= allowed
        assert "env_file" not in service
    for file in DOCKERFILES:
        assert set(re.findall(r"^(?:ENV|ARG) (\w+)", file.read_text(), re.MULTILINE)) <= {
            "PATH",
            "PIP_NO_CACHE_DIR",
            "MORE",
        }


def test_private_keys_are_files_below_run_secrets() -> None:
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    for service in SERVICES.values():
        assert all("/" not in secret["target"] for secret in service.get("secrets", []))
    given = {name: {secret["source"] for secret in SERVICES[name].get("secrets", [])} for name in PROGRAMS}
    assert given == {
        "proxy": {"proxy_key"},
        "superlink": {"superlink_key", "superexec_secret"},
        "superexec": {"superexec_secret"},
        "forwarder": {"client_key", "loopback_key"},
        "supernode": {"node_key"},
        "agent": {"identity_key"},
    }
    public = {config["file"].rsplit(".", 1)[-1] for config in COMPOSE["configs"].values()}
    assert public == {"conf", "crt", "crl", "toml", "json"}


def test_only_the_superexec_runs_with_the_coordinators_folder_and_without_the_authoritys_key() -> None:
    for name in ("proxy", "superlink", "forwarder", "supernode"):
        assert all(source in VOLUMES for source, _, _ in mounts(SERVICES[name]))
    assert ("./federation/coordinator", "/federation/coordinator", True) in mounts(SERVICES["superexec"])
    assert ("/dev/null", "/federation/coordinator/ca.key", True) in mounts(SERVICES["superexec"])


def test_every_image_is_pinned() -> None:
    """Those from elsewhere by digest; ours are built here, by version."""
    for service in SERVICES.values():
        own = re.fullmatch(rf"fedft(-flower)?:{re.escape(__version__)}", service["image"])
        assert own or PINNED.fullmatch(service["image"])
    for file in DOCKERFILES:
        bases = re.findall(r"^FROM (\S+)", file.read_text(), re.MULTILINE)
        assert bases
        assert all(PINNED.fullmatch(base) for base in bases)


def test_every_dockerfile_ends_as_a_user_who_is_not_root() -> None:
    assert {file.name for file in DOCKERFILES} == {"fedft.Dockerfile", "flower.Dockerfile"}
    for file in DOCKERFILES:
        last = file.read_text().rstrip().splitlines()[-1]
        assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", last)
        assert (file.parent / f"{file.name}.dockerignore").read_text().splitlines().count("*") == 1


def test_nobody_is_root_and_who_runs_others_code_is_nobody_else() -> None:
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]) for service in SERVICES.values())
    assert len(set(users(*INSTITUTION))) == 3
    assert not set(users(*COORDINATOR)) & set(users(*INSTITUTION))
    assert users("agent") == users("institution")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_a_read_only_root_and_no_right_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode", "volumes_from"} & set(service)
    assert all("size=" in place for place in service.get("tmpfs", []))


@pytest.mark.parametrize("name", [*PROGRAMS, *HOLDERS])
def test_a_program_is_looked_after_and_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", FLOWER)
def test_flower_installs_nothing_and_tells_nobody(name: str) -> None:
    assert ALONE.items() <= SERVICES[name]["environment"].items()
    assert "--allow-runtime-dependency-installation" not in SERVICES[name]["command"]
    assert "--disable-runtime-dependency-installation" in SERVICES["superlink"]["command"]


def test_the_proxys_port_is_the_only_one_outside() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"coordinator-network": ["8443:8443"]}
    assert {"--host=127.0.0.1", "--enable-supernode-auth"} <= set(SERVICES["superlink"]["command"])


def test_who_holds_a_network_for_others_does_nothing_else() -> None:
    joined = {service.get("network_mode", "") for service in SERVICES.values()}
    assert {mode.removeprefix("service:") for mode in joined if mode.startswith("service:")} == set(HOLDERS)
    assert all(SERVICES[name]["command"] == ["sleep", "infinity"] for name in HOLDERS)


def test_superlink_and_superexec_are_started_as_in_a_rehearsal() -> None:
    commands = {"superlink": superlink_command(ROOT, port=8000), "superexec": superexec_command(ROOT, port=8000)}
    more: dict[str, set[str]] = {"superlink": set(), "superexec": {"--health-server-address"}}
    for name, command in commands.items():
        said = {word for word in command if word.startswith("--")}
        assert {word.split("=")[0] for word in SERVICES[name]["command"][1:]} == said | more[name]
        assert Path(command[0]).name == SERVICES[name]["command"][0]


def test_the_supernode_is_started_as_its_kit_says() -> None:
    said = supernode_command("/run/secrets", forwarder_port=9093, socket="/run/fedft/agent.sock")
    options = dict(zip(said[1::2], said[2::2], strict=True))
    options["--root-certificates"] = "/run/secrets/loopback.crt"
    options["--auth-supernode-private-key"] = "/run/secrets/node.key"
    assert SERVICES["supernode"]["command"] == [said[0], *(f"{name}={value}" for name, value in options.items())]


def test_the_supernodes_image_has_the_relay_under_every_name_by_which_flower_starts_an_app() -> None:
    lines = (ROOT / "docker" / "flower.Dockerfile").read_text(encoding="utf-8")
    (copied,) = re.findall(r"for name in ([\w ]+); do cp flwr-clientapp flwr-\$name; done", lines)
    assert {f"flwr-{name}" for name in copied.split()} | {"flwr-clientapp"} == set(PROGRAMS_OF_APPS)
    assert "COPY client/app.py /opt/relay/relay.py" in lines
    assert "ENV PATH=/opt/relay:" in lines
    assert SERVICES["supernode"]["build"]["dockerfile"] == "docker/flower.Dockerfile"


def test_the_tutorial_has_the_owners_and_the_policys_paths() -> None:
    tutorial = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    for name, owner in OWNERS.items():
        assert re.search(rf"chown (?:-R )?{owner} (?:\S+ )*{re.escape(name)}", tutorial), name
    for key, value in POLICY.items():
        assert f'{key.split(".")[1]} = "{value}"' in tutorial


@pytest.fixture
def containers() -> Iterator[Containers]:
    if not may_make_namespaces():
        pytest.skip("needs network namespaces: unshare and nsenter, and the right to use them (root)")
    with tempfile.TemporaryDirectory(prefix="fedft-") as folder:  # tmp_path lets no other user through
        Path(folder).chmod(0o711)
        yield Containers.provisioned(Path(folder))


def test_the_agent_answers_in_a_namespace_without_an_interface(containers: Containers) -> None:
    agent = containers.start("agent")
    try:
        assert wait(lambda: containers.is_healthy("agent"), 120, agent), containers.log("agent")
        devices = Path(f"/proc/{agent.pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
        assert not Path(f"/proc/{agent.pid}/net/route").read_text().splitlines()[1:]  # under the heading
        nonce = fresh_nonce()
        question = seal(ROLL_CALL_LABEL, encode_question(nonce), containers.key)
        socket = str(containers.table("agent")["/run/fedft"] / "agent.sock")
        with httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=10) as client:
            reply = client.post("http://agent/v1/roll-call", content=question).raise_for_status().content
        member = containers.roster.member("north")
        assert decode_presence(open_signed(ROLL_CALL_LABEL, reply, member.key), nonce=nonce) == ("north", b"")
        written = [path for path in (containers.folder / "institution" / "ledger").rglob("*") if path.is_file()]
        assert {"ledger.sqlite", "roster-memory.json", "agent.log"} <= {path.name for path in written}
        assert all(path.stat().st_mode & 0o077 == 0 for path in written), "its owner's alone"
    finally:
        stop(agent)
    assert agent.returncode == 0


@pytest.fixture
def joined(containers: Containers) -> Iterator[Containers]:
    if shutil.which("nginx") is None:
        pytest.skip("needs nginx")
    holder = shared_network()
    containers.network = holder.pid
    yield containers
    stop(holder)


def test_every_command_works_and_finds_the_others(joined: Containers) -> None:
    """The SuperNode is registered by the command service, and lives behind forwarder and proxy."""
    started = {name: joined.start(name) for name in ("superlink", "proxy", "superexec", "forwarder")}
    try:
        for name, process in started.items():
            assert wait(partial(joined.is_healthy, name), 40, process), f"{name}: {joined.log(name)}"
        command = joined.start("coordinator", ["fedft", "provision", "register", "coordinator"])
        started["coordinator"] = command
        assert command.wait(40) == 0, joined.log("coordinator")
        assert "registered north" in joined.log("coordinator")
        supernode = started["supernode"] = joined.start("supernode")
        assert wait(lambda: joined.is_healthy("supernode"), 40, supernode), joined.log("supernode")
        called = re.compile(r'"institution":"CN=north","path":"/v1/fleet/pull-messages","status":200')
        assert wait(lambda: bool(called.search(joined.log("proxy"))), 20, supernode), joined.log("proxy")
    finally:
        stop(*reversed(started.values()))
