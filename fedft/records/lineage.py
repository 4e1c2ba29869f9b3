"""A run that goes on from a state of another, without some of its institutions: what it says of that one.

Guarantee: first_sums and Parent name rounds whose sum has an institution's update, and no others: a round counts when
it had a quorum, since without one nothing moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedft.errors import StorageError

PARENT = "parent"
"""The key of config.json under which it stands."""


@dataclass(frozen=True)
class Parent:
    """The run that another goes on from.

    round: of the state that it begins with; 0: the start that its configuration gives. without: who takes no part, and
    has none in that state. contributed: the rounds up to there whose sum has an update, by institution. checkpoint:
    SHA-256 of the state's manifest, "" for the start. head: the signed head of the parent's audit log at that time, ""
    where it kept none.
    """

    run: str
    round: int
    without: tuple[str, ...]
    contributed: Mapping[str, tuple[int, ...]]
    checkpoint: str
    head: str

    def as_json(self) -> dict[str, Any]:
        """Also the fields of the audit log's entry."""
        contributed = {name: list(rounds) for name, rounds in self.contributed.items()}
        return {**vars(self), "without": list(self.without), "contributed": contributed}

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Parent | None:
        """As config.json has it; None of a run that begins anew. Raises StorageError for anything else."""
        if PARENT not in config:
            return None
        try:
            body = dict(config[PARENT])
            body["without"] = tuple(body["without"])
            body["contributed"] = {name: tuple(rounds) for name, rounds in body["contributed"].items()}
            return cls(**body)
        except (TypeError, ValueError, KeyError, AttributeError):
            raise StorageError(
                'expected "parent" in config.json as it was written, found another: restore it'
            ) from None


def is_summed(record: Mapping[str, Any]) -> bool:
    """Whether the round of this record, or of this entry of the audit log, moved the adapter."""
    return record.get("quorum") is True


def first_sums(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """By institution, the first round of these records, in their order, whose sum has its update."""
    found: dict[str, int] = {}
    for record in filter(is_summed, records):
        for name in record["updates"]:
            found.setdefault(name, record["round"])
    return found
