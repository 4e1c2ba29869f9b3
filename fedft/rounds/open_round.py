"""One round's answers, as they come: who sent an update that counts, who sat out and why."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from fedft.aggregation.base import RunningSum
from fedft.errors import FedftError, UpdateError
from fedft.model.vector import AdapterLayout
from fedft.rounds.masked_sum import MaskedSum
from fedft.rounds.plan import RoundPlan
from fedft.rounds.progress import Observer
from fedft.types import AdapterVector
from fedft.update.release import Refusal
from fedft.update.screening import screen

log = logging.getLogger(__name__)

_NO_MORE = {"budget-exhausted", "withdrawn"}
"""Words after which no update of this run will come."""


class Collector(Protocol):
    """Adds updates up, one in memory at a time."""

    def add(self, sender: str, update: bytes, *, seen: Collection[str]) -> None:
        """Check an update of ``sender``, as the transport names it, and add it. An add that raises adds nothing."""

    def mean(self) -> AdapterVector | None:
        """The weighted mean of what was added, float32, shape (d,); None when it cannot be had."""

    def as_record(self) -> Mapping[str, Any]:
        """What the round's record says beyond every round's fields."""


class PlainSum:
    """Updates that the coordinator sees one by one."""

    def __init__(
        self, plan: RoundPlan, layout: AdapterLayout, *, weights: Mapping[str, float], max_norm: float
    ) -> None:
        self._plan, self._layout, self._weights, self._max_norm = plan, layout, weights, max_norm
        self._total = RunningSum(layout.size)

    def add(self, sender: str, update: bytes, *, seen: Collection[str]) -> None:
        """Raises what update/screening.py and RunningSum.add raise."""
        plan = self._plan
        envelope = screen(
            update,
            run=plan.run,
            round=plan.round,
            plan_digest=plan.digest,
            layout=self._layout,
            encoding=plan.encoding,
            max_norm=self._max_norm,
            cohort=plan.cohort,
            seen=seen,
            sender=sender,
        )
        self._total.add(envelope.delta, self._weights.get(sender, 1.0))

    def mean(self) -> AdapterVector | None:
        return self._total.mean() if self._total.count else None

    def as_record(self) -> Mapping[str, Any]:
        return {}


class OpenRound:
    """Collects one round's answers. masked: the collector, where updates are masked and have to be opened together.

    digests, notes: for the audit log, of each accepted update, and what its sender signed beside an answer.

    Guarantee: an answer that is not accepted changes nothing but the list of who sat out, and never ends the round.
    """

    def __init__(
        self, plan: RoundPlan, collector: Collector, observer: Observer, masked: MaskedSum | None = None
    ) -> None:
        self.plan, self.collector, self.masked, self.begun = plan, collector, masked, time.perf_counter()
        self._observer = observer
        self.accepted: set[str] = set()
        self.refused: dict[str, str] = {}
        self.bytes_up = 0
        self.digests: dict[str, dict[str, int | str]] = {}
        self.notes: dict[str, str] = {}

    @property
    def nobody_can_pay(self) -> bool:
        """The whole cohort but those who left has no budget left; one that did not answer may have some."""
        words = set(self.refused.values())
        return self.refused.keys() == set(self.plan.cohort) and {"budget-exhausted"} <= words <= _NO_MORE

    def receive(self, sender: str, update: bytes) -> None:
        """Screen and add an update of ``sender``, as the transport names it."""
        self.bytes_up += len(update)
        try:
            self.collector.add(sender, update, seen=self.accepted)
        except FedftError as error:
            log.warning("round %d: the update of %s is not accepted: %s", self.plan.round, sender, error)
            self._sit_out(sender, error.code)
            return
        self.accepted.add(sender)
        self.digests[sender] = _digests(update, self.plan.masking)
        self.refused.pop(sender, None)
        self._observer.answered(sender, "update")

    def reveal(self, masked: MaskedSum, holder: str, shares: bytes | Refusal) -> None:
        """Take the shares of ``holder``; what is not accepted is as if it had not come."""
        try:
            if isinstance(shares, Refusal):
                raise UpdateError(f"expected shares, found a refusal, {shares.reason}: see the institution's log")
            masked.answer(holder, shares)
        except FedftError as error:
            log.warning("round %d: %s reveals no shares: %s", self.plan.round, holder, error)

    def refuse(self, sender: str, refusal: Refusal) -> None:
        """Note a refusal; one in another's name, or of another round, is not believed."""
        if (refusal.institution, refusal.run, refusal.round) != (sender, self.plan.run, self.plan.round):
            self._sit_out(sender, UpdateError.code)
        else:
            self._sit_out(sender, refusal.reason)

    def malformed(self, sender: str, code: str = UpdateError.code) -> None:
        """An answer that is neither an update nor a refusal, or not signed by its sender; ``code``: the error's."""
        self._sit_out(sender, code)

    def missing(self, sender: str) -> None:
        """No answer came, or the transport failed."""
        if sender not in self.accepted:
            self._observer.answered(sender, "missing")

    def _sit_out(self, sender: str, reason: str) -> None:
        if sender in self.plan.cohort and sender not in self.accepted:
            self.refused[sender] = reason
            self._observer.answered(sender, reason)


def _digests(update: bytes, masking: str) -> dict[str, int | str]:
    """Length and digest of an update as it came, and the digest of what its sender's ledger holds of it.

    Where it is masked a ledger holds the context with it (secagg/institution.py, ``framed``).
    """
    sent = hashlib.sha256(update).hexdigest()
    if not masking:
        return {"bytes": len(update), "sha256": sent, "released": sent}
    context = masking.encode()
    released = hashlib.sha256(len(context).to_bytes(4, "big") + context)
    released.update(update)
    return {"bytes": len(update), "sha256": sent, "released": released.hexdigest()}
