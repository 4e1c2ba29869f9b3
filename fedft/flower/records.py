"""Ours as Flower's RecordDict and back. What crosses is bytes and canonical JSON of our own (docs/decisions/0001)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fedft.errors import ConfigError, UpdateError
from fedft.rounds.plan import RoundPlan, RoundRequest
from fedft.update.release import REASONS, Refusal

RECORD = "fedft"


def request_content(request: RoundRequest) -> RecordDict:
    adapter = np.ascontiguousarray(request.adapter, dtype="<f4").tobytes()
    return _content({"plan": request.plan.as_json(), "adapter": adapter})


def read_request(content: RecordDict) -> RoundRequest:
    """Raises ConfigError for anything that request_content does not make."""
    fields = _fields(content)
    if fields is None or fields.keys() != {"plan", "adapter"}:
        raise ConfigError("expected a plan and an adapter, found other fields: use the same version of fedft")
    plan, adapter = fields["plan"], fields["adapter"]
    if not isinstance(plan, str) or not isinstance(adapter, bytes) or len(adapter) % 4:
        raise ConfigError("expected a plan in JSON and float32 values, found others: use the same version of fedft")
    return RoundRequest(RoundPlan.from_json(plan), np.frombuffer(adapter, dtype="<f4").astype(np.float32))


def answer_content(answer: bytes | Refusal) -> RecordDict:
    if isinstance(answer, bytes):
        return _content({"update": answer})
    return _content({"refusal": answer.reason, "run": answer.run, "round": answer.round, "from": answer.institution})


def read_answer(content: RecordDict) -> bytes | Refusal:
    """Raises UpdateError for anything that answer_content does not make; the update's bytes are not opened here."""
    fields = _fields(content)
    if fields is not None and fields.keys() == {"update"} and isinstance(fields["update"], bytes):
        return fields["update"]
    if fields is not None and fields.keys() == {"refusal", "run", "round", "from"}:
        reason = fields["refusal"]
        if isinstance(reason, str) and reason in REASONS:
            return Refusal(institution=fields["from"], run=fields["run"], round=fields["round"], reason=reason)
    raise UpdateError("expected an update or a refusal, found another answer: use the same version of fedft")


def name_content(name: str) -> RecordDict:
    return _content({"institution": name})


def read_name(content: RecordDict) -> str | None:
    fields = _fields(content)
    name = None if fields is None else fields.get("institution")
    return name if isinstance(name, str) else None


def _content(fields: dict[str, Any]) -> RecordDict:
    return RecordDict({RECORD: ConfigRecord(fields)})


def _fields(content: RecordDict) -> Mapping[str, Any] | None:
    """The one record of ours; None when there are others, or one of another kind."""
    if list(content.keys()) != [RECORD] or not isinstance(content[RECORD], ConfigRecord):
        return None
    return dict(content[RECORD])
