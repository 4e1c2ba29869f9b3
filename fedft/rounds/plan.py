"""What the coordinator asks for in a round. Its digest names the round: an institution trains a plan once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

import numpy as np

from fedft.errors import ConfigError, StaleUpdate, UpdateError
from fedft.types import ALL_ROLES, AdapterVector, Digest, Role
from fedft.update.envelope import MAX_ROUND, require_identity
from fedft.update.wire import ENCODINGS, Encoding

PLAN_LABEL = "fedft/v1/round-plan"
DEFAULT_TASK = "default"
"""The task's name where a federation names none."""


def terms_digest(terms: str) -> Digest:
    """SHA-256 of the text of a run's terms, as a plan names it."""
    return Digest(hashlib.sha256(terms.encode()).hexdigest())


NO_TERMS = terms_digest("")
"""Where both sides have the configuration already: a simulation."""


@dataclass(frozen=True)
class RoundPlan:
    """One round, the same for its whole cohort.

    task_index counts the federation's tasks from 0. adapter_digest is that of the adapter sent along, roles what is
    trained and sent back. first_step is the global number, from 0, of the round's first local step out of total_steps:
    it drives the learning-rate schedule. encoding: how adapter and update travel. terms_digest is that of the text of
    the terms sent along (rounds/messages.py). masking: text of the context in which updates are masked (docs/SPEC.md,
    "Context of a round"); "" where the coordinator sees each update. Nothing here depends on time, so that a resumed
    run asks for the same plan.
    """

    run: str
    round: int
    rounds: int
    task: str
    task_index: int
    cohort: tuple[str, ...]
    layout_digest: Digest
    adapter_digest: Digest
    roles: tuple[Role, ...]
    local_steps: int
    first_step: int
    total_steps: int
    terms_digest: Digest = NO_TERMS
    encoding: Encoding = "float32"
    masking: str = ""

    def as_json(self) -> str:
        """Canonical: sorted keys, no spaces."""
        return json.dumps({"label": PLAN_LABEL, **asdict(self)}, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> Digest:
        return Digest(hashlib.sha256(self.as_json().encode()).hexdigest())

    @classmethod
    def from_json(cls, text: str) -> RoundPlan:
        """Inverse of as_json. Raises ConfigError for any other text."""
        try:
            body = json.loads(text)
            plan = cls(**{key: _as_field(key, value) for key, value in body.items() if key != "label"})
        except (TypeError, ValueError, AttributeError, RecursionError):
            raise ConfigError(f"expected a plan of {PLAN_LABEL}, found something else: {_UPDATE}") from None
        if plan.as_json() != text or not (_in_range(plan) and _named(plan)):
            raise ConfigError(f"expected a canonical plan of {PLAN_LABEL} with values in range: {_UPDATE}")
        return plan


@dataclass(frozen=True, eq=False)
class RoundRequest:
    """A plan and the adapter it starts from, float32, shape (d,) of the full layout.

    keys: the list of the run's keys, where updates are masked; the plan's context names its digest. head: the signed
    head of the coordinator's audit log before this round.
    """

    plan: RoundPlan
    adapter: AdapterVector
    keys: bytes = b""
    head: str = ""


def task_of_round(number: int, tasks: Sequence[str], rounds_per_task: Sequence[int]) -> tuple[str, int]:
    """Name and index of the task that round ``number`` (from 1) trains; the last one goes on past its own rounds."""
    if not tasks:
        return DEFAULT_TASK, 0
    ends = np.cumsum(rounds_per_task)
    index = min(int(np.searchsorted(ends, number)), len(tasks) - 1)
    return tasks[index], index


_UPDATE = "use the same version of fedft on both sides"
_TYPES = get_type_hints(RoundPlan)
_NAMES = frozenset(field.name for field in fields(RoundPlan))


def _as_field(key: str, value: Any) -> Any:
    if key not in _NAMES:
        raise ValueError(key)
    if key in ("cohort", "roles"):
        if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise ValueError(key)
        return tuple(value)
    if type(value) is not (int if _TYPES[key] is int else str):
        raise ValueError(key)
    return value


def _in_range(plan: RoundPlan) -> bool:
    steps_fit = (
        plan.first_step >= 0 and plan.local_steps >= 1 and plan.first_step + plan.local_steps <= plan.total_steps
    )
    roles_known = bool(plan.roles) and set(plan.roles) <= set(ALL_ROLES)
    if plan.encoding not in ENCODINGS:
        return False
    return 1 <= plan.round <= plan.rounds <= MAX_ROUND and plan.task_index >= 0 and steps_fit and roles_known


def _named(plan: RoundPlan) -> bool:
    """Whether the names of run, cohort and task can stand in an answer and in a log: no free text."""
    try:
        for name in (*plan.cohort, plan.task):
            require_identity(run=plan.run, round=plan.round, institution=name)
    except UpdateError:
        return False
    return bool(plan.cohort)


def require_sent_adapter(request: RoundRequest) -> None:
    """Raise StaleUpdate unless the adapter is the one that the plan names."""
    from fedft.model.vector import vector_digest

    found = vector_digest(request.adapter)
    if found != request.plan.adapter_digest:
        raise StaleUpdate(
            f"expected adapter {request.plan.adapter_digest[:12]} with the plan, found {found[:12]}: send both again"
        )
