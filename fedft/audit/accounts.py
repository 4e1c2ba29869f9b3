"""What one data set has spent, by several accountants, over all runs of its ledger."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fedft.audit.findings import Finding, claim
from fedft.audit.spending import Charge, Spending, events_of, is_free, is_unprotected
from fedft.errors import PrivacyError
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.distributed import local_epsilon
from fedft.privacy.events import DistributedStep, PrivacyEvent
from fedft.privacy.opinions import coarse_epsilon, prv_bounds, rdp_epsilon

_Value = TypeVar("_Value")

TOLERANCE = 1e-6
"""Epsilons closer than this are the same: the accountant gives identical events identical floats."""

PLD_ERROR = 0.004
"""By how much the discretisation may raise epsilon in a thousand steps; privacy/accountant.py."""


@dataclass(frozen=True)
class RunOnData:
    """A run's share: in which rounds it charged, how many events, when, and under which cap at the end."""

    run: str
    rounds: int
    events: int
    unprotected: int
    first_utc: str
    last_utc: str
    cap: float | None


@dataclass(frozen=True)
class Account:
    """A data set of an institution. epsilon: by PLD, infinite after a release without a guarantee; None: delta unknown.

    prv: bounds on both sides; rdp: outer bound; coarse: PLD on a wider grid, where there is no PRV. All for adding or
    removing one unit; units: its columns, "" for a row each; sizes: how many of them. least_honest, without_masks:
    where epsilon rests on secure aggregation, on how many honest institutions in a sum, and what it would be without.
    """

    institution: str
    dataset: str
    units: tuple[str, ...]
    sizes: tuple[int, ...]
    fingerprints: tuple[str, ...]
    runs: tuple[RunOnData, ...]
    deltas: tuple[float, ...]
    delta: float | None
    epsilon: float | None
    prv: tuple[float, float] | None
    prv_problem: str | None
    rdp: float | None
    coarse: float | None
    cap: float | None
    least_honest: int | None
    without_masks: float | None
    free_releases: int


def accounts_of(spending: Spending, delta: float | None) -> list[Account]:
    """One for each data set that was charged. delta: None for the newest that the ledger states."""
    return [_account(spending, dataset, spending.on(dataset), delta) for dataset in spending.datasets]


def disagreements(account: Account, steps: int) -> list[Finding]:
    """Where accountants differ by more than their discretisation may."""
    found, where = account.epsilon, f"{account.institution}, data set {account.dataset}"
    if found is None or math.isinf(found):
        return []
    error = PLD_ERROR * max(1.0, steps / 1000) + 0.001 * found
    bounds = {
        "PRV": account.prv and (account.prv[0], account.prv[1] + error),
        "RDP": account.rdp is not None and (0.0, account.rdp + error),
        "PLD on a wider grid": account.coarse is not None and (account.coarse - 4 * error, account.coarse + error),
    }
    return [
        claim("accountants-disagree", where,
            f"expected epsilon between {bound[0]:.6g} and {bound[1]:.6g} by {name}, found {found:.6g} by PLD",
        )
        for name, bound in bounds.items()
        if bound and not bound[0] <= found <= bound[1]
    ]  # fmt: skip


def valid_delta(value: float | None) -> float | None:
    return value if value is not None and 0 < value < 1 else None


def steps_of(charges: Sequence[Charge]) -> int:
    return sum(getattr(event, "steps", 1) for event in events_of(charges))


def _account(spending: Spending, dataset: str, charges: Sequence[Charge], delta: float | None) -> Account:
    events = events_of(charges)
    stated = [known for charge in charges if (known := valid_delta(charge.value("delta"))) is not None]
    delta = delta if delta is not None else stated[-1] if stated else None
    unprotected = any(map(is_unprotected, events))
    epsilon = math.inf if unprotected else None if delta is None else epsilon_of(events, delta)
    finite = delta is not None and epsilon is not None and math.isfinite(epsilon)
    prv, problem = _prv(events, delta) if finite and delta is not None else (None, None)
    distributed = [event for event in events if isinstance(event, DistributedStep)]
    caps = [known for charge in charges if (known := charge.value("cap")) is not None]
    return Account(
        institution=spending.name,
        dataset=dataset,
        units=_distinct(text for charge in charges if (text := charge.text("unit")) is not None),
        sizes=_distinct(int(size) for charge in charges if (size := charge.value("units")) is not None),
        fingerprints=_distinct(text for charge in charges if (text := charge.text("fingerprint")) is not None),
        runs=tuple(_run(run, [c for c in charges if c.run == run]) for run in _distinct(c.run for c in charges)),
        deltas=_distinct(stated),
        delta=delta,
        epsilon=epsilon,
        prv=prv,
        prv_problem=problem,
        rdp=rdp_epsilon(events, delta) if finite and delta is not None else None,
        coarse=coarse_epsilon(events, delta) if finite and delta is not None and problem else None,
        cap=caps[-1] if caps else None,
        least_honest=min((event.least_honest for event in distributed), default=None),
        without_masks=local_epsilon(events, delta) if distributed and delta is not None else None,
        free_releases=sum(len(charge.entries) for charge in charges if is_free(charge.event)),
    )


def _prv(events: Sequence[PrivacyEvent], delta: float) -> tuple[tuple[float, float] | None, str | None]:
    try:
        return prv_bounds(events, delta), None
    except PrivacyError as error:
        return None, str(error)


def _run(run: str, charges: Sequence[Charge]) -> RunOnData:
    times = sorted(time for charge in charges for time in charge.times)
    paid = [charge for charge in charges if not is_free(charge.event)]
    caps = [known for charge in paid if (known := charge.value("cap")) is not None]
    return RunOnData(
        run=run,
        rounds=len({number for charge in charges for number in charge.rounds}),
        events=sum(len(charge.entries) for charge in paid),
        unprotected=sum(len(charge.entries) for charge in paid if is_unprotected(charge.event)),
        first_utc=times[0],
        last_utc=times[-1],
        cap=caps[-1] if caps else None,
    )


def _distinct(values: Iterable[_Value]) -> tuple[_Value, ...]:
    return tuple(dict.fromkeys(values))
