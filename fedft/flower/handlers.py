"""A simulation's ClientApp: between Flower's messages and an institution, which alone knows data, model and ledger.

Across organisations client/app.py stands here, and the institution is another process.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedft.errors import FedftError
from fedft.flower.records import RECEIPT, UNMASK, body_content, body_of
from fedft.rounds.messages import decode_question, decode_request, encode_answer, encode_presence
from fedft.rounds.plan import RoundRequest
from fedft.update.release import Refusal, refusal_for


class Answerer(Protocol):
    """What is needed of an institution here: rounds.institution.Institution, or one with faults."""

    def answer(self, request: RoundRequest) -> bytes | Refusal: ...
    def key(self, setup: str) -> bytes: ...
    def unmask(self, question: bytes) -> bytes | Refusal: ...
    def notice(self, data: bytes) -> bytes: ...


class NoAnswer(Exception):
    """Instead of whatever went wrong: Flower sends an exception's text to the coordinator."""

    def __init__(self) -> None:
        super().__init__("no answer")


NameOf = Callable[[Context], str]
OpenInstitution = Callable[[str], AbstractContextManager[Answerer]]


def make_client_app(name_of: NameOf, open_institution: OpenInstitution) -> ClientApp:
    """``train`` answers a round, ``train.unmask`` reveals shares, ``query`` says which institution this node is,
    ``query.receipt`` keeps the coordinator's last head.

    Guarantee: what a handler returns or raises holds a stored update, a refusal's word, a name, or nothing.
    """
    app = ClientApp()

    @app.query()
    def roll_call(message: Message, context: Context) -> Message:
        return Message(_or_no_answer(lambda: _presence(name_of(context), open_institution, message)), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(_or_no_answer(lambda: _answer(name_of(context), open_institution, message)), reply_to=message)

    @app.train(UNMASK.partition(".")[2])
    def unmask(message: Message, context: Context) -> Message:
        return Message(_or_no_answer(lambda: _shares(name_of(context), open_institution, message)), reply_to=message)

    @app.query(RECEIPT.partition(".")[2])
    def receipt(message: Message, context: Context) -> Message:
        return Message(_or_no_answer(lambda: _noticed(name_of(context), open_institution, message)), reply_to=message)

    return app


def _or_no_answer(make: Callable[[], RecordDict]) -> RecordDict:
    try:
        content = make()
    except Exception:  # noqa: BLE001 - whatever it was, its text must not travel
        content = None
    if content is None:
        raise NoAnswer  # outside the except block, so that no cause travels along
    return content


def _presence(name: str, open_institution: OpenInstitution, message: Message) -> RecordDict:
    nonce, setup = decode_question(body_of(message.content))
    if not setup:
        return body_content(encode_presence(nonce, name))
    with open_institution(name) as institution:
        return body_content(encode_presence(nonce, name, institution.key(setup)))


def _shares(name: str, open_institution: OpenInstitution, message: Message) -> RecordDict:
    with open_institution(name) as institution:
        return body_content(encode_answer(institution.unmask(body_of(message.content))))


def _noticed(name: str, open_institution: OpenInstitution, message: Message) -> RecordDict:
    with open_institution(name) as institution:
        return body_content(institution.notice(body_of(message.content)))


def _answer(name: str, open_institution: OpenInstitution, message: Message) -> RecordDict:
    request, _ = decode_request(body_of(message.content))
    try:
        with open_institution(name) as institution:
            answer = institution.answer(request)
    except (FedftError, OSError) as error:
        answer = refusal_for(error, institution=name, run=request.plan.run, round=request.plan.round)
    return body_content(encode_answer(answer))
