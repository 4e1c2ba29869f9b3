"""One ledger as an auditor counts it: intents that differ in their round alone, together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedft.audit.folder import number
from fedft.ledger.entries import Release, as_intent, as_release
from fedft.ledger.store import Intent, Ledger
from fedft.privacy.events import (
    DataIndependentRelease,
    DistributedStep,
    DpSgdRound,
    GaussianRelease,
    PrivacyEvent,
    UnprotectedRelease,
)

UPDATE, SHARES = "update", "secagg-shares"
"""Purposes of a round's update, and of shares of masks, in which no row has a part."""

LOCAL_ACCURACY = "local-accuracy"
"""Of a noised accuracy that an institution's people released themselves; rounds/local_accuracy.py."""

_SAME = ("institution", "fingerprint", "units", "unit", "batch_size", "clip_norm", "delta", "cap", "allowed_by")
"""Evidence that tells groups apart; the rest differs in every round."""

SELF_TESTS = ("self_test_gradients", "self_test_independence", "self_test_sensitivity", "self_test_noise")
"""Evidence of which a group keeps the largest."""


@dataclass(frozen=True)
class Charge:
    """Intents of one run with the same purpose, data set, event and evidence. Entries: their numbers in the ledger.

    released: of which rounds something left.
    """

    run: str
    purpose: str
    dataset: str
    event: PrivacyEvent
    evidence: dict[str, str | int | float]
    rounds: list[int] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    released: set[int] = field(default_factory=set)
    times: list[str] = field(default_factory=list)

    def value(self, name: str) -> float | None:
        """A number of the evidence, or None."""
        return number(self.evidence.get(name))

    def text(self, name: str) -> str | None:
        found = self.evidence.get(name)
        return found if isinstance(found, str) else None

    @property
    def where(self) -> str:
        more = "" if len(self.entries) == 1 else f" and {len(self.entries) - 1} more"
        return f"entry {self.entries[0]}{more}"

    def events(self, up_to: int) -> Iterator[PrivacyEvent]:
        """Those of entries up to that number, as few as they can be."""
        times = sum(entry <= up_to for entry in self.entries)
        if isinstance(self.event, DpSgdRound | DistributedStep):
            yield from [replace(self.event, steps=times * self.event.steps)] if times else ()
        elif isinstance(self.event, GaussianRelease):
            yield from [self.event] * times
        else:
            yield from [self.event] * min(times, 1)


@dataclass(frozen=True)
class Spending:
    """Everything that a ledger charged, what was charged last at the end. name: who it is taken for.

    releases: what left, in order; receipts: how many heads of coordinators it keeps.
    """

    name: str
    path: Path
    entries: int
    head: str
    charges: tuple[Charge, ...]
    refusals: dict[tuple[str, str], int]
    releases: tuple[Release, ...]
    receipts: int
    first_utc: str
    last_utc: str

    def of_run(self, run: str) -> tuple[Charge, ...]:
        return tuple(charge for charge in self.charges if charge.run == run)

    def on(self, dataset: str) -> tuple[Charge, ...]:
        return tuple(charge for charge in self.charges if charge.dataset == dataset)

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(sorted({charge.dataset for charge in self.charges}))


def read_spending(name: str, path: Path) -> Spending:
    """Verify the ledger at ``path`` and count its intents. Raises as Ledger.open."""
    with Ledger.open(path, read_only=True) as ledger:
        entries, head = ledger.entries(), ledger.head.hash
    released = {entry.fields["intent"] for entry in entries if entry.kind == "release"}
    groups: dict[tuple[Any, ...], Charge] = {}
    refusals: dict[tuple[str, str], int] = {}
    for entry in entries:
        if entry.kind == "intent":
            _count(groups, as_intent(entry), released)
        elif entry.kind == "refusal":
            key = entry.fields["run"], entry.fields["reason"]
            refusals[key] = refusals.get(key, 0) + 1
    charges = sorted(groups.values(), key=lambda charge: charge.entries[-1])
    return Spending(
        name=name,
        path=path,
        entries=len(entries),
        head=head,
        charges=tuple(charges),
        refusals=refusals,
        releases=tuple(as_release(entry) for entry in entries if entry.kind == "release"),
        receipts=sum(entry.kind == "receipt" for entry in entries),
        first_utc=entries[0].time_utc,
        last_utc=entries[-1].time_utc,
    )


def events_of(charges: Sequence[Charge], up_to: int = 2**53) -> list[PrivacyEvent]:
    """What the accountant composes."""
    return [event for charge in charges for event in charge.events(up_to)]


def is_free(event: PrivacyEvent) -> bool:
    return isinstance(event, DataIndependentRelease)


def is_unprotected(event: PrivacyEvent) -> bool:
    return isinstance(event, UnprotectedRelease)


def _count(groups: dict[tuple[Any, ...], Charge], intent: Intent, released: set[int]) -> None:
    known = {name: intent.evidence[name] for name in _SAME if name in intent.evidence}
    key = intent.run, intent.purpose, intent.dataset, intent.event, tuple(known.items())
    charge = groups.setdefault(key, Charge(intent.run, intent.purpose, intent.dataset, intent.event, known))
    for name in SELF_TESTS:
        found = number(intent.evidence.get(name))
        if found is not None:
            charge.evidence[name] = max(found, charge.value(name) or 0.0)
    charge.rounds.append(intent.round)
    charge.entries.append(intent.sequence)
    charge.times.append(intent.time_utc)
    if intent.sequence in released:
        charge.released.add(intent.round)
