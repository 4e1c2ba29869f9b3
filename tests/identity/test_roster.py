"""The roster: who is in, who signed, and that an older one does not come back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedft.errors import ConfigError, IdentityError, StorageError
from fedft.identity.documents import MAX_DOCUMENT_BYTES
from fedft.identity.keys import PrivateKey
from fedft.identity.node_keys import make_node_key
from fedft.identity.roster import Member, Roster, changes, remember_roster

COORDINATOR, STRANGER = PrivateKey.generate(), PrivateKey.generate()


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[Member, ...]:
    folder = tmp_path_factory.mktemp("keys")
    return tuple(
        Member(name, PrivateKey.generate().public, make_node_key(folder / name)) for name in ("south", "north", "west")
    )


@pytest.fixture
def roster(members: tuple[Member, ...]) -> Roster:
    return Roster("hospitals", 3, COORDINATOR.public, members)


def test_it_comes_back_in_the_order_of_names(tmp_path: Path, roster: Roster) -> None:
    roster.write(tmp_path / "roster.json", COORDINATOR)
    read = Roster.read(tmp_path / "roster.json", COORDINATOR.public)
    assert read == roster
    assert [member.name for member in read.members] == ["north", "south", "west"]
    assert read.digest == roster.digest
    assert json.loads((tmp_path / "roster.json").read_bytes())["signed"]["version"] == 3


def test_only_the_coordinator_signs_it(tmp_path: Path, roster: Roster) -> None:
    with pytest.raises(ConfigError):
        roster.write(tmp_path / "roster.json", STRANGER)
    assert not list(tmp_path.iterdir())
    roster.write(tmp_path / "roster.json", COORDINATOR)
    with pytest.raises(IdentityError, match="another signer"):
        Roster.read(tmp_path / "roster.json", STRANGER.public)


def test_a_member_is_found_and_another_is_none(roster: Roster) -> None:
    assert roster.member("north").name == "north"
    with pytest.raises(IdentityError, match="version 3"):
        roster.member("mallory")


@pytest.mark.parametrize("what", ["name", "key", "node_key"])
def test_what_is_each_members_own_is_there_once(roster: Roster, what: str) -> None:
    first, second, _ = roster.members
    same = replace(second, **{what: getattr(first, what)})
    with pytest.raises(ConfigError, match="once"):
        replace(roster, members=(first, same))


def test_the_coordinator_is_no_member(roster: Roster) -> None:
    with pytest.raises(ConfigError):
        replace(roster, members=(replace(roster.members[0], key=COORDINATOR.public),))


def test_a_reader_that_remembers_takes_no_older_one(tmp_path: Path, roster: Roster) -> None:
    memory = tmp_path / "memory.json"
    remember_roster(memory, roster)
    remember_roster(memory, roster)
    newer = replace(roster, version=4, members=roster.members[1:])
    remember_roster(memory, newer)
    with pytest.raises(IdentityError, match="version 4"):
        remember_roster(memory, roster)
    remember_roster(memory, newer)


def test_nor_a_second_one_of_the_same_version(tmp_path: Path, roster: Roster) -> None:
    remember_roster(tmp_path / "memory.json", roster)
    with pytest.raises(IdentityError, match="same"):
        remember_roster(tmp_path / "memory.json", replace(roster, members=roster.members[1:]))
    with pytest.raises(IdentityError, match="folder of its own"):
        remember_roster(tmp_path / "memory.json", replace(roster, federation="banks", version=9))


def test_what_a_newer_one_changes_is_said_in_names(roster: Roster) -> None:
    first, second = roster.members[:2]
    other = replace(first, key=PrivateKey.generate().public)
    assert changes(roster, roster) == []
    assert changes(roster, replace(roster, members=(other, *roster.members[1:]))) == [f"new keys: {first.name}"]
    without = replace(roster, members=roster.members[1:])
    assert (changes(roster, without), changes(without, roster)) == ([f"left: {first.name}"], [f"joined: {first.name}"])
    assert changes(without, replace(roster, members=(first, *roster.members[2:]))) == [
        f"joined: {first.name}", f"left: {second.name}",
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"label":"fedft/v1/roster-memory","version":"4"}', "[" * 5000])
def test_a_memory_that_is_none_is_no_reason_to_forget(tmp_path: Path, roster: Roster, content: str) -> None:
    (tmp_path / "memory.json").write_text(content)
    with pytest.raises(StorageError):
        remember_roster(tmp_path / "memory.json", roster)


def test_what_is_no_file_or_far_too_long(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Roster.read(tmp_path / "roster.json", COORDINATOR.public)
    (tmp_path / "roster.json").write_bytes(b" " * (MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(IdentityError, match="at most"):
        Roster.read(tmp_path / "roster.json", COORDINATOR.public)


def test_a_disk_that_refuses_leaves_the_old_one(tmp_path: Path, roster: Roster) -> None:
    with pytest.raises(StorageError):
        roster.write(tmp_path / "missing" / "roster.json", COORDINATOR)
