"""fedft provision, as its users type it: a coordinator, two institutions, a lost key, a revocation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedft.cli import app
from fedft.deployment.provision import Coordinator


def run(*words: object, said: str | None = None) -> Result:
    return CliRunner().invoke(app, ["provision", *map(str, words)], input=said)


@pytest.fixture
def coordinator(tmp_path: Path) -> Path:
    done = run("init", tmp_path / "coordinator", "--name", "hospitals", "--host", "coordinator.example.org")
    assert done.exit_code == 0, done.output
    return tmp_path / "coordinator"


def request(coordinator: Path, name: str) -> str:
    """The institution's fingerprint."""
    folder = coordinator.parent / name
    done = run("request", folder, "--name", name, "--from", coordinator / "federation.json")
    assert done.exit_code == 0, done.output
    own = Coordinator.open(coordinator).federation.coordinator.fingerprint
    first, second = re.findall(r"^  ([0-9a-f ]{39})$", done.stdout, re.MULTILINE)
    assert first == own
    return str(second)


def test_two_institutions_from_nothing_to_a_kit(coordinator: Path) -> None:
    parent = coordinator.parent
    for name in ("north", "south"):
        fingerprint = request(coordinator, name)
        done = run("admit", coordinator, parent / name / "request.json", said="y\n")
        assert done.exit_code == 0, done.output
        assert fingerprint in done.stdout
        assert run("kit", coordinator, name, "--out", parent / f"{name}.tar.gz").exit_code == 0
        assert run("check", parent / name).exit_code == 1
        done = run("accept", parent / name, parent / f"{name}.tar.gz")
        assert done.exit_code == 0, done.output
        assert run("check", parent / name).output == ""
    assert run("check", coordinator).exit_code == 0
    listed = json.loads(run("members", coordinator, "--json").stdout)
    assert (listed["version"], [one["name"] for one in listed["members"]]) == (2, ["north", "south"])
    assert run("members", coordinator).stdout.count("not registered") == 2
    done = run("revoke", coordinator, "north")
    assert done.exit_code == 0, done.output
    assert "no proxy runs" in done.output
    assert "north" not in run("members", coordinator).stdout


def test_nobody_is_admitted_unless_the_fingerprint_was_confirmed(coordinator: Path) -> None:
    fingerprint, file = request(coordinator, "north"), coordinator.parent / "north" / "request.json"
    for done in (
        run("admit", coordinator, file, said="n\n"),
        run("admit", coordinator, file, said=""),
        run("admit", coordinator, file, "--fingerprint", "0000 " * 8),
        run("admit", coordinator, file, "--fingerprint", ""),
    ):
        assert done.exit_code == 1
    assert Coordinator.open(coordinator).roster.version == 0
    spoken = fingerprint.replace(" ", "").upper()
    assert run("admit", coordinator, file, "--fingerprint", spoken).exit_code == 0
    done = run("admit", coordinator, file, "--fingerprint", spoken)
    assert done.exit_code == 1
    assert "--replace" in done.stderr


def test_a_key_is_given_as_its_people_told_it(coordinator: Path) -> None:
    parent, key = coordinator.parent, Coordinator.open(coordinator).federation.coordinator.text
    told = ("--coordinator-key", key)
    assert run("request", parent / "a", "--name", "a", *told, "--federation", "hospitals").exit_code == 0
    source = ("--from", coordinator / "federation.json")
    assert run("request", parent / "b", "--name", "b", *told, *source).exit_code == 0
    other = ("--coordinator-key", f"ed25519:{'77' * 32}")
    for words in (
        ("--name", "c", *other, *source),
        ("--name", "c", *source, "--federation", "banks"),
        ("--name", "c", *told),
        ("--name", "c", "--coordinator-key", "ed25519:00", "--federation", "hospitals"),
        ("--name", "c", "--from", parent / "missing.json"),
        ("--name", "c d", *source),
        source,
    ):
        assert run("request", parent / "c", *words).exit_code in (1, 2)
        assert not (parent / "c").exists()


def test_keys_are_replaced(coordinator: Path) -> None:
    parent = coordinator.parent
    before = request(coordinator, "north")
    assert run("admit", coordinator, parent / "north" / "request.json", "--fingerprint", before).exit_code == 0
    assert run("kit", coordinator, "north", "--out", parent / "1.tar.gz").exit_code == 0
    assert run("accept", parent / "north", parent / "1.tar.gz").exit_code == 0
    assert run("request", parent / "north", "--replace", "--name", "north").exit_code == 2
    done = run("request", parent / "north", "--replace")
    assert done.exit_code == 0, done.output
    after = re.findall(r"^  ([0-9a-f ]{39})$", done.stdout, re.MULTILINE)[0]
    assert after != before
    file = parent / "north" / "next" / "request.json"
    assert run("admit", coordinator, file, "--fingerprint", after).exit_code == 1
    assert run("admit", coordinator, file, "--replace", "--fingerprint", after).exit_code == 0
    assert run("kit", coordinator, "north", "--out", parent / "2.tar.gz").exit_code == 0
    assert run("accept", parent / "north", parent / "2.tar.gz").exit_code == 0
    assert run("accept", parent / "north", parent / "1.tar.gz").exit_code == 1
    assert run("renew", coordinator).exit_code == 0


def test_a_newer_roster_is_taken_and_an_older_or_anothers_is_not(coordinator: Path) -> None:
    parent = coordinator.parent
    for name in ("north", "south"):
        assert (
            run(
                "admit", coordinator, parent / name / "request.json", "--fingerprint", request(coordinator, name)
            ).exit_code
            == 0
        )
        (parent / f"{name}.json").write_bytes((coordinator / "roster.json").read_bytes())
        assert run("kit", coordinator, name, "--out", parent / f"{name}.tar.gz").exit_code == 0
        assert run("accept", parent / name, parent / f"{name}.tar.gz").exit_code == 0
    done = run("update", parent / "north", coordinator / "roster.json")
    assert done.stdout == 'version 2 of the roster of "hospitals"; joined: south\n'
    assert run("update", parent / "north", parent / "north.json").exit_code == 1
    assert (parent / "north" / "roster.json").read_bytes() == (coordinator / "roster.json").read_bytes()
    assert run("revoke", coordinator, "north").exit_code == 0
    done = run("update", parent / "south", coordinator / "roster.json")
    assert done.stdout == 'version 3 of the roster of "hospitals"; left: north\n'
    assert run("update", parent / "north", coordinator / "roster.json").exit_code == 1
    assert run("init", parent / "banks", "--name", "banks", "--host", "b").exit_code == 0
    assert run("update", parent / "south", parent / "banks" / "roster.json").exit_code == 1
    assert run("check", parent / "south").exit_code == 0


def test_a_superlink_that_is_not_there_does_not_undo_an_admission(coordinator: Path) -> None:
    fingerprint, file = request(coordinator, "north"), coordinator.parent / "north" / "request.json"
    done = run("admit", coordinator, file, "--fingerprint", fingerprint, "--superlink", "127.0.0.1:9")
    assert done.exit_code == 1
    assert "the roster is written" in done.stderr
    assert Coordinator.open(coordinator).roster.version == 1
    assert run("register", coordinator, "--superlink", "127.0.0.1:9").exit_code == 1


def test_errors_are_one_line(coordinator: Path, tmp_path: Path) -> None:
    for words in (
        ("init", coordinator, "--name", "x", "--host", "y"),
        ("admit", tmp_path / "none", tmp_path / "none.json"),
        ("admit", coordinator, tmp_path / "none.json"),
        ("kit", coordinator, "north", "--out", tmp_path / "kit"),
        ("accept", tmp_path / "none", tmp_path / "kit"),
        ("check", tmp_path / "none"),
        ("revoke", coordinator, "north"),
    ):
        done = run(*words)
        assert done.exit_code == 1
        assert done.stderr.startswith("error: expected")
        assert len(done.stderr.strip().splitlines()) == 1
