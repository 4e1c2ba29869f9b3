"""One round of Flower's SecAgg+ over given vectors, by Flower's own workflow and client mod, with CPU time and bytes.

The grid is in this process; the model is not sent, training takes no time, and the strategy takes the mean as it comes,
so that what is left is secure aggregation. Time is the process's CPU time, of all threads; a member's excludes the
message's way through the grid. Bytes are those of the values in
its records, 8 for a number, without names and envelope.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import Code, FitIns, FitRes, Parameters, Scalar, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.constant import ErrorCode
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common.recorddict_compat import fitres_to_recorddict, parameters_to_arrayrecord
from flwr.server import LegacyContext
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow

from fedft.flower.local_grid import LocalGrid

WEIGHT, CLIPPING_RANGE, LEVELS, MODULUS = 1000, 0.5, 2**22, 2**32
"""Examples of each member; range of a value; Flower's defaults for the number of levels and the modulus."""


@dataclass
class Cost:
    """member_seconds by node; bytes up and down of all members together, without the model."""

    member_seconds: dict[int, float] = field(default_factory=dict)
    coordinator_seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    mean: npt.NDArray[np.float64] | None = None


class _Grid(LocalGrid):
    """Flower's client mod around a training that hands out ``vector``; ``lost`` nodes are gone once keys are shared."""

    def __init__(self, members: int, vector: npt.NDArray[np.float32], lost: Collection[int]) -> None:
        super().__init__(ClientApp(), members)
        self.cost, self.seconds_of_members = Cost(), 0.0
        self._lost, self._training = lost, 0.0
        self._parameters = ndarrays_to_parameters([vector])

    def send_and_receive(  # type: ignore[override]
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """A list: Flower's workflow goes through the replies twice."""
        return list(super().send_and_receive(messages, timeout=timeout))

    def _deliver(self, message: Message) -> Message:
        begun = time.process_time()
        reply = self._answer(message)
        self.seconds_of_members += time.process_time() - begun
        return reply

    def _answer(self, message: Message) -> Message:
        node, asked = message.metadata.dst_node_id, message.content.config_records[RECORD_KEY_CONFIGS]
        self.cost.bytes_down += _bytes(asked)
        if node in self._lost and asked[Key.STAGE] == Stage.COLLECT_MASKED_VECTORS:
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION), reply_to=message)
        # The mod takes its question apart, and Flower's workflow may have given all nodes the same one.
        message.content = RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(dict(asked))})
        self._training, begun = 0.0, time.process_time()
        reply = secaggplus_mod(message, self._contexts[node], self._train)
        spent = time.process_time() - begun - self._training
        self.cost.member_seconds[node] = self.cost.member_seconds.get(node, 0.0) + spent
        self.cost.bytes_up += _bytes(reply.content.config_records[RECORD_KEY_CONFIGS])
        return reply

    def _train(self, message: Message, context: Context) -> Message:
        begun = time.process_time()
        result = FitRes(Status(Code.OK, ""), self._parameters, WEIGHT, {})
        reply = Message(fitres_to_recorddict(result, keep_input=True), reply_to=message)
        self._training = time.process_time() - begun
        return reply


def _bytes(record: ConfigRecord) -> int:
    """Flower's own count_bytes fails at an empty list."""
    lists = [value if isinstance(value, list) else [value] for value in record.values()]
    return sum(len(value) if isinstance(value, bytes | str) else 8 for values in lists for value in values)


class _Strategy(FedAvg):
    def __init__(self, grid: LocalGrid) -> None:
        super().__init__()
        self._proxies = [GridClientProxy(node, grid, 1) for node in grid.get_node_ids()]
        self.found: Parameters | None = None

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        return [(proxy, FitIns(Parameters([], ""), {})) for proxy in self._proxies]

    def aggregate_fit(
        self, server_round: int, results: list[tuple[ClientProxy, FitRes]], failures: Any
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        self.found = results[0][1].parameters
        return None, {}


def flower_round(vector: npt.NDArray[np.float32], members: int, threshold: int, lost: int) -> Cost:
    """Each of ``members`` sends ``vector``; ``lost`` of them share their keys and then nothing."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    grid = _Grid(members, vector, range(1, lost + 1))
    strategy = _Strategy(grid)
    state = RecordDict(
        {
            "config": ConfigRecord({"current_round": 1}),
            "parameters": parameters_to_arrayrecord(Parameters([], ""), keep_input=True),
        }
    )
    coordinator = Context(run_id=1, node_id=1, node_config=UserConfig(), state=state, run_config=UserConfig())
    workflow = SecAggPlusWorkflow(
        members,
        threshold,
        max_weight=WEIGHT,
        clipping_range=CLIPPING_RANGE,
        quantization_range=LEVELS,
        modulus_range=MODULUS,
    )
    begun = time.process_time()
    workflow(grid, LegacyContext(coordinator, strategy=strategy))
    grid.cost.coordinator_seconds = time.process_time() - begun - grid.seconds_of_members
    if strategy.found is None:
        raise RuntimeError("expected Flower's round to end with a mean, found none: see its log")
    (grid.cost.mean,) = parameters_to_ndarrays(strategy.found)
    return grid.cost
