"""Secure aggregation among agents of a provisioned federation: the roster's keys, policies, restarts, lies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedft.assembly.masking import shared_noise
from fedft.config import FederationConfig
from fedft.deployment import rehearse
from fedft.deployment.agent_http import _about
from fedft.errors import IdentityError, QuorumNotReached
from fedft.identity.keys import PrivateKey
from fedft.identity.signed import open_signed, seal
from fedft.ledger.store import Ledger
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.events import DataIndependentRelease, DistributedStep
from fedft.secagg.context import RoundContext
from fedft.secagg.institution import unframed
from fedft.secagg.messages import UNMASK_LABEL, read_question, write_question
from fedft.simulation.run import play as simulate
from fedft.update.release import Refusal
from tests.deployment.deployed import Deployed
from tests.federation import NAMES, OFF, adapter_of, federation, records_of
from tests.simulation.test_distributed_runs import SHARED

MASKED = "secure_aggregation.enabled=true"


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    monkeypatch.setattr(rehearse, "_may_choose_users", lambda: False)
    members = Deployed(tmp_path / "all", federation(tmp_path / "data", MASKED, *OFF))
    yield members
    members.close()


def test_agents_mask_and_the_sum_is_that_of_a_simulation(deployed: Deployed, tmp_path: Path) -> None:
    deployed.play(tmp_path / "run")
    simulate(federation(tmp_path / "data", MASKED, *OFF), folder=tmp_path / "simulated")
    assert [record["updates"] for record in records_of(tmp_path / "run")] == [sorted(NAMES)] * 2
    assert adapter_of(tmp_path / "run").tobytes() == adapter_of(tmp_path / "simulated").tobytes()
    for name in NAMES:
        assert deployed.charges(name).count(DataIndependentRelease()) == 2


def test_nothing_that_reaches_the_coordinator_is_an_update(deployed: Deployed, tmp_path: Path) -> None:
    seen: list[bytes] = []
    for name in NAMES:

        def answer(body: bytes, name: str = name) -> bytes:
            seen.append(deployed.agents[name].answer(body))
            return seen[-1]

        deployed.answering[name] = answer
    deployed.play(tmp_path / "run")
    simulate(federation(tmp_path / "data", *OFF), folder=tmp_path / "bare")
    bare = adapter_of(tmp_path / "bare")
    assert len(seen) == 6
    assert all(b"FEDFTSAU" in answer[:700] and b"FEDFTUPD" not in answer for answer in seen)
    assert np.abs(adapter_of(tmp_path / "run") - bare).max() <= 1e-6


def test_an_agent_that_restarts_between_the_exchanges_finishes_its_round(deployed: Deployed, tmp_path: Path) -> None:
    deployed.revealing["north"] = lambda body: deployed.start_again("north").unmask(body)
    deployed.answering["south"] = lambda body: deployed.start_again("south").answer(body)
    deployed.play(tmp_path / "run")
    assert all(record["quorum"] for record in records_of(tmp_path / "run"))


def test_a_question_asked_twice_gets_the_stored_bytes_and_another_set_nothing(
    deployed: Deployed, tmp_path: Path
) -> None:
    """From the coordinator's own key: it is the liar."""
    deployed.play(tmp_path / "run")
    name, question = deployed.questions[-1]
    agent = deployed.start_again(name)
    assert agent.unmask(question) == agent.unmask(question)
    context = context_of(deployed, name, 2)
    asked = read_question(question, context, name, deployed.coordinator.key.public)
    fewer = replace(asked, uploaded=asked.uploaded[1:], heads=asked.heads[1:], packages=asked.packages[1:])
    found = deployed.opened(name, agent.unmask(write_question(context, fewer, deployed.coordinator.key)))
    assert isinstance(found, Refusal)
    assert found.reason == "stale-round"
    payload = open_signed(UNMASK_LABEL, question, deployed.coordinator.key.public)
    with pytest.raises(IdentityError):
        agent.unmask(seal(UNMASK_LABEL, payload, PrivateKey.generate()))


def test_an_agent_too_busy_for_a_question_says_so_and_reveals_nothing(deployed: Deployed, tmp_path: Path) -> None:
    run = deployed.play(tmp_path / "run")["run"]
    name, question = deployed.questions[-1]
    told = deployed.opened(name, deployed.agents[name].busy("unmask", question))
    assert told == Refusal(institution=name, run=run, round=2, reason="busy")
    with pytest.raises(IdentityError):
        deployed.agents[name].busy("unmask", question[:-1])


def context_of(deployed: Deployed, name: str, number: int) -> RoundContext:
    with Ledger.open(deployed.policy(name).agent.ledger, read_only=True) as ledger:
        stored = ledger.stored_release(ledger.entries()[-1].fields["run"], number, "update")
    assert stored is not None
    return RoundContext.from_bytes(unframed(stored)[0])


def test_a_round_that_never_was_is_not_unmasked(deployed: Deployed, tmp_path: Path) -> None:
    deployed.play(tmp_path / "run")
    name, question = deployed.questions[-1]
    payload = open_signed(UNMASK_LABEL, question, deployed.coordinator.key.public)
    later = seal(UNMASK_LABEL, payload.replace(b'"round":2', b'"round":7', 1), deployed.coordinator.key)
    found = deployed.opened(name, deployed.agents[name].unmask(later))
    assert isinstance(found, Refusal)
    assert (found.round, found.reason) == (7, "stale-round")


def test_three_of_which_one_refuses_are_too_few(deployed: Deployed, tmp_path: Path) -> None:
    """With three every one is needed: no sum of two is formed."""
    file = deployed.policy_file("west")
    file.write_text(file.read_text().replace("least_cohort = 3", "least_cohort = 4"))
    deployed.start_again("west")
    deployed.begin(tmp_path / "run", federation(tmp_path / "data", MASKED, "federation.rounds=4", *OFF))
    with pytest.raises(QuorumNotReached):
        deployed.play(tmp_path / "run")
    assert {record["secure_aggregation"]["abandoned"] for record in records_of(tmp_path / "run")} == {
        "quorum-not-reached"
    }
    assert deployed.refusals("west")[0] == (1, "policy")
    assert not deployed.questions


def test_agents_add_their_shares_of_the_noise_and_charge_the_sum(tmp_path: Path, monkeypatch: Any) -> None:
    """And allow.min_noise_multiplier is about the sum: a share alone would not reach north's."""
    monkeypatch.setattr(rehearse, "_may_choose_users", lambda: False)
    config = federation(tmp_path / "data", *SHARED)
    members = Deployed(tmp_path / "all", config)
    try:
        restart_with(members, "north", "min_noise_multiplier = 0.1", f"min_noise_multiplier = {sum_noise(config)}")
        members.play(tmp_path / "run")
        assert all(record["updates"] == sorted(NAMES) for record in records_of(tmp_path / "run"))
        for name in NAMES:
            charges = [event for event in members.charges(name) if isinstance(event, DistributedStep)]
            assert [event.least_honest for event in charges] == [2, 2]
            assert epsilon_of(charges, 1e-3) <= 8.0
        longer = federation(tmp_path / "data", *SHARED, "federation.rounds=4")
        above = math.nextafter(sum_noise(longer), math.inf)
        restart_with(members, "south", "min_noise_multiplier = 0.1", f"min_noise_multiplier = {above}")
        restart_with(members, "west", "distributed_against = 0", "# distributed_against = 0")
        members.begin(tmp_path / "again", longer)
        with pytest.raises(QuorumNotReached):
            members.play(tmp_path / "again")
        assert members.refusals("south")[0] == members.refusals("west")[0] == (1, "policy")
    finally:
        members.close()


def restart_with(members: Deployed, name: str, line: str, other: str) -> None:
    file = members.policy_file(name)
    assert line in file.read_text()
    file.write_text(file.read_text().replace(line, other))
    members.start_again(name)


def sum_noise(config: FederationConfig) -> float:
    noise = shared_noise(config)
    assert noise is not None
    return noise.noise_multiplier


def test_a_policy_that_requires_masks_refuses_a_run_without(deployed: Deployed, tmp_path: Path) -> None:
    file = deployed.policy_file("north")
    file.write_text(file.read_text().replace('secure_aggregation = "optional"', 'secure_aggregation = "required"'))
    deployed.start_again("north")
    deployed.begin(tmp_path / "bare", federation(tmp_path / "data", *OFF))
    deployed.play(tmp_path / "bare")
    assert all(record["refused"] == {"north": "policy"} for record in records_of(tmp_path / "bare"))
    deployed.play(tmp_path / "run")
    assert all(record["quorum"] for record in records_of(tmp_path / "run"))


def test_the_agents_log_names_run_and_round_of_both_exchanges(deployed: Deployed, tmp_path: Path) -> None:
    told: list[tuple[str | None, int | None, str]] = []
    for name in NAMES:

        def answer(body: bytes, name: str = name) -> bytes:
            found = deployed.agents[name].answer(body)
            told.append(_about(found))
            return found

        def unmask(body: bytes, name: str = name) -> bytes:
            found = deployed.agents[name].unmask(body)
            told.append(_about(found))
            return found

        deployed.answering[name], deployed.revealing[name] = answer, unmask
    run = deployed.play(tmp_path / "run")["run"]
    assert sorted(told) == sorted((run, number, word) for number in (1, 2) for word in 3 * ["masked-update", "shares"])
