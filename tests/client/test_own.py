"""How an institution runs its own relay: under Flower's names, and nothing else. tests/deployment/test_rehearsal.py
plays a run with it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

from client import app as relay
from fedft.deployment.provision_relay import PROGRAMS, write_relay

RUNTIME = "flwr.supernode.runtime.run_clientapp"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_relay(tmp_path / "relay")
    return tmp_path / "relay"


def run(program: Path, *words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The program, after the Python ``before``."""
    code = f"import runpy, sys\nsys.argv = {[str(program), *words]!r}\nsys.path[0] = {str(program.parent)!r}\n"
    code += f"{before}\nrunpy.run_path({str(program)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_every_name_by_which_flower_starts_an_app_is_taken(folder: Path) -> None:
    assert set(PROGRAMS) == set(TASK_TYPE_TO_COMMAND.values())
    for program in PROGRAMS:
        assert stat.S_IMODE((folder / program).stat().st_mode) == 0o755
    assert (folder / "relay.py").read_text() == Path(relay.__file__).read_text()


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name != "flwr-clientapp"])
def test_under_another_name_than_the_relays_nothing_runs(folder: Path, program: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"
    done = subprocess.run(
        [folder / program, "--token", "x"], env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "this institution runs its own relay, and no other app\n")


def test_flowers_own_loop_gets_the_relay_and_unpacks_nothing(folder: Path) -> None:
    """Its functions as they are called there, with a bundle that would be unpacked."""
    bundle = folder.parent / "bundle.fab"
    with zipfile.ZipFile(bundle, "w") as file:
        file.writestr("client/app.py", "app = None")
    said = f"""
from importlib import import_module
runtime, command = import_module("{RUNTIME}"), import_module("flwr.supernode.cli.flwr_clientapp")
def clientapp():
    runtime.install_from_fab(open({str(bundle)!r}, "rb").read(), skip_prompt=True)
    found = runtime.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)("a/b", "1", "c" * 64)
    print(sys.modules["relay"].__file__, found is sys.modules["relay"].app)
    runtime.install_app_dependencies(".")
command.flwr_clientapp = clientapp
"""
    done = run(folder / "flwr-clientapp", before=said)
    assert done.stdout.split() == [str(folder / "relay.py"), "True"]
    assert "PermissionError: no dependencies are installed here" in done.stderr


@pytest.mark.parametrize("name", ["install_from_fab", "install_app_dependencies", "get_load_client_app_fn"])
def test_a_flower_that_does_it_otherwise_runs_nothing(folder: Path, name: str) -> None:
    done = run(folder / "flwr-clientapp", before=f"import {RUNTIME} as runtime; del runtime.{name}")
    assert done.returncode == 1
    assert done.stderr.endswith(f"expected {RUNTIME} of flwr 1.42, found no {name}: install flwr 1.42\n")
