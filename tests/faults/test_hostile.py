"""Hostile peers: each is refused with a code, which is recorded, and the round goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedft.assembly.coordinator import PublicParts
from fedft.deployment.coordinator import play_on
from fedft.errors import IdentityError
from fedft.flower.local_grid import LocalGrid
from fedft.flower.records import body_content, body_of
from fedft.flower.strategy import partition_of
from fedft.identity.documents import canonical
from fedft.identity.keys import PrivateKey
from fedft.identity.signed import open_signed, seal
from fedft.ledger.store import Ledger
from fedft.records.heads import LogHead
from fedft.rounds.messages import (
    ANSWER_LABEL,
    REQUEST_LABEL,
    ROLL_CALL_LABEL,
    decode_question,
    decode_request,
    encode_presence,
)
from fedft.rounds.plan import RoundRequest, terms_digest
from fedft.types import Digest
from fedft.update.release import Refusal
from tests.deployment.deployed import Deployed
from tests.faults.hostile import UPDATES, Honest
from tests.federation import NAMES, OFF, adapter_of, federation, records_of

ASKED = 10_000


class Hostile:
    """West's agent answers as it should, and west's people send something else, signed with west's key."""

    def __init__(self, members: Deployed, size: int) -> None:
        self._members, self._size = members, size
        self._key = members.key("west")
        self._cases = list(UPDATES.values())
        self._first: bytes | None = None

    def __call__(self, body: bytes) -> bytes:
        request, _ = decode_request(open_signed(REQUEST_LABEL, body, self._members.coordinator.key.public))
        update = self._members.opened("west", self._members.agents["west"].answer(body))
        assert isinstance(update, bytes)
        self._first = self._first or update
        if request.plan.round > len(self._cases):  # at last, with another's signature
            return seal(ANSWER_LABEL, update, PrivateKey.generate())
        make = self._cases[request.plan.round - 1][1]
        return seal(ANSWER_LABEL, make(Honest(request.plan, update, self._first, self._size)), self._key)


def silent(body: bytes) -> bytes:
    raise ConnectionError


@pytest.fixture(scope="module")
def without_west(short_for_all: Path) -> tuple[Any, Any]:
    """The configuration, and the adapter of a run in which west never answers."""
    more = (f"federation.rounds={len(UPDATES) + 1}", "federation.min_institutions=2")
    config = federation(short_for_all / "data", *OFF, *more, "evaluation.every=100")
    members = Deployed(short_for_all / "all", config)
    members.answering["west"] = silent
    members.play(short_for_all / "run")
    members.close()
    assert [record["missing"] for record in records_of(short_for_all / "run")] == [["west"]] * (len(UPDATES) + 1)
    return config, adapter_of(short_for_all / "run")


def test_a_hostile_member_is_refused_round_after_round_and_the_others_train_on(
    without_west: tuple[Any, Any], short: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, expected = without_west
    parts = PublicParts(config)
    size = parts.model.layout.only(parts.aggregation.trains).size
    members, run = Deployed(short / "all", config), short / "run"
    members.answering["west"] = Hostile(members, size)
    members.play(run)
    members.close()
    records = records_of(run)
    codes = [code for code, _ in UPDATES.values()]
    assert [record["refused"].get("west") for record in records] == [*codes, "identity"]
    assert [record["updates"] for record in records] == [["north", "south"]] * len(records)
    assert np.array_equal(adapter_of(run), expected), "the sum has not a bit of it"
    assert sum("west" in line for line in caplog.messages) >= len(UPDATES)
    assert "zq7" not in caplog.text


def test_nodes_that_are_nobody_or_say_to_be_another_take_no_part(
    without_west: tuple[Any, Any], short: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Node 1 says that it is north, with a key of its own; node 2 so with south's; node 3 is of no federation."""
    members, run = Deployed(short / "all", federation(short / "data", *OFF)), short / "run"
    app, real = ClientApp(), tuple(NAMES)
    signers = (PrivateKey.generate(), members.key("south"), PrivateKey.generate())
    names = ("north", "north", "mallory")

    @app.query()
    def roll_call(message: Message, context: Context) -> Message:
        number, asked = partition_of(context), body_of(message.content)
        if number >= len(names):
            return Message(body_content(members.agents[real[number - len(names)]].roll_call(asked)), reply_to=message)
        nonce, _ = decode_question(open_signed(ROLL_CALL_LABEL, asked, members.coordinator.key.public))
        reply = seal(ROLL_CALL_LABEL, encode_presence(nonce, names[number]), signers[number])
        return Message(body_content(reply), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = partition_of(context)
        assert number >= len(names), "an impostor was asked to train"
        answer = members.agents[real[number - len(names)]].answer(body_of(message.content))
        return Message(body_content(answer), reply_to=message)

    members.begin(run)
    play_on(lambda strategy: strategy.start(LocalGrid(app, len(names) + len(real))), run)
    members.close()
    assert [record["updates"] for record in records_of(run)] == [sorted(NAMES)] * 2
    assert sum("left out" in line for line in caplog.messages) == len(names)


@pytest.fixture(scope="module")
def north(short_for_all: Path) -> Iterator[tuple[Deployed, RoundRequest, str]]:
    """A private federation, and what its coordinator would ask of north."""
    members = Deployed(short_for_all / "asked", federation(short_for_all / "data"))
    members.begin(short_for_all / "asking")
    request, terms = members.request(short_for_all / "asking")
    yield members, request, terms
    members.close()


def entries(members: Deployed) -> int:
    with Ledger.open(members.policy("north").agent.ledger, read_only=True) as ledger:
        return len(ledger.entries())


def test_a_plan_of_another_key_is_not_even_looked_at(north: tuple[Deployed, RoundRequest, str]) -> None:
    members, request, terms = north
    before, body = entries(members), members.signed(request, terms)
    payload = open_signed(REQUEST_LABEL, body, members.coordinator.key.public)
    for key in (PrivateKey.generate(), members.key("south"), members.key("north")):
        with pytest.raises(IdentityError):
            members.agents["north"].answer(seal(REQUEST_LABEL, payload, key))
    assert entries(members) == before


ASKED_TOO_MUCH: dict[str, tuple[str, dict[str, Any]]] = {
    "epsilon above the cap": ("policy", {"privacy.epsilon": 8.5}),
    "an epsilon that is no number": ("policy", {"privacy.epsilon": "8"}),
    "another delta": ("policy", {"privacy.delta": 0.01}),
    "privacy off": ("policy", {"privacy": {"mode": "off"}}),
    "no word of privacy": ("policy", {"privacy": None}),
    "another base model": ("policy", {"model.sha256": "f" * 64}),
    "another unit": ("policy", {"data.unit": None}),
    "metrics": ("policy", {"metrics": ["loss"]}),
    "a private Fisher": ("policy", {"continual.method": "ewc", "continual.fisher": "private-dp"}),
    "more than it says": ("policy", {"training.local_steps": 200}),
    "a file of its choice as reference": ("wrong-plan", {"data.reference": "/etc/passwd"}),
    "a file of its choice to train on": ("wrong-plan", {"data.train": "/etc/passwd"}),
    "a base model of its choice": ("wrong-plan", {"model.base": "/tmp"}),
    "a field nobody knows": ("wrong-plan", {"task.hidden": 1}),
}


def altered(terms: str, changes: dict[str, Any]) -> str:
    body = json.loads(terms)
    for where, value in changes.items():
        section, _, key = where.partition(".")
        if key:
            body[section][key] = value
        elif value is None:
            del body[section]
        else:
            body[section] = value
    return canonical(body).decode()


@pytest.mark.parametrize("case", ASKED_TOO_MUCH)
def test_a_coordinator_that_asks_for_more_than_the_policy_is_refused_and_nothing_is_paid(
    north: tuple[Deployed, RoundRequest, str], case: str
) -> None:
    members, request, terms = north
    word, changes = ASKED_TOO_MUCH[case]
    text = altered(terms, changes)
    number = 1 + list(ASKED_TOO_MUCH).index(case)
    plan = replace(request.plan, run=f"tiny/{number}", terms_digest=terms_digest(text))
    head = LogHead(plan.run, 2, Digest("a" * 64)).signed(members.coordinator.key)
    asked = members.signed(replace(request, plan=plan, head=head), text)
    answer = members.opened("north", members.agents["north"].answer(asked))
    assert isinstance(answer, Refusal)
    assert (answer.institution, answer.run, answer.round, answer.reason) == ("north", plan.run, 1, word)
    assert (1, word) in members.refusals("north")
    assert members.charges("north") == ()


def test_an_agent_that_is_asked_ten_thousand_times_pays_once(north: tuple[Deployed, RoundRequest, str]) -> None:
    members, request, terms = north
    body, agent = members.signed(request, terms), members.agents["north"]
    first = agent.answer(body)
    paid, noted = members.charges("north"), entries(members)
    assert len(paid) == 1
    forged = body[:-1] + bytes([body[-1] ^ 1])
    for number in range(ASKED):
        if number % 2:
            with pytest.raises(IdentityError):
                agent.answer(forged)
        else:
            assert agent.answer(body) == first
    assert members.charges("north") == paid
    assert entries(members) == noted
