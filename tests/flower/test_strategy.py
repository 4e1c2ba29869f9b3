"""Rounds over messages: who is asked, who is heard, and what a hostile or silent node cannot do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

import fedft.flower.strategy
from fedft.errors import FederationError, QuorumNotReached
from fedft.flower.handlers import make_client_app
from fedft.flower.local_grid import LocalGrid
from fedft.flower.records import body_content, body_of
from fedft.flower.strategy import FedftStrategy, partition_of
from fedft.rounds.coordinator import Coordinator
from fedft.rounds.messages import (
    decode_question,
    encode_presence,
)
from fedft.rounds.plan import RoundRequest
from fedft.update.release import Refusal
from fedft.update.wire import body_size
from tests.rounds import small
from tests.rounds.small import COHORT, LAYOUT, refusal_of, update_of

Answers = dict[str, Callable[[RoundRequest], bytes | Refusal]]


class Institution:
    def __init__(self, name: str, answers: Answers) -> None:
        self._name, self._answers = name, answers

    def answer(self, request: RoundRequest) -> bytes | Refusal:
        answer = self._answers.get(self._name)
        return update_of(self._name, request) if answer is None else answer(request)

    def key(self, setup: str) -> bytes:
        raise AssertionError("nothing is masked here")

    def unmask(self, question: bytes) -> bytes | Refusal:
        raise AssertionError("nothing is masked here")

    def notice(self, data: bytes) -> bytes:
        raise AssertionError("no log is kept here")


def app_of(names: Sequence[str] = COHORT, **answers: Callable[[RoundRequest], bytes | Refusal]) -> ClientApp:
    """Node k says that it is names[k - 1], and answers with a valid update unless told otherwise."""
    return make_client_app(
        lambda context: names[partition_of(context)], lambda name: nullcontext(Institution(name, answers))
    )


def play(coordinator: Coordinator, grid: LocalGrid, *, timeout: float = 5.0, **options: Any) -> list[dict[str, Any]]:
    FedftStrategy(coordinator, round_timeout_s=timeout, **options).start(grid)
    return coordinator.state.records


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedft.flower.strategy, "ROLL_CALL_SECONDS", 0.1)


def test_over_messages_a_run_ends_with_the_bits_it_has_without_them(tmp_path: Path) -> None:
    direct = small.coordinator(tmp_path / "direct")
    small.play(direct)
    over = small.coordinator(tmp_path / "messages")
    records = play(over, LocalGrid(app_of(), 3), measured=lambda: {"seconds_training": 7.0})
    assert over.state.adapter.tobytes() == direct.state.adapter.tobytes()
    assert [record["updates"] for record in records] == [list(COHORT)] * 4
    down = 3 * body_size("adapter", LAYOUT.size, "float32")
    assert {(record["bytes_down"], record["seconds_training"]) for record in records} == {(down, 7.0)}
    assert [record["bytes_up"] for record in records] == [record["bytes_up"] for record in direct.state.records]


def test_a_run_goes_on_where_its_coordinator_stands(tmp_path: Path) -> None:
    small.play_round(small.coordinator(tmp_path))
    resumed = small.coordinator(tmp_path)
    play(resumed, LocalGrid(app_of(), 3))
    assert [record["round"] for record in resumed.state.records] == [1, 2, 3, 4]
    asked: list[RoundRequest] = []
    grid = LocalGrid(app_of(north=lambda request: asked.append(request) or b""), 3)  # type: ignore[func-returns-value]
    play(small.coordinator(tmp_path), grid)
    assert asked == [], "a finished run asks nobody"


def test_the_cohort_is_asked_in_its_order_with_our_record_alone(tmp_path: Path) -> None:
    strategy = FedftStrategy(small.coordinator(tmp_path), round_timeout_s=5.0)
    grid = LocalGrid(app_of(("west", "south", "north")), 3)
    strategy._call_roll(grid)
    messages = list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid))
    assert [message.metadata.dst_node_id for message in messages] == [3, 2, 1]
    assert {message.metadata.group_id for message in messages} == {"round-1"}
    assert {tuple(message.content) for message in messages} == {("fedft",)}
    assert list(strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), grid)) == []
    assert strategy.aggregate_evaluate(1, []) is None


def test_replies_without_a_round_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="use start"):
        FedftStrategy(small.coordinator(tmp_path), round_timeout_s=1.0).aggregate_train(1, [])


def fail(_: RoundRequest) -> bytes:
    raise RuntimeError("out of memory")


ODD: dict[str, tuple[dict[str, str], Callable[[RoundRequest], bytes | Refusal]]] = {
    "an-exception": ({}, fail),
    "a-refusal": ({"south": "budget-exhausted"}, lambda asked: refusal_of("south", asked, "budget-exhausted")),
    "anothers-refusal": ({"south": "update"}, lambda asked: refusal_of("north", asked, "budget-exhausted")),
    "anothers-update": ({"south": "update"}, lambda asked: update_of("north", asked)),
    "rubbish": ({"south": "update"}, lambda asked: b"rubbish"),
    "nan": (
        {"south": "non-finite-update"},
        lambda asked: update_of("south", asked, delta=np.full(LAYOUT.size, np.nan, np.float32)),
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_whatever_one_sends_the_others_round_is_as_if_it_had_not(name: str, tmp_path: Path) -> None:
    refused, answer = ODD[name]
    without = small.coordinator(tmp_path / "without")
    while not without.finished:
        small.play_round(without, ("north", "west"))
    played = small.coordinator(tmp_path / "played")
    records = play(played, LocalGrid(app_of(south=answer), 3))
    assert [record["updates"] for record in records] == [["north", "west"]] * 4
    assert [record["refused"] for record in records] == [refused] * 4
    assert [record["missing"] for record in records] == [[] if refused else ["south"]] * 4
    assert played.state.adapter.tobytes() == without.state.adapter.tobytes()


def test_an_answer_of_another_form_is_refused_without_ending_the_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of()
    other = ClientApp()

    @other.query()
    def query(message: Message, context: Any) -> Message:
        nonce, _ = decode_question(body_of(message.content))
        return Message(body_content(encode_presence(nonce, "west")), reply_to=message)

    @other.train()
    def train(message: Message, context: Any) -> Message:
        content = RecordDict({"fedft": ConfigRecord({"refusal": "patient zq7canary"})})
        content["num-examples"] = ConfigRecord({"n": 17})
        return Message(content, reply_to=message)

    class Mixed(LocalGrid):
        def _deliver(self, message: Message) -> Message:
            self._app = other if message.metadata.dst_node_id == 3 else app
            return super()._deliver(message)

    records = play(small.coordinator(tmp_path, rounds=1), Mixed(app, 3))
    assert records[0]["refused"] == {"west": "update"}
    assert "west sent something else than an answer" in caplog.text
    assert "zq7canary" not in caplog.text


def test_a_stranger_and_a_second_of_a_name_are_not_asked(tmp_path: Path) -> None:
    asked: list[str] = []

    def noting(name: str) -> Any:
        asked.append(name)
        return nullcontext(Institution(name, {}))

    names = ("north", "mallory", "north", "south", "west")
    app = make_client_app(lambda context: names[partition_of(context)], noting)
    records = play(small.coordinator(tmp_path, rounds=2), LocalGrid(app, 5))
    assert asked == [*COHORT, *COHORT]
    assert records[0]["bytes_down"] == 3 * body_size("adapter", LAYOUT.size, "float32")


@pytest.mark.usefixtures("brief")
def test_a_quorum_is_enough_when_the_rest_does_not_come(tmp_path: Path) -> None:
    played = small.coordinator(tmp_path, rounds=2, min_institutions=2)
    records = play(played, LocalGrid(app_of(("north", "south")), 2))
    assert [record["missing"] for record in records] == [["west"]] * 2
    assert all(record["quorum"] for record in records)


@pytest.mark.usefixtures("brief")
def test_without_a_quorum_it_asks_as_long_as_a_round_may_take_and_then_says_who_is_missing(tmp_path: Path) -> None:
    played = small.coordinator(tmp_path, rounds=9, min_institutions=2)
    with pytest.raises(QuorumNotReached, match="south: missing, west: missing"):
        play(played, LocalGrid(app_of(("north",)), 1), timeout=0.2)
    assert played.next_round == 4


class Silent(LocalGrid):
    """Node 2 never answers ``kind``."""

    kind = "query"

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        def heard(message_id: str) -> bool:
            found = self._pending.get(message_id)
            return found is None or (found.metadata.dst_node_id, found.metadata.message_type) != (2, self.kind)

        return super().pull_messages([message_id for message_id in message_ids if heard(message_id)])


@pytest.mark.usefixtures("brief")
def test_a_node_that_does_not_say_its_name_holds_nobody_up_for_a_rounds_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    records = play(small.coordinator(tmp_path, rounds=2), Silent(app_of(), 3), timeout=30.0)
    assert time.monotonic() - begun < 10
    assert [record["missing"] for record in records] == [["south"]] * 2


def test_a_node_that_does_not_answer_in_time_is_missing(tmp_path: Path) -> None:
    grid = Silent(app_of(), 3)
    grid.kind = "train"
    records = play(small.coordinator(tmp_path, rounds=2), grid, timeout=0.2)
    assert [(record["updates"], record["missing"]) for record in records] == [(["north", "west"], ["south"])] * 2


class Moving(LocalGrid):
    """Nodes that are there change with the rounds."""

    def __init__(self, app: ClientApp, nodes: int, *present: tuple[int, ...]) -> None:
        super().__init__(app, nodes)
        self._present = list(present)
        self._round = -1

    def push_messages(self, messages: Iterable[Message]) -> Sequence[str]:
        chosen = list(messages)
        if chosen and chosen[0].metadata.message_type == "train":
            self._round += 1
        return super().push_messages(chosen)

    def get_node_ids(self) -> Sequence[int]:
        return self._present[min(self._round + 1, len(self._present) - 1)]


def test_who_comes_late_joins_and_who_comes_back_under_another_number_is_the_same(tmp_path: Path) -> None:
    """Round 1 without west; round 2 with it; in round 3 south has gone; in round 4 it is back as node 4."""
    app = app_of(("north", "south", "west", "south"))
    grid = Moving(app, 4, (1, 2), (1, 2, 3), (1, 3), (1, 3, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fedft.flower.strategy, "ROLL_CALL_SECONDS", 0.05)
        records = play(small.coordinator(tmp_path), grid)
    assert [record["missing"] for record in records] == [["west"], [], ["south"], []]


def test_the_summary_names_the_run_and_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        FedftStrategy(small.coordinator(tmp_path), round_timeout_s=1.0).summary()
    assert "run tiny/1: 4 rounds, 3 institutions" in caplog.text
