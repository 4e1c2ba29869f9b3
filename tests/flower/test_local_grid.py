"""Flower's Grid in one process: the same messages, one ClientApp at a time, errors without a text."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedft.flower.local_grid import LocalGrid
from fedft.flower.strategy import partition_of, stream_replies

CANARY = "zq7canary"


class Node:
    """A ClientApp that notes who ran, counts in its node's state, and fails at node 2 when told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.ran: list[int] = []
        self.app = ClientApp()

        @self.app.train()
        def train(message: Message, context: Context) -> Message:
            self.ran.append(context.node_id)
            if error is not None and context.node_id == 2:
                raise error
            counted = context.state.config_records.get("counted", ConfigRecord({"times": 0}))
            context.state["counted"] = ConfigRecord({"times": int(str(counted["times"])) + 1})
            number = message.content.config_records["asked"]["number"]
            seen = ConfigRecord({"partition": partition_of(context), "number": number})
            return Message(RecordDict({"seen": seen}), reply_to=message)


def question(grid: LocalGrid, node: int, number: int = 1) -> Message:
    return grid.create_message(RecordDict({"asked": ConfigRecord({"number": number})}), "train", node, "group")


def test_it_is_a_grid_with_nodes_from_1() -> None:
    grid = LocalGrid(Node().app, 3)
    assert isinstance(grid, Grid)
    assert list(grid.get_node_ids()) == [1, 2, 3]
    grid.set_run(Run.create_empty(run_id=7))
    assert grid.run.run_id == 7


def test_replies_come_in_the_order_asked_with_what_flower_sets() -> None:
    node = Node()
    grid = LocalGrid(node.app, 3)
    asked = grid.push_messages([question(grid, 3, 30), question(grid, 1, 10)])
    replies = list(grid.pull_messages(asked))
    assert node.ran == [3, 1]
    assert [dict(reply.content["seen"]) for reply in replies] == [
        {"partition": 2, "number": 30}, {"partition": 0, "number": 10},
    ]  # fmt: skip
    assert [reply.metadata.src_node_id for reply in replies] == [3, 1]
    assert [reply.metadata.reply_to_message_id for reply in replies] == list(asked)
    assert all(reply.metadata.group_id == "group" for reply in replies)


def test_a_node_runs_when_its_reply_is_pulled_and_once() -> None:
    """So that one update at a time is in memory."""
    node = Node()
    grid = LocalGrid(node.app, 2)
    asked = grid.push_messages([question(grid, 1), question(grid, 2)])
    assert node.ran == []
    replies = grid.pull_messages(asked)
    next(replies)
    assert node.ran == [1]
    next(replies)
    assert node.ran == [1, 2]
    assert list(grid.pull_messages([*asked, "unknown"])) == []


def test_a_node_keeps_its_state_between_messages() -> None:
    grid = LocalGrid(Node().app, 2)
    for _ in range(3):
        list(grid.send_and_receive([question(grid, 1)], timeout=1))
    assert grid._contexts[1].state["counted"] == ConfigRecord({"times": 3})
    assert list(grid._contexts[2].state) == []


@pytest.mark.parametrize("error", [RuntimeError(CANARY), MemoryError(CANARY), type(CANARY, (Exception,), {})(CANARY)])
def test_an_exception_is_an_error_reply_without_its_text_and_the_others_go_on(error: Exception) -> None:
    node = Node(error)
    grid = LocalGrid(node.app, 3)
    replies = list(grid.send_and_receive([question(grid, number) for number in (1, 2, 3)]))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].metadata.src_node_id == 2
    assert replies[1].error.reason is None
    assert CANARY not in f"{vars(replies[1])}"


def test_an_interruption_is_not_swallowed() -> None:
    grid = LocalGrid(Node(KeyboardInterrupt()).app, 2)
    with pytest.raises(KeyboardInterrupt):
        list(grid.send_and_receive([question(grid, 2)]))


class Slow(LocalGrid):
    """Gives one reply a pull, and those of node 2 never."""

    def pull_messages(self, message_ids: Any) -> Any:
        known = [i for i in message_ids if i in self._pending and self._pending[i].metadata.dst_node_id != 2]
        return super().pull_messages(known[:1])


def test_replies_stream_until_all_are_there_or_the_time_is_over() -> None:
    node = Node()
    grid = Slow(node.app, 3)
    replies = stream_replies(grid, [question(grid, number) for number in (1, 2, 3)], timeout_s=2)
    assert [reply.metadata.src_node_id for reply in replies] == [1, 3]
    assert [r.metadata.src_node_id for r in stream_replies(grid, [question(grid, 3)], timeout_s=60)] == [3]
    assert list(stream_replies(grid, [], timeout_s=60)) == []
