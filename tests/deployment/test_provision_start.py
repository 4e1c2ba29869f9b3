"""The commands that READMEs and fedft provision init give: run by a shell as they stand, Flower writes nowhere else."""

from __future__ import annotations

import os
import re
import shlex
import ssl
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedft.cli import app
from fedft.deployment.processes import Programs
from fedft.deployment.provision import Coordinator
from fedft.deployment.provision_institution import Institution
from fedft.deployment.provision_kit import FORWARDER_PORT, LAST_PORT, runtime_port_beside, supernode_command
from fedft.deployment.provision_start import WIDTH, flower_lines
from fedft.deployment.provision_superlink import superexec_command, superlink_command
from fedft.deployment.rehearse import free_port
from tests.deployment.federation import Made
from tests.deployment.open_door import needs_nginx

PROGRAMS = ("flower-superlink", "flower-superexec", "flower-supernode", "nginx", "fedft")


def commands_of(readme: Path) -> list[str]:
    """The README's indented blocks, each as a shell would read it."""
    blocks = re.findall(r"(?:^ {4}.+\n)+", readme.read_text(), re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() for block in blocks]


def words_of(command: str) -> list[str]:
    """Without the environment."""
    words = shlex.split(command.replace("\\\n", " "))
    return words[next(n for n, word in enumerate(words) if "=" not in word) :]


def starting(readme: Path) -> list[str]:
    """Commands of programs that stay."""
    return [line for line in commands_of(readme) if words_of(line)[0] in PROGRAMS and "provision" not in line]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """In a folder whose name is two words."""
    (tmp_path / "my federation").mkdir()
    return Made.at(tmp_path / "my federation")


def test_a_coordinators_readme_has_the_commands_of_a_rehearsal_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "coordinator"
    Coordinator.init(folder, name="hospitals", host="x.org", superlink_port=8123)
    found = [words_of(command) for command in starting(folder / "README.md")]
    expected = [superlink_command(folder, port=8123), superexec_command(folder, port=8123)]
    own = [[Path(program).name, *(word.replace(f"{folder}/", "") for word in words)] for program, *words in expected]
    assert found == [*own, ["nginx", "-p", "$PWD/proxy/", "-e", "error.log", "-c", "nginx.conf"]]
    assert all(len(line) <= WIDTH + 10 for line in (folder / "README.md").read_text().splitlines())


def test_init_says_what_to_start(tmp_path: Path) -> None:
    words = ("init", tmp_path / "my own", "--name", "hospitals", "--host", "x.org", "--superlink-port", 8124)
    done = CliRunner().invoke(app, ["provision", *map(str, words)])
    assert done.exit_code == 0, done.output
    commands = starting(tmp_path / "my own" / "README.md")
    assert len(commands) == 3
    places = [done.stderr.index(command) for command in commands]
    assert places == sorted(places)
    assert f"cd '{tmp_path}/my own'" in done.stderr
    assert "8124" in commands[0]


def test_renewing_writes_the_readme_anew(made: Made) -> None:
    readme = made.coordinator.folder / "README.md"
    before = readme.read_text()
    readme.unlink()
    made.coordinator.renew()
    assert readme.read_text() == before


def test_an_institutions_readme_has_three_commands(made: Made) -> None:
    from flwr.common.config import parse_config_args
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    north = made.member("north")
    commands = [words_of(command) for command in starting(north.folder / "README.md")]
    assert [command[0] for command in commands] == ["nginx", "fedft", "flower-supernode"]
    parser: ArgumentParser = _parse_args_run_supernode()
    said = parser.parse_args(commands[2][1:])
    expected = supernode_command(".", forwarder_port=FORWARDER_PORT, socket="$PWD/agent.sock")
    assert vars(said) == vars(parser.parse_args(expected[1:]))
    assert parse_config_args([said.node_config]) == {"agent": "$PWD/agent.sock"}
    assert (north.folder / said.auth_supernode_private_key).exists()


def test_two_institutions_on_one_machine_can_both_follow_their_readme(made: Made) -> None:
    ports = set()
    for name, port in (("north", 9093), ("south", 9193), ("west", LAST_PORT)):
        federation = made.coordinator.federation
        institution = Institution.request(
            made.folder / name,
            name=name,
            federation="hospitals",
            coordinator=federation.coordinator,
            forwarder_port=port,
        )
        made.coordinator.admit(made.request_of(institution))
        institution.accept(made.kit(name))
        words = words_of(starting(made.folder / name / "README.md")[2])
        assert words[words.index("--superlink") + 1] == f"localhost:{port}"
        own = int(words[words.index("--port") + 1])
        assert own == runtime_port_beside(port) <= LAST_PORT
        ports |= {port, own}
    assert len(ports) == 6


def test_flower_writes_into_these_folders_and_not_into_its_users_home(made: Made) -> None:
    """Each command of Flower, run by a shell as it stands in a README, with a stand-in that says what it was given."""
    from flwr.supercore.utils import get_flwr_home

    tools, coordinator, north = made.folder / "tools", made.coordinator.folder, made.member("north").folder
    tools.mkdir()
    for program in ("flower-superlink", "flower-superexec", "flower-supernode"):
        (tools / program).write_text('#!/bin/sh\necho "$FLWR_HOME"\nprintf "%s\\n" "$@"\n')
        (tools / program).chmod(0o755)
    homes = []
    for folder in (coordinator, north):
        for command in starting(folder / "README.md"):
            if words_of(command)[0].startswith("flower-"):
                said = subprocess.run(
                    ["sh", "-c", command], cwd=folder, env={"PATH": f"{tools}:{os.environ['PATH']}"},
                    capture_output=True, text=True, check=True, timeout=60,
                )  # fmt: skip
                home, *arguments = said.stdout.splitlines()
                assert arguments == [word.replace("$PWD", str(folder)) for word in words_of(command)[1:]]
                homes.append(Path(home).relative_to(folder).as_posix())
    assert homes == ["superlink/flower", "superexec", "supernode/flower"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(north / homes[2]))
        assert get_flwr_home() == north / homes[2]


def test_a_word_is_quoted_so_that_a_shell_gives_it_back(tmp_path: Path) -> None:
    words = ['a"b', "a\\b", "a`b", "two words", "$PWD/x", "--flag", "plain-1.0:2,@="]
    (tmp_path / "said").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "said").chmod(0o755)
    command = flower_lines("./said", words, home="flower")
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [word.replace("$PWD", str(tmp_path)) for word in words]


@needs_nginx
def test_what_init_says_starts_a_coordinator(tmp_path: Path) -> None:
    """Real programs: the SuperLink takes nodes, the proxy asks for a certificate, and nothing is written at home."""
    import httpx

    folder, home = tmp_path / "coordinator", tmp_path / "home"
    home.mkdir()
    port, superlink_port = free_port(), free_port()
    coordinator = Coordinator.init(
        folder, name="hospitals", host="localhost", port=port, listen="127.0.0.1", superlink_port=superlink_port
    )
    made = Made(tmp_path, coordinator)
    coordinator.admit(made.request_of(made.institution("north")))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"

    trusted = ssl.create_default_context(cafile=str(folder / "ca.crt"))

    def status(at: int) -> int:
        try:
            return httpx.get(f"https://localhost:{at}/health", verify=trusted, timeout=2).status_code
        except httpx.TransportError:
            return 0

    superlink, superexec, proxy = starting(folder / "README.md")
    with Programs(tmp_path / "logs") as programs:
        for name, command, ready in (
            ("superlink", superlink, lambda: status(superlink_port) == 200),
            ("superexec", superexec, lambda: True),
            ("proxy", proxy, lambda: status(port) == 400),
        ):
            programs.start(name, ["sh", "-c", command], env={"PATH": path, "HOME": str(home)}, cwd=folder, ready=ready)
        programs.wait()
        assert coordinator.register() == ("north",)
        assert all(programs.is_running(name) for name in programs.names())
    assert not list(home.iterdir())
    assert (folder / "superlink" / "state.db").exists()
