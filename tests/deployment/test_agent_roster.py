"""A newer roster reaches a running agent through its file; in masked rounds too who left or has new keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp

from fedft.config import FederationConfig, parse_config
from fedft.deployment import rehearse
from fedft.deployment.coordinator import play_on
from fedft.errors import IdentityError
from fedft.flower.local_grid import LocalGrid
from fedft.flower.strategy import PARTITION
from fedft.identity.keys import PrivateKey
from fedft.identity.roster import Roster
from fedft.identity.signed import seal
from fedft.rounds.messages import ROLL_CALL_LABEL, encode_question, fresh_nonce
from fedft.update.release import Refusal
from tests.deployment.deployed import Deployed
from tests.federation import OFF, federation, federation_body, records_of, rows_of
from tests.tiny import write_jsonl

MASKED = "secure_aggregation.enabled=true"


@pytest.fixture(autouse=True)
def one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearse, "_may_choose_users", lambda: False)


def four(folder: Path, *overrides: str) -> FederationConfig:
    body = federation_body(folder)
    write_jsonl(folder / "east.jsonl", rows_of(3))
    body["institutions"].append({"name": "east", "data": "east.jsonl"})
    return parse_config(body, folder=folder, overrides=(MASKED, *OFF, *overrides))


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Deployed]:
    members = Deployed(tmp_path / "all", federation(tmp_path / "data"))
    yield members
    members.close()


@pytest.fixture
def masked(tmp_path: Path) -> Iterator[Deployed]:
    members = Deployed(tmp_path / "all", four(tmp_path / "data", "federation.rounds=3"))
    yield members
    members.close()


def hand_out(members: Deployed, *names: str) -> None:
    """The coordinator's roster, as the people at each institution put it in place."""
    for name in names:
        members.homes[name].institution.update(members.coordinator.folder / "roster.json")


def test_whatever_is_no_newer_roster_with_this_institution_is_a_refusal_until_it_is(
    private: Deployed, tmp_path: Path
) -> None:
    private.begin(tmp_path / "run")
    request, terms = private.request(tmp_path / "run")
    body, north = private.signed(request, terms), private.agents["north"]
    question = seal(ROLL_CALL_LABEL, encode_question(fresh_nonce()), private.coordinator.key)
    file = private.policy("north").institution.roster
    good, key = file.read_bytes(), private.coordinator.key
    roster = Roster.open(good, key.public)
    stranger = PrivateKey.generate()
    one_less = Roster(roster.federation, roster.version + 1, roster.coordinator, roster.members[1:])
    wrong = {
        "older": Roster(roster.federation, roster.version - 1, roster.coordinator, roster.members).sealed(key),
        "the same number": Roster(roster.federation, roster.version, key.public, roster.members[:2]).sealed(key),
        "forged": Roster(roster.federation, roster.version + 1, stranger.public, roster.members).sealed(stranger),
        "another federation's": Roster("banks", roster.version + 1, key.public, roster.members).sealed(key),
        "cut off": good[:-10],
        "nothing": None,
    }
    for content in wrong.values():
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        assert private.opened("north", north.answer(body)) == Refusal("north", request.plan.run, 1, "identity")
        with pytest.raises(IdentityError):
            north.roll_call(question)
    assert private.charges("north") == ()
    file.write_bytes(good)
    assert isinstance(private.opened("north", north.answer(body)), bytes)
    file.write_bytes(one_less.sealed(key))
    for _ in range(2):
        assert private.opened("north", north.answer(body)) == Refusal("north", request.plan.run, 1, "identity")
    file.write_bytes(good)
    assert private.opened("north", north.answer(body)) == Refusal("north", request.plan.run, 1, "identity")


def test_who_is_removed_is_in_no_mask_from_the_next_round_on_and_nobody_restarts(
    masked: Deployed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (masked.coordinator.folder / "roster.json").read_bytes()
    reveal = masked.agents["west"].unmask

    def leaves(body: bytes) -> bytes:
        answer = reveal(body)
        if "west" in {member.name for member in masked.coordinator.roster.members}:
            masked.coordinator.revoke("west")
            hand_out(masked, "north", "south", "east")
        return answer

    masked.revealing["west"] = leaves
    with caplog.at_level("INFO"):
        masked.play(tmp_path / "run")
    cohorts = [record["secure_aggregation"]["cohort"] for record in records_of(tmp_path / "run")]
    assert cohorts == [["east", "north", "south", "west"], *2 * [["east", "north", "south"]]]
    assert [record["updates"] for record in records_of(tmp_path / "run")] == cohorts
    assert "version 5 of the roster is in use: left: west" in caplog.text

    # A coordinator that takes it in again, by the roster from before: whoever has the newer one gives nothing.
    (masked.coordinator.folder / "roster.json").write_bytes(before)
    masked.begin(tmp_path / "lie", four(tmp_path / "data", "federation.rounds=1"))
    masked.play(tmp_path / "lie")
    (record,) = records_of(tmp_path / "lie")
    assert record["refused"] == dict.fromkeys(("east", "north", "south"), "identity")
    assert (record["updates"], record["quorum"]) == (["west"], False)


class Moving(LocalGrid):
    """The last node leaves when ``moved`` says so, and comes back under another number, as with a new node key."""

    moved = False

    def __init__(self, app: ClientApp, nodes: int) -> None:
        super().__init__(app, nodes + 1)
        self._nodes = nodes
        self._contexts[nodes + 1].node_config[PARTITION] = nodes - 1

    def get_node_ids(self) -> tuple[int, ...]:
        return (*range(1, self._nodes), self._nodes + 1 if self.moved else self._nodes)


def test_new_keys_in_the_middle_of_a_masked_run_cost_the_others_no_restart(tmp_path: Path) -> None:
    members = Deployed(tmp_path / "all", federation(tmp_path / "data", MASKED, *OFF, "federation.rounds=3"))
    last = list(members.agents)[-1]
    others = [name for name in members.agents if name != last]
    grid = Moving(members._relay(), len(members.agents))

    def rotates(body: bytes) -> bytes:
        answer = members.agents[last].unmask(body)
        if not grid.moved:
            new_keys(members, last, tmp_path)
            hand_out(members, *others)
            grid.moved = True
        return answer

    members.revealing[last] = rotates
    members.begin(tmp_path / "run")
    play_on(lambda strategy: strategy.start(grid), tmp_path / "run")
    members.close()
    records = records_of(tmp_path / "run")
    assert [record["updates"] for record in records] == [sorted(members.agents)] * 3
    assert len({record["secure_aggregation"]["context"] for record in records}) == 3


def test_without_the_newer_roster_a_list_with_new_keys_is_refused(tmp_path: Path) -> None:
    """A roster that the institution's people did not see says nothing: new keys could be the coordinator's own."""
    members = Deployed(tmp_path / "all", federation(tmp_path / "data", MASKED, *OFF, "federation.rounds=1"))
    new_keys(members, "west", tmp_path)
    members.play(tmp_path / "run")
    assert records_of(tmp_path / "run")[0]["refused"] == {"north": "identity", "south": "identity"}
    hand_out(members, "north", "south")
    members.begin(tmp_path / "again")
    members.play(tmp_path / "again")
    members.close()
    assert records_of(tmp_path / "again")[0]["quorum"]


def new_keys(members: Deployed, name: str, folder: Path) -> None:
    """Asked for, admitted, accepted; the agent of ``name`` starts again with them."""
    institution, kit = members.homes[name].institution, folder / f"{name}-2.tar.gz"
    members.coordinator.admit(members.coordinator.read_request(institution.request_replacement()), replacing=True)
    members.coordinator.kit(name, kit)
    institution.accept(kit)
    members.start_again(name)
    assert json.loads((members.policy(name).agent.state / "roster-memory.json").read_bytes())["version"] == 4
