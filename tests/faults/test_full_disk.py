"""A full disk under a ledger or the checkpoints: it is said, nothing is half done, and with room it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedft.rounds.institution
from fedft.deployment.agent import Agent
from fedft.errors import StorageError
from fedft.rounds.run_folder import RunFolder
from fedft.update.release import Refusal
from tests.deployment.deployed import Deployed, Provisioned
from tests.faults.disk import Disk, LimitedWriting, disk_at
from tests.federation import NAMES, OFF, adapter_of, federation, records_of


@pytest.fixture(params=["a disk", "a limit"])
def disk(request: pytest.FixtureRequest, short: Path) -> Iterator[Disk]:
    with disk_at(short / "disk") as made:
        chosen = made if request.param == "a disk" else LimitedWriting(made.folder)
        yield chosen
        chosen.free()


@pytest.fixture
def private(short: Path, disk: Disk) -> Provisioned:
    """north keeps its ledger on the disk."""
    made = Provisioned(short / "all", federation(short / "data"))
    policy = made.policy_file("north")
    text = policy.read_text()
    policy.write_text(text.replace('ledger = "ledger.sqlite"', f'ledger = "{disk.folder}/ledger.sqlite"'))
    assert made.policy("north").agent.ledger.parent == disk.folder
    return made


def asked_twice(private: Provisioned, disk: Disk, run: Path) -> tuple[Refusal, int]:
    """What north says while there is no room, and how often it was charged then. With room it must answer."""
    private.begin(run)
    request, terms = private.request(run)
    agent, body = Agent(private.policy("north")), private.signed(request, terms)
    refused = private.opened("north", agent.answer(body))
    disk.free()
    assert isinstance(refused, Refusal)
    charged = len(private.charges("north"))
    answer = private.opened("north", agent.answer(body))
    agent.close()
    assert answer == private.stored("north", request)
    return refused, charged


def test_without_room_for_the_charge_nothing_is_trained(
    private: Provisioned, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_at_first(monkeypatch, disk, fedft.rounds.institution.Institution, "charge")
    refused, charged = asked_twice(private, disk, tmp_path / "run")
    assert (refused.reason, charged) == ("storage", 0)
    assert len(private.charges("north")) == 1


def test_without_room_for_the_release_the_round_is_trained_again_under_one_charge(
    private: Provisioned, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_at_first(monkeypatch, disk, fedft.rounds.institution, "release_update")
    refused, charged = asked_twice(private, disk, tmp_path / "run")
    assert (refused.reason, charged) == ("storage", 1)
    assert len(private.charges("north")) == 1


def test_without_room_for_a_checkpoint_the_run_stops_and_ends_with_the_same_bits(
    short: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = federation(short / "data", *OFF, "federation.rounds=3")
    members = Deployed(short / "all", config)
    members.play(short / "undisturbed")
    members.asked.clear()
    full_at_first(monkeypatch, disk, RunFolder, "commit", only=lambda _, round, **__: round == 2)
    run = disk.folder / "run"
    with pytest.raises(StorageError, match="free space|make room"):
        members.play(run)
    assert [path.name for path in (run / "checkpoints").glob("round-*")] == ["round-0001"]
    disk.free()
    members.play(run)
    members.close()
    assert [record["updates"] for record in records_of(run)] == [sorted(NAMES)] * 3
    assert np.array_equal(adapter_of(run), adapter_of(short / "undisturbed"))
    assert len(members.asked) == 4 * len(NAMES), "round 2 was asked for twice, and answered with the stored bytes"


def full_at_first(
    monkeypatch: pytest.MonkeyPatch, disk: Disk, owner: Any, name: str, only: Any = lambda *_, **__: True
) -> None:
    """The disk is full from the first call of ``owner.name`` that ``only`` accepts."""
    original, happened = getattr(owner, name), False

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal happened
        if not happened and only(*args, **kwargs):
            happened = True
            disk.fill()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)
