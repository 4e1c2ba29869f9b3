"""Rounds over messages that are signed: who is believed, and what a node that signs with another key cannot do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.clientapp import ClientApp

from fedft.errors import ConfigError, QuorumNotReached
from fedft.flower.local_grid import LocalGrid
from fedft.flower.records import body_content, body_of
from fedft.flower.strategy import FedftStrategy, partition_of
from fedft.identity.keys import PrivateKey
from fedft.identity.signed import open_signed, seal
from fedft.rounds.coordinator import Coordinator
from fedft.rounds.messages import (
    ANSWER_LABEL,
    REQUEST_LABEL,
    ROLL_CALL_LABEL,
    decode_question,
    decode_request,
    encode_presence,
    encode_question,
    fresh_nonce,
)
from fedft.rounds.plan import terms_digest
from tests.flower.test_strategy import app_of, brief, play
from tests.rounds import small
from tests.rounds.small import COHORT, update_of

__all__ = ["brief"]

KEYS = {name: PrivateKey.generate() for name in ("coordinator", "mallory", *COHORT)}


def opened(label: str, name: str, data: bytes) -> bytes:
    return open_signed(label, data, KEYS[name].public)


def signed_app(keys: Sequence[str], names: Sequence[str]) -> ClientApp:
    """Node k gives itself the name names[k - 1] and signs with the key of keys[k - 1]; it checks who asks."""
    app = ClientApp()

    def answering(context: Any, label: str, message: Message, make: Callable[[str, bytes], bytes]) -> Message:
        number = partition_of(context)
        asked = open_signed(label, body_of(message.content), KEYS["coordinator"].public)
        payload = make(names[number], asked)
        reply = ANSWER_LABEL if label == REQUEST_LABEL else label
        return Message(body_content(seal(reply, payload, KEYS[keys[number]])), reply_to=message)

    @app.query()
    def query(message: Message, context: Any) -> Message:
        return answering(
            context, ROLL_CALL_LABEL, message, lambda name, asked: encode_presence(decode_question(asked)[0], name)
        )

    @app.train()
    def train(message: Message, context: Any) -> Message:
        return answering(context, REQUEST_LABEL, message, lambda name, asked: update_of(name, decode_request(asked)[0]))

    return app


def play_signed(coordinator: Coordinator, grid: LocalGrid, **options: Any) -> list[dict[str, Any]]:
    def sign(label: str, payload: bytes) -> bytes:
        return seal(label, payload, KEYS["coordinator"])

    return play(coordinator, grid, sign=sign, opened=opened, **options)


def test_a_signed_run_ends_with_the_bits_of_an_unsigned_one(tmp_path: Path) -> None:
    direct, over = small.coordinator(tmp_path / "direct"), small.coordinator(tmp_path / "signed")
    small.play(direct)
    records = play_signed(over, LocalGrid(signed_app(COHORT, COHORT), 3))
    assert [record["updates"] for record in records] == [list(COHORT)] * 4
    assert over.state.adapter.tobytes() == direct.state.adapter.tobytes()


def test_a_node_with_anothers_name_does_not_take_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Node 1 says first that it is north, with a key of its own, and node 2 so with south's."""
    app = signed_app(("mallory", "south", "north", "south", "west"), ("north", "north", "north", "south", "west"))
    records = play_signed(small.coordinator(tmp_path, rounds=2), LocalGrid(app, 5))
    assert [record["updates"] for record in records] == [list(COHORT)] * 2
    assert [record["refused"] for record in records] == [{}] * 2
    left_out = [line for line in caplog.messages if "left out" in line]
    assert len(left_out) == 2, "once for each such node"


@pytest.mark.usefixtures("brief")
def test_a_reply_that_was_sent_before_seats_nobody(tmp_path: Path) -> None:
    """Node 2 sends again what north once said; the nonce of that question was another."""
    grid = LocalGrid(signed_app(("north",), ("north",)), 1)
    question = body_content(seal(ROLL_CALL_LABEL, encode_question(fresh_nonce()), KEYS["coordinator"]))
    earlier = next(iter(grid.send_and_receive([grid.create_message(question, "query", 1, "group")])))
    replaying = ClientApp()

    @replaying.query()
    def query(message: Message, context: Any) -> Message:
        return Message(earlier.content, reply_to=message)

    with pytest.raises(QuorumNotReached):
        play_signed(small.coordinator(tmp_path), LocalGrid(replaying, 2), timeout=0.2)


@pytest.mark.parametrize("kind", ["altered", "another-label", "not-signed", "anothers", "too-long"])
def test_an_answer_that_its_institution_did_not_sign_is_refused_with_a_code(kind: str, tmp_path: Path) -> None:
    app = signed_app(COHORT, COHORT)

    class Between(LocalGrid):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if message.metadata.dst_node_id != 2 or message.metadata.message_type == "query":
                return reply
            body = body_of(reply.content)
            payload = opened(ANSWER_LABEL, "south", body)
            changed = {
                "altered": body[:-1] + bytes([body[-1] ^ 1]),
                "another-label": seal(REQUEST_LABEL, payload, KEYS["south"]),
                "not-signed": payload,
                "anothers": seal(ANSWER_LABEL, payload, KEYS["north"]),
                "too-long": body + bytes(10_000),
            }[kind]
            return Message(body_content(changed), reply_to=message)

    records = play_signed(small.coordinator(tmp_path, rounds=2), Between(app, 3))
    code = "update" if kind == "too-long" else "identity"
    assert [(record["updates"], record["refused"]) for record in records] == [(["north", "west"], {"south": code})] * 2


def test_the_terms_travel_with_every_plan(tmp_path: Path) -> None:
    terms = '{"label":"fedft/v1/terms"}'
    asked: list[tuple[str, str]] = []
    played = small.coordinator(tmp_path, rounds=2, terms_digest=terms_digest(terms))
    strategy = FedftStrategy(played, round_timeout_s=5.0, terms=terms)
    grid = LocalGrid(app_of(), 3)
    strategy._call_roll(grid)
    for message in strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid):
        request, told = decode_request(body_of(message.content))
        asked.append((told, request.plan.terms_digest))
    assert asked == [(terms, terms_digest(terms))] * 3


def test_terms_that_the_coordinator_does_not_name_are_not_sent(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="terms_digest"):
        play(small.coordinator(tmp_path), LocalGrid(app_of(), 3), terms="{}")
