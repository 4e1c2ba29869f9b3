"""An agent between a signed request and a signed answer, with provisioned keys and policies, in one process."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedft.audit.findings import HOLDS
from fedft.audit.recompute import recompute
from fedft.audit.verify import verify_run
from fedft.config import load_policy
from fedft.deployment import coordinate, rehearse
from fedft.deployment.agent import Agent
from fedft.deployment.coordinator import Deployment, Members
from fedft.errors import ConfigError, IdentityError, LedgerLocked
from fedft.identity.documents import canonical
from fedft.identity.keys import PrivateKey
from fedft.identity.signed import open_signed, seal
from fedft.ledger.store import Ledger
from fedft.records.heads import LogHead
from fedft.records.log import read_entries
from fedft.rounds.messages import (
    ANSWER_LABEL,
    RECEIPT_LABEL,
    REQUEST_LABEL,
    decode_answer,
    decode_request,
    encode_notice,
)
from fedft.rounds.plan import terms_digest
from fedft.simulation.run import play
from fedft.types import Digest
from fedft.update.release import Refusal
from tests.deployment.deployed import Deployed
from tests.federation import NAMES, OFF, adapter_of, federation, records_of


@pytest.fixture(autouse=True)
def one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearse, "_may_choose_users", lambda: False)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Deployed]:
    members = Deployed(tmp_path / "all", federation(tmp_path / "data"))
    yield members
    members.close()


def test_without_privacy_agents_end_with_the_bits_of_the_simulation(tmp_path: Path) -> None:
    config = federation(tmp_path / "data", *OFF)
    members = Deployed(tmp_path / "all", config)
    members.play(tmp_path / "run")
    members.close()
    for home in members.homes.values():
        with Ledger.open(home.folder / "ledger.sqlite", read_only=True) as ledger:
            charged = [entry.fields["evidence"] for entry in ledger.entries() if entry.kind == "intent"]
        assert [one["allowed_by"] for one in charged] == ['release.unprotected = ["update"]'] * 2
    play(config, folder=tmp_path / "simulated")
    assert np.array_equal(adapter_of(tmp_path / "run"), adapter_of(tmp_path / "simulated"))
    assert [record["updates"] for record in records_of(tmp_path / "run")] == [sorted(NAMES)] * 2


def test_a_private_run_is_charged_in_each_ledger_and_leaves_a_run_folder(private: Deployed, tmp_path: Path) -> None:
    private.play(tmp_path / "run")
    assert [record["updates"] for record in records_of(tmp_path / "run")] == [sorted(NAMES)] * 2
    for home in private.homes.values():
        with Ledger.open(home.folder / "ledger.sqlite", read_only=True) as ledger:
            assert len(ledger.events(home.name)) == 2
    ledgers = [(None, home.folder / "ledger.sqlite") for home in private.homes.values()]
    recomputed = recompute(tmp_path / "run", ledgers)
    assert (recomputed.exit_code, recomputed.findings) == (HOLDS, ())
    assert {account.institution for account in recomputed.accounts} == set(NAMES)
    missing = recompute(tmp_path / "run", ledgers[1:])
    assert [finding.code for finding in missing.findings] == ["ledger-missing"]
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_deployed_run_is_valid_with_the_ledgers_of_its_institutions(private: Deployed, tmp_path: Path) -> None:
    """Receipts in the agents' ledgers, their heads in the log, keys of the signed roster."""
    private.play(tmp_path / "run")
    private.close()
    alone = verify_run(tmp_path / "run")
    assert alone.finding is None
    assert [words for words in alone.not_covered if "ledger" in words] == [
        f"the ledger of {name}: give it with --ledger" for name in NAMES
    ]
    ledgers = [home.folder / "ledger.sqlite" for home in private.homes.values()]
    key = private.coordinator.key.public
    verdict = verify_run(tmp_path / "run", ledgers=ledgers, key=key.fingerprint)
    assert (verdict.finding, verdict.ledgers) == (None, NAMES)
    end = list(read_entries(tmp_path / "run" / "audit.jsonl"))[-1]
    assert (end.kind, sorted(end.fields["heads"])) == ("end", sorted(NAMES))
    with Ledger.open(ledgers[0], read_only=True) as ledger:
        kept = [entry.fields["head"] for entry in ledger.entries() if entry.kind == "receipt"]
    assert [LogHead.open(head, key).count for head in kept] == [2, 3, 4]


def test_a_coordinator_that_forks_its_log_is_refused_and_nothing_charged(private: Deployed, tmp_path: Path) -> None:
    private.begin(tmp_path / "run")
    request, terms = private.request(tmp_path / "run")
    heads = [LogHead(request.plan.run, 7, Digest(digit * 64)).signed(private.coordinator.key) for digit in "ab"]
    private.agents["north"].receipt(
        seal(RECEIPT_LABEL, encode_notice(request.plan.run, heads[0]), private.coordinator.key)
    )
    forked = private.signed(replace(request, head=heads[1]), terms)
    answer = private.opened("north", private.agents["north"].answer(forked))
    assert answer == Refusal("north", request.plan.run, 1, "identity")
    assert private.charges("north") == ()


def test_a_coordinator_that_sends_no_head_is_refused_and_the_round_goes_on(private: Deployed, tmp_path: Path) -> None:
    """It would ask without leaving a trace that the institution could show."""

    def headless(body: bytes) -> bytes:
        request, terms = decode_request(open_signed(REQUEST_LABEL, body, private.coordinator.key.public))
        return private.agents["north"].answer(private.signed(replace(request, head=""), terms))

    private.answering["north"] = headless
    private.play(tmp_path / "run")
    records = records_of(tmp_path / "run")
    assert [(record["updates"], record["refused"]) for record in records] == [
        (["south", "west"], {"north": "identity"})
    ] * 2
    assert private.refusals("north") == [(1, "identity"), (2, "identity")]
    assert private.charges("north") == ()


def test_the_same_request_is_answered_with_the_same_bytes_also_after_a_restart(
    private: Deployed, tmp_path: Path
) -> None:
    private.play(tmp_path / "run")
    body, north = private.asked[0], private.agents["north"]
    first = north.answer(body)
    north.close()
    again = Agent(load_policy(private.homes["north"].folder / "policy.toml"))
    private.agents["north"] = again
    assert again.answer(body) == first


def test_only_the_coordinators_own_words_are_read(private: Deployed, tmp_path: Path) -> None:
    private.play(tmp_path / "run")
    body, north = private.asked[0], private.agents["north"]
    stranger = PrivateKey.generate()
    payload = open_signed(REQUEST_LABEL, body, private.coordinator.federation.coordinator)
    altered = bytearray(body)
    altered[-1] ^= 1
    for wrong in (seal(REQUEST_LABEL, payload, stranger), bytes(altered), payload, body[:50], b""):
        with pytest.raises(IdentityError):
            north.answer(wrong)
    with pytest.raises(IdentityError):
        north.answer(seal(ANSWER_LABEL, payload, private.coordinator.key))


@pytest.mark.parametrize(
    "override",
    [
        "privacy.epsilon=9",
        "privacy.clip_norm=5",
        "training.local_steps=3",
        "adapter.method=head",
        "aggregation.method=fedavg",
        "continual.method=ewc",
    ],
)
def test_the_policy_wins_over_a_signed_plan(private: Deployed, tmp_path: Path, override: str) -> None:
    more = ("continual.strength=1", 'continual.fisher="private-dp"') if "ewc" in override else ()
    asked = federation(tmp_path / "data", override, *more)
    private.config = asked
    coordinate.begin(asked, tmp_path / "run", private.coordinator)
    private.play(tmp_path / "run")
    refused = records_of(tmp_path / "run")[0]["refused"]
    assert refused == dict.fromkeys(NAMES, "policy")
    for home in private.homes.values():
        with Ledger.open(home.folder / "ledger.sqlite", read_only=True) as ledger:
            assert ledger.events(home.name) == ()


def test_a_refusal_is_signed_by_the_institution(private: Deployed, tmp_path: Path) -> None:
    private.play(tmp_path / "run")
    request, terms = decode_request(open_signed(REQUEST_LABEL, private.asked[0], private.coordinator.key.public))
    elsewhere = replace(request.plan, cohort=("south", "west"))
    body = private.signed(replace(request, plan=elsewhere), terms)
    key = PrivateKey.load(private.homes["north"].folder / "identity.key").public
    answer = decode_answer(open_signed(ANSWER_LABEL, private.agents["north"].answer(body), key))
    assert answer == Refusal(institution="north", run=elsewhere.run, round=1, reason="wrong-plan")


def test_a_busy_agent_says_so_itself_and_the_round_goes_on_without_a_charge(private: Deployed, tmp_path: Path) -> None:
    north = private.agents["north"]
    private.answering["north"] = lambda body: north.busy("answer", body)
    private.play(tmp_path / "run")
    assert [record["refused"] for record in records_of(tmp_path / "run")] == [{"north": "busy"}] * 2
    assert [record["updates"] for record in records_of(tmp_path / "run")] == [["south", "west"]] * 2
    assert private.charges("north") == ()
    payload = open_signed(REQUEST_LABEL, private.asked[0], private.coordinator.key.public)
    for wrong in (seal(REQUEST_LABEL, payload, PrivateKey.generate()), payload, b""):
        with pytest.raises(IdentityError):
            north.busy("answer", wrong)


def test_a_removed_institution_takes_no_part_from_the_next_round_on(private: Deployed, tmp_path: Path) -> None:
    coordinate.begin(private.config, tmp_path / "run", private.coordinator)
    private.coordinator.revoke("west")
    members = Members(Deployment.read(tmp_path / "run"))
    west = PrivateKey.load(private.homes["west"].folder / "identity.key")
    with pytest.raises(IdentityError):
        members.opened(ANSWER_LABEL, "west", seal(ANSWER_LABEL, b"x", west))
    north = PrivateKey.load(private.homes["north"].folder / "identity.key")
    assert members.opened(ANSWER_LABEL, "north", seal(ANSWER_LABEL, b"x", north)) == b"x"


def test_two_agents_do_not_share_a_ledger(private: Deployed) -> None:
    with pytest.raises(LedgerLocked):
        Agent(load_policy(private.homes["north"].folder / "policy.toml"))


def test_a_key_that_the_roster_does_not_have_is_refused_at_start(private: Deployed) -> None:
    home = private.homes["north"].folder
    private.agents["north"].close()
    (home / "identity.key").unlink()
    PrivateKey.generate().save(home / "identity.key")
    with pytest.raises(IdentityError, match="admitted"):
        Agent(load_policy(home / "policy.toml"))


def test_secure_aggregation_that_is_only_claimed_is_not_taken_for_it(private: Deployed, tmp_path: Path) -> None:
    """Where the policy requires it: there is none to give yet, so whatever the terms say, nothing is trained."""
    file = private.policy_file("north")
    text = file.read_text().replace('secure_aggregation = "optional"', 'secure_aggregation = "required"')
    assert '"required"' in text
    file.write_text(text)
    north = private.start_again("north")
    private.begin(tmp_path / "run")
    request, terms = private.request(tmp_path / "run")
    for claim in ({}, {"secure_aggregation": {"enabled": True}}):
        said = canonical({**json.loads(terms), **claim}).decode()
        asked = replace(request, plan=replace(request.plan, terms_digest=terms_digest(said)))
        told = private.opened("north", north.answer(private.signed(asked, said)))
        assert isinstance(told, Refusal)
        assert told.reason == "policy"
    assert private.charges("north") == ()


@pytest.mark.parametrize(("key", "name"), [("model.base", "organisation/model"), ("data.reference", "datasets:notes")])
def test_a_rehearsal_wants_its_model_and_public_rows_as_files(tmp_path: Path, key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f'expected {key} on this machine for a rehearsal, found "{name}"'):
        rehearse.provision(federation(tmp_path / "data", f"{key}={name}"), tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_rehearsals_rows_are_its_owners_alone_from_the_first_byte(private: Deployed) -> None:
    for home in private.homes.values():
        assert stat.S_IMODE((home.folder / "rows.jsonl").stat().st_mode) == 0o600
