"""The relay as Flower calls it: an update, a word, a name, or an error that says nothing."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from fedft.errors import ConfigError, LedgerLocked, PrivacyBudgetExhausted, StorageError
from fedft.flower.handlers import NoAnswer, make_client_app
from fedft.flower.local_grid import LocalGrid
from fedft.flower.records import body_content, body_of
from fedft.rounds.messages import decode_answer, decode_presence, encode_answer, encode_question, encode_request
from fedft.rounds.plan import RoundRequest
from fedft.update.release import Refusal
from tests.rounds.test_messages import NONCE, REFUSAL, REQUEST, TERMS

CANARY = "zq7canary"
ASKED = body_content(encode_request(REQUEST, TERMS))
QUESTION = body_content(encode_question(NONCE))


class Answering:
    """An institution that answers what it is told to, or fails."""

    def __init__(self, answer: bytes | Refusal | BaseException) -> None:
        self._answer = answer
        self.asked: list[RoundRequest] = []

    def answer(self, request: RoundRequest) -> bytes | Refusal:
        self.asked.append(request)
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def key(self, setup: str) -> bytes:
        raise self._answer if isinstance(self._answer, BaseException) else AssertionError("not asked for a key")

    def unmask(self, question: bytes) -> bytes | Refusal:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def notice(self, data: bytes) -> bytes:
        raise self._answer if isinstance(self._answer, BaseException) else AssertionError("no log is kept")


def app_of(answer: bytes | Refusal | BaseException) -> ClientApp:
    return make_client_app(lambda _: "north", lambda _: nullcontext(Answering(answer)))


def asking(content: RecordDict, kind: str = "train") -> tuple[Message, Context]:
    grid = LocalGrid(app_of(b""), 1)
    message = grid.create_message(content, kind, 1, "group")
    grid.push_messages([message])
    return message, grid._contexts[1]


def as_flower_does(app: ClientApp, message: Message, context: Context) -> Message:
    """Its supernode and its simulation runtime put an exception's type and text into an error reply."""
    try:
        return app(message, context)
    except Exception as error:  # noqa: BLE001
        return Message(Error(code=1, reason=f"{type(error)}:<'{error}'>"), reply_to=message)


def reply_to(app: ClientApp, content: RecordDict, kind: str = "train") -> Message:
    return as_flower_does(app, *asking(content, kind))


@pytest.mark.parametrize("answer", [b"FEDFTUPD...", REFUSAL])
def test_what_the_institution_answers_is_what_travels(answer: bytes | Refusal) -> None:
    body = body_of(reply_to(app_of(answer), ASKED).content)
    assert body == encode_answer(answer)
    assert decode_answer(body) == answer


def test_the_institution_gets_the_request_as_it_was_sent() -> None:
    institution = Answering(b"")
    app = make_client_app(lambda _: "north", lambda _: nullcontext(institution))
    reply_to(app, ASKED)
    assert institution.asked[0].plan == REQUEST.plan
    assert institution.asked[0].adapter.tobytes() == REQUEST.adapter.tobytes()


def test_the_roll_call_is_answered_with_a_name() -> None:
    reply = reply_to(app_of(b""), QUESTION, "query")
    assert decode_presence(body_of(reply.content), nonce=NONCE) == ("north", b"")


def test_a_roll_call_without_a_question_is_no_answer() -> None:
    for odd in (RecordDict(), ASKED, body_content(b"")):
        assert reply_to(app_of(b""), odd, "query").has_error()


def test_who_is_asked_depends_on_the_node() -> None:
    opened: list[str] = []

    def opening(name: str) -> Any:
        opened.append(name)
        return nullcontext(Answering(b""))

    app = make_client_app(lambda context: f"node-{context.node_config['partition-id']}", opening)
    grid = LocalGrid(app, 3)
    messages = [grid.create_message(ASKED, "train", node, "1") for node in (3, 1)]
    list(grid.send_and_receive(messages))
    assert opened == ["node-2", "node-0"]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (LedgerLocked(CANARY), "ledger"),
        (StorageError(CANARY), "storage"),
        (OSError(28, CANARY), "storage"),
        (PrivacyBudgetExhausted(CANARY), "budget-exhausted"),
        (ConfigError(CANARY), "wrong-plan"),
    ],
)
@pytest.mark.parametrize("place", ["open", "answer", "close"])
def test_a_known_error_around_the_answer_becomes_its_word(place: str, error: Exception, word: str) -> None:
    @contextmanager
    def opening(_: str) -> Iterator[Answering]:
        if place == "open":
            raise error
        yield Answering(error if place == "answer" else b"")
        if place == "close":
            raise error

    reply = reply_to(make_client_app(lambda _: "north", opening), ASKED)
    found = decode_answer(body_of(reply.content))
    assert isinstance(found, Refusal)
    assert (found.reason, found.institution, found.run, found.round) == (word, "north", "run-1", 2)
    assert CANARY not in repr(dict(reply.content["fedft"]))


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError(CANARY)


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        try:
            raise ValueError(f"row of {CANARY}")
        except ValueError as cause:
            raise error from cause

    return fail


ERRORS = [
    RuntimeError(CANARY), MemoryError(CANARY), KeyError(CANARY), AttributeError(CANARY), StopIteration(CANARY),
    Unprintable(CANARY), ExceptionGroup(CANARY, [ValueError(CANARY)]), type(CANARY, (Exception,), {})(CANARY),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["name", "open", "answer", "roll-call"])
def test_any_other_error_says_nothing_on_the_way_out(place: str, error: Exception) -> None:
    """Neither its text nor its type, nor those of what caused it, in any form an exception has."""
    fail = failing(error)
    name_of = fail if place in ("name", "roll-call") else lambda _: "north"
    opening = fail if place == "open" else lambda _: nullcontext(Answering(error))
    app = make_client_app(name_of, opening)
    message, context = asking(QUESTION, "query") if place == "roll-call" else asking(ASKED)
    with pytest.raises(NoAnswer) as caught:
        app(message, context)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    reply = as_flower_does(app, message, context)
    assert reply.has_error()
    assert CANARY not in f"{reply.error.reason} {reply.metadata}"


def test_a_request_that_cannot_be_read_is_no_answer() -> None:
    reply = reply_to(app_of(b"never asked"), RecordDict())
    assert reply.has_error()
    assert reply.error.reason == "<class 'fedft.flower.handlers.NoAnswer'>:<'no answer'>"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_who_ends_the_program_ends_it(kind: type[BaseException]) -> None:
    message, context = asking(ASKED)
    with pytest.raises(kind):
        app_of(kind())(message, context)
