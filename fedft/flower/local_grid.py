"""Flower's Grid in one process: the same messages, handed to the ClientApp one at a time, no copies and no waiting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedft.flower.strategy import PARTITION


class LocalGrid(Grid):
    """Nodes 1..n run ``client_app`` when their reply is pulled, in the order in which they were asked.

    Guarantee: an exception of the ClientApp becomes an error reply without its text.
    """

    def __init__(self, client_app: ClientApp, nodes: int) -> None:
        self._app, self._run = client_app, Run.create_empty(run_id=1)
        # Who sends: Flower's runtimes set it for their process, and a Message cannot be made without.
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, SUPERLINK_NODE_ID
        self._pending: dict[str, Message] = {}
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config=UserConfig({PARTITION: node - 1}),
                state=RecordDict(),
                run_config=UserConfig(),
            )
            for node in range(1, nodes + 1)
        }

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Sequence[int]:
        return tuple(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Sequence[str]:
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            self._pending[message.metadata.message_id] = message
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for message_id in message_ids:
            if (message := self._pending.pop(message_id, None)) is not None:
                yield self._deliver(message)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> Message:
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception:  # noqa: BLE001 - as Flower does, but without the text
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION), reply_to=message)
