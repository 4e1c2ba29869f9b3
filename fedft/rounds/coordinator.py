"""The coordinator's side: ask, screen, add, step, evaluate, commit. It meets updates and public rows, no private ones.

Guarantee: the state after a round is a function of the configuration, the start adapter and the updates that were
accepted; a run that is killed and resumed with the same updates ends with the same adapter bit for bit.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedft.aggregation.base import Aggregation
from fedft.aggregation.server_optimizer import ServerOptimizer
from fedft.errors import FederationError, LayoutMismatch, QuorumNotReached
from fedft.evaluation.quality import is_better
from fedft.model.vector import AdapterLayout, vector_digest
from fedft.rounds.evaluation import Evaluate, Evaluation, in_numbers
from fedft.rounds.masked_sum import MaskedRounds
from fedft.rounds.open_round import OpenRound, PlainSum
from fedft.rounds.plan import NO_TERMS, RoundPlan, RoundRequest, task_of_round
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.rounds.trail import Trail
from fedft.secagg.context import RoundContext
from fedft.types import AdapterVector, Digest
from fedft.update.screening import l2_norm
from fedft.update.wire import Encoding, as_sent

log = logging.getLogger(__name__)

MAX_ROUNDS_WITHOUT_QUORUM = 3
"""In a row; after that the run stops instead of asking for ever."""


@dataclass(frozen=True)
class FederationTerms:
    """What a run is, for its coordinator. ``weights``: public constants by institution.

    local_steps: logical steps of a round. patience: evaluations of the last task without a better one, None: no end.
    terms_digest: of the terms that institutions are told with each plan (rounds/plan.py). encoding: how adapters and
    updates travel; the coordinator's own adapter keeps float32, and what is lost on the way does not add up.
    learning_rates: of each round, where what travels are gradients; none: updates, which have theirs in them.
    """

    run: str
    rounds: int
    cohort: tuple[str, ...]
    local_steps: int
    metric: str
    min_institutions: int = 1
    weights: Mapping[str, float] = field(default_factory=dict)
    max_update_norm: float = 1e3
    tasks: tuple[str, ...] = ()
    rounds_per_task: tuple[int, ...] = ()
    evaluate_every: int = 1
    patience: int | None = None
    terms_digest: Digest = NO_TERMS
    encoding: Encoding = "float32"
    learning_rates: tuple[float, ...] = ()


@dataclass
class _State:
    """All that a later round depends on, and the record of the earlier ones."""

    adapter: AdapterVector
    best: AdapterVector
    round: int = 0
    best_round: int = 0
    best_task: int = 0
    best_value: float | None = None
    without_better: int = 0
    without_quorum: int = 0
    finished: str | None = None
    start: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)


class Coordinator:
    """Runs rounds one after the other: ``request``, ``open_round``, answers in any order, ``close``.

    Raises StorageError or LayoutMismatch when the folder holds the state of another run.
    """

    def __init__(
        self,
        terms: FederationTerms,
        *,
        layout: AdapterLayout,
        aggregation: Aggregation,
        server_optimizer: ServerOptimizer,
        start: AdapterVector,
        evaluate: Evaluate,
        folder: RunFolder,
        about: Mapping[str, Any],
        observer: Observer | None = None,
        masking: MaskedRounds | None = None,
        trail: Trail | None = None,
    ) -> None:
        layout.require(start)
        self.terms, self.layout, self.aggregation, self.folder = terms, layout, aggregation, folder
        self.observer, self.masking, self.trail = observer or Observer(), masking, trail
        self._trained = layout.only(aggregation.trains)
        self._optimizer, self._evaluate, self._about = server_optimizer, evaluate, dict(about)
        resumed = self._resumed()
        self.state = resumed or _State(adapter=start, best=start)
        if resumed is None:
            self.state.start = asdict(self._evaluation(0))

    @property
    def next_round(self) -> int:
        return self.state.round + 1

    @property
    def finished(self) -> bool:
        return self.state.finished is not None or self.state.round >= self.terms.rounds

    def request(self) -> RoundRequest:
        """What the whole cohort is asked in the next round.

        Raises what MaskedRounds.context raises, where updates are masked.
        """
        terms, number = self.terms, self.next_round
        adapter = as_sent(self.state.adapter, terms.encoding)
        task, index = task_of_round(number, terms.tasks, terms.rounds_per_task)
        digest, masking, keys = vector_digest(adapter), "", b""
        if self.masking is not None:
            context, keys = self.masking.context(number, adapter_digest=digest, size=self._trained.size)
            masking = context.to_bytes().decode()
        plan = RoundPlan(
            run=terms.run,
            round=number,
            rounds=terms.rounds,
            task=task,
            task_index=index,
            cohort=terms.cohort,
            layout_digest=self.layout.digest,
            adapter_digest=digest,
            roles=self.aggregation.trains,
            local_steps=terms.local_steps,
            first_step=(number - 1) * terms.local_steps,
            total_steps=terms.rounds * terms.local_steps,
            terms_digest=terms.terms_digest,
            encoding=terms.encoding,
            masking=masking,
        )
        return RoundRequest(plan, adapter, keys, "" if self.trail is None else self.trail.before_round())

    def open_round(self, request: RoundRequest) -> OpenRound:
        self.observer.round_started(request.plan.round, self.terms.rounds, request.plan.cohort)
        plan, terms = request.plan, self.terms
        if self.masking is not None:
            masked = self.masking.open(RoundContext.from_bytes(plan.masking.encode()))
            return OpenRound(plan, masked, self.observer, masked)
        collector = PlainSum(plan, self._trained, weights=terms.weights, max_norm=terms.max_update_norm)
        return OpenRound(plan, collector, self.observer)

    def close(self, opened: OpenRound, **measured: Any) -> dict[str, Any]:
        """Step with what was accepted, evaluate, commit; the round's line of metrics.jsonl.

        ``measured``: figures of whoever moved the messages, kept with the record.

        Raises
        ------
        QuorumNotReached
            After MAX_ROUNDS_WITHOUT_QUORUM rounds in a row in which too few answered with an update.
        """
        state, plan = self.state, opened.plan
        mean = opened.collector.mean() if len(opened.accepted) >= self.terms.min_institutions else None
        quorum = mean is not None
        norm = None if mean is None else self._step(mean, plan.round)
        state.round, state.without_quorum = plan.round, 0 if quorum else state.without_quorum + 1
        record: dict[str, Any] = {
            "round": plan.round,
            "task": plan.task,
            "updates": sorted(opened.accepted),
            "refused": dict(sorted(opened.refused.items())),
            "missing": sorted(set(plan.cohort) - opened.accepted - opened.refused.keys()),
            "quorum": quorum,
            "update_norm": norm,
            "bytes_up": opened.bytes_up,
            **opened.collector.as_record(),
            **self._evaluated(plan, moved=quorum, last=opened.nobody_can_pay),
            **measured,
        }
        self._decide_end(opened)
        record["seconds"] = time.perf_counter() - opened.begun
        state.records.append(record)
        adapter = vector_digest(state.adapter)
        self._commit(None if self.trail is None else self.trail.entry_of(opened, record, adapter))
        self.observer.round_finished(record)
        if state.without_quorum >= MAX_ROUNDS_WITHOUT_QUORUM and state.finished is None:
            raise QuorumNotReached(
                f"expected updates of at least {self.terms.min_institutions} institutions, found fewer in "
                f"{state.without_quorum} rounds in a row ({_sat_out(record)}): see the institutions' logs, then resume"
            )
        return record

    def end(self) -> None:
        """Close the audit log, if one is kept, over the folder as it is: nothing of the run is written afterwards."""
        if self.trail is not None:
            self.trail.end(best_round=self.state.best_round)

    def _step(self, mean: AdapterVector, number: int) -> float:
        """Move the adapter by the mean update of round ``number``; its norm."""
        roles, state, rates = self.aggregation.trains, self.state, self.terms.learning_rates
        part = self._optimizer.step(self.layout.part(state.adapter, roles), mean, rates[number - 1] if rates else 1.0)
        finished = self.aggregation.finish(self.layout, self.layout.with_part(state.adapter, roles, part))
        if not np.isfinite(finished.vector).all():
            raise FederationError(
                "expected a finite adapter after the server's step, found NaN or infinity: start a new run with a "
                "lower aggregation.server_learning_rate or aggregation.max_update_norm"
            )
        self._optimizer.transport(self._trained, finished.transports)
        state.adapter = finished.vector
        return l2_norm(mean)

    def _evaluated(self, plan: RoundPlan, *, moved: bool, last: bool) -> dict[str, Any]:
        """``moved``: by this round's updates; an adapter that was not is no sign that training has stopped helping."""
        terms, state = self.terms, self.state
        last_of_task = task_of_round(plan.round + 1, terms.tasks, terms.rounds_per_task)[1] != plan.task_index
        if plan.round % terms.evaluate_every and plan.round != terms.rounds and not (last_of_task or last):
            return {"evaluation": None, "tasks": None, "reference": None, "best": False}
        found = self._evaluation(plan.task_index)
        value = found.current[terms.metric]
        incomparable = state.best_value is None or state.best_task != plan.task_index
        better = incomparable or is_better(terms.metric, value, state.best_value or 0.0)
        if better:
            state.best, state.best_round, state.best_value, state.without_better = state.adapter, plan.round, value, 0
            state.best_task = plan.task_index
        elif moved:
            state.without_better += 1
        self.observer.evaluated(plan.round, found.current)
        return {**found.as_record(), "best": better}

    def _evaluation(self, task_index: int) -> Evaluation:
        found = Evaluation(**in_numbers(asdict(self._evaluate(self.state.adapter, task_index))))
        if self.state.round == 0:
            self.observer.evaluated(0, found.current)
        return found

    def _decide_end(self, opened: OpenRound) -> None:
        """Early, by patience in the last task, or because nobody has budget left."""
        terms, state = self.terms, self.state
        last_task = state.best_task >= len(terms.tasks) - 1  # of the newest evaluation: what it says of a task
        if terms.patience is not None and last_task and state.without_better >= terms.patience:
            state.finished = "patience"
        if opened.nobody_can_pay:
            state.finished = "budgets-spent"

    def _commit(self, entry: Mapping[str, Any] | None) -> None:
        state = self.state
        tensors: dict[str, npt.NDArray[Any]] = {"adapter": state.adapter, "best": state.best}
        tensors |= {f"server/{name}": value for name, value in self._optimizer.state().items()}
        kept = {k: v for k, v in vars(state).items() if k not in ("adapter", "best")}
        manifest = {**self._about, **kept, "run": self.terms.run, "layout": self.layout.as_json()}
        if entry is not None:
            manifest["audit"] = entry
        self.folder.commit(state.round, tensors=tensors, manifest=manifest)
        if self.trail is not None and entry is not None:
            self.trail.commit(entry, self.folder.checkpoint_digest(state.round))
        self._write_best()

    def _write_best(self) -> None:
        state = self.state
        about = {**self._about, "run": self.terms.run, "round": state.best_round, "layout": self.layout.as_json()}
        self.folder.write_best(tensors={"adapter": state.best}, manifest=about)

    def _resumed(self) -> _State | None:
        kept = self.folder.latest()
        if kept is None:
            if self.trail is not None:
                self.trail.resume(0, None, "")
            return None
        tensors, manifest = kept
        if manifest["run"] != self.terms.run:
            raise FederationError(f"expected the state of run {self.terms.run}, found another's: choose its own folder")
        if manifest["layout"] != self.layout.as_json():
            raise LayoutMismatch(
                f"expected the state of an adapter of layout {self.layout.digest[:12]}, found another's: put the "
                "base model and the [adapter] section back that the run began with"
            )
        self._optimizer.load_state(
            {k.removeprefix("server/"): v for k, v in tensors.items() if k.startswith("server/")}
        )
        fields = {k: manifest[k] for k in _State.__dataclass_fields__ if k not in ("adapter", "best")}
        fields |= {"start": in_numbers(fields["start"]), "records": [in_numbers(one) for one in fields["records"]]}
        if fields["best_round"] and fields["best_value"] is None:
            fields["best_value"] = math.nan
        state = _State(adapter=tensors["adapter"], best=tensors["best"], **fields)
        self.state = state
        if self.trail is not None:
            self.trail.resume(state.round, manifest.get("audit"), self.folder.checkpoint_digest(state.round))
        self._write_best()
        return state


def _sat_out(record: Mapping[str, Any]) -> str:
    words: Sequence[str] = [f"{name}: {reason}" for name, reason in record["refused"].items()]
    return ", ".join([*words, *(f"{name}: missing" for name in record["missing"])]) or "nobody was asked"
