"""A coordinator over an adapter of a dozen values, without a model: updates made by hand, evaluations as told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedft.aggregation.base import Aggregation
from fedft.aggregation.fedavg import FedAvg
from fedft.aggregation.server_optimizer import server_optimizer
from fedft.model.vector import AdapterLayout, TensorSpec
from fedft.rounds.coordinator import Coordinator, FederationTerms
from fedft.rounds.evaluation import Evaluation
from fedft.rounds.open_round import OpenRound
from fedft.rounds.plan import RoundRequest
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.types import AdapterVector, Digest
from fedft.update.envelope import seal
from fedft.update.release import Refusal

COHORT = ("north", "south", "west")
LAYOUT = AdapterLayout(
    Digest("b" * 64),
    (
        TensorSpec("layer.query.lora_A", (2, 3), "lora_A"),
        TensorSpec("layer.query.lora_B", (3, 2), "lora_B"),
        TensorSpec("head.bias", (2,), "head"),
    ),
    scaling=2.0,
)
TERMS = FederationTerms(run="tiny/1", rounds=4, cohort=COHORT, local_steps=2, metric="accuracy")


class Scores:
    """An evaluation that says what it is told, one score after the other, the last for ever; notes what it saw."""

    def __init__(self, *scores: float) -> None:
        self._scores = list(scores)
        self.seen: list[tuple[AdapterVector, int]] = []

    def __call__(self, adapter: AdapterVector, task_index: int) -> Evaluation:
        self.seen.append((adapter.copy(), task_index))
        score = self._scores.pop(0) if len(self._scores) > 1 else self._scores[0]
        return Evaluation({"accuracy": score, "loss": -score})


def start() -> AdapterVector:
    return np.linspace(-1, 1, LAYOUT.size, dtype=np.float32)


def coordinator(
    folder: Path,
    *,
    evaluate: Callable[[AdapterVector, int], Evaluation] | None = None,
    aggregation: Aggregation | None = None,
    optimizer: str = "plain",
    observer: Observer | None = None,
    layout: AdapterLayout = LAYOUT,
    **terms: Any,
) -> Coordinator:
    aggregation = aggregation or FedAvg()
    return Coordinator(
        replace(TERMS, **terms),
        layout=layout,
        aggregation=aggregation,
        server_optimizer=server_optimizer(optimizer, size=layout.only(aggregation.trains).size),
        start=start(),
        evaluate=evaluate or Scores(0.5),
        folder=RunFolder(folder),
        about={"labels": ["a", "b"]},
        observer=observer,
    )


def bits(played: Coordinator) -> bytes:
    return played.state.adapter.tobytes()


def opened(played: Coordinator) -> OpenRound:
    return played.open_round(played.request())


def delta_of(name: str, round: int = 1, size: int = LAYOUT.size) -> npt.NDArray[np.float32]:
    """What ``name`` sends in ``round``: other values for each."""
    rng = np.random.default_rng([COHORT.index(name) if name in COHORT else 9, round])
    return rng.normal(0, 0.1, size).astype(np.float32)


def update_of(name: str, asked: OpenRound | RoundRequest, **changes: Any) -> bytes:
    """A valid update of ``name`` for the round that is open; ``changes`` are the envelope's own."""
    plan = asked.plan
    layout = LAYOUT.only(plan.roles)
    fields: dict[str, Any] = {
        "run": plan.run, "round": plan.round, "institution": name, "plan_digest": plan.digest,
        "layout_digest": layout.digest, "delta": delta_of(name, plan.round, layout.size),
    }  # fmt: skip
    return seal(**{**fields, **changes})


def refusal_of(name: str, asked: OpenRound | RoundRequest, reason: Any = "internal") -> Refusal:
    return Refusal(name, asked.plan.run, asked.plan.round, reason)


def play_round(
    played: Coordinator, senders: tuple[str, ...] = COHORT, refusing: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One round in which ``senders`` send and the rest refuse with a word, or do not answer."""
    asked = opened(played)
    for name in senders:
        asked.receive(name, update_of(name, asked))
    for name, reason in (refusing or {}).items():
        asked.refuse(name, refusal_of(name, asked, reason))
    return played.close(asked, bytes_down=0)


def play(played: Coordinator) -> list[dict[str, Any]]:
    records = []
    while not played.finished:
        records.append(play_round(played))
    return records
