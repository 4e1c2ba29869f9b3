"""What must hold of a ledger's charges: by themselves, and beside what a run's configuration asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from fedft.audit.accounts import valid_delta
from fedft.audit.asked import Asked, noise_problem, shared_noise_problem
from fedft.audit.findings import Finding, claim, note, rounds_text
from fedft.audit.spending import LOCAL_ACCURACY, SHARES, UPDATE, Charge, Spending, is_free, is_unprotected
from fedft.privacy.events import DistributedStep, DpSgdRound, GaussianRelease, UnprotectedRelease

_KINDS = {"dp-sgd": DpSgdRound, "distributed": DistributedStep, "off": UnprotectedRelease}
CLOSE = 1e-12
"""Relative: the same float64 arithmetic gives the same number; another order of it may not."""


def charge_findings(spending: Spending) -> Iterator[Finding]:
    """Of every charge, whatever the run."""
    for charge in spending.charges:
        where = f"{spending.name}, {charge.where}"
        yield from _alone(charge, where)
        if is_unprotected(charge.event):
            yield _unprotected(charge, where)
        if isinstance(charge.event, DistributedStep):
            yield note(
                "distributed",
                where,
                f"{rounds_text(charge.rounds)} of {charge.run}: the guarantee holds only if every sum that the "
                f"coordinator learns has {charge.event.least_honest} honest institutions or more in it",
            )
        kept = len(charge.entries) - len(charge.released)
        if kept > 0:
            missing = rounds_text(set(charge.rounds) - charge.released)
            yield note(
                "spend-without-release",
                where,
                f'{missing} of {charge.run}, purpose "{charge.purpose}": charged, and nothing left; it counts as spent',
            )


def run_findings(spending: Spending, asked: Asked) -> Iterator[Finding]:
    """Of what the run ``asked`` for charged."""
    charges = spending.of_run(asked.run)
    for charge in charges:
        where = f"{spending.name}, {charge.where}"
        yield from _belonging(charge, where, spending.name, asked)
        yield from _as_asked(charge, where, asked)
    updates = [charge for charge in charges if charge.purpose == UPDATE]
    yield from _noise(spending.name, updates, asked)
    prints = {charge.text("fingerprint") for charge in updates if len(asked.tasks) < 2} - {None}
    if len(prints) > 1:
        yield note(
            "data-changed",
            spending.name,
            f"{len(prints)} fingerprints in one run: rows came or went; the budget goes by the data set's name",
        )


def _alone(charge: Charge, where: str) -> Iterator[Finding]:
    event, units, batch = charge.event, charge.value("units"), charge.value("batch_size")
    if is_free(event) and charge.purpose != SHARES:
        yield claim(
            "free-release",
            where,
            f'expected purpose "{SHARES}" where no row had a part, found "{charge.purpose}" for {_rounds(charge)}: '
            "what rows have a part in is never free",
        )
    if isinstance(event, DpSgdRound) and units is not None and batch is not None:
        yield from _rate(event, batch, units, where, _rounds(charge))
    if "delta" in charge.evidence:
        delta = valid_delta(charge.value("delta"))
        if delta is None:
            yield claim(
                "delta", where, f"expected a delta between 0 and 1 in the evidence of {_rounds(charge)}, found another"
            )
        elif units is not None and delta * units >= 1:
            yield claim(
                "delta-too-large",
                where,
                f"expected delta below 1/{units:g}, found {delta:g} in {_rounds(charge)}: publishing one unit outright "
                "would count as private",
            )


def _rate(
    event: DpSgdRound | DistributedStep, batch: float, units: float, where: str, rounds: str
) -> Iterator[Finding]:
    expected = batch / units if units > 0 else math.inf
    if not math.isclose(event.sampling_rate, expected, rel_tol=CLOSE):
        yield claim(
            "sampling-rate",
            where,
            f"expected sampling rate {expected:.6g} for {batch:g} of {units:g} units a step, found "
            f"{event.sampling_rate:.6g} in {rounds}",
        )


def _unprotected(charge: Charge, where: str) -> Finding:
    line = charge.text("allowed_by")
    what = f"{_rounds(charge)} left without a guarantee"
    if line:
        return note("unprotected", where, f"{what}: allowed by {line}")
    return claim(
        "unprotected-not-allowed",
        where,
        f"{what}: expected the line that allowed it in the evidence, found none",
    )


def _belonging(charge: Charge, where: str, name: str, asked: Asked) -> Iterator[Finding]:
    owner = charge.text("institution")
    if owner is not None and owner != name:
        yield claim(
            "ledger-of-another", where, f'expected charges of "{name}", found charges of "{owner}": another\'s ledger'
        )
    elif asked.dataset is not None and charge.dataset != asked.dataset:
        yield claim(
            "ledger-of-another",
            where,
            f'expected charges to data set "{asked.dataset}", found "{charge.dataset}": another\'s ledger, or another '
            "data set than the configuration says",
        )


def _as_asked(charge: Charge, where: str, asked: Asked) -> Iterator[Finding]:
    if charge.purpose == UPDATE:
        yield from _update_as_asked(charge, where, asked)
    elif charge.purpose == SHARES:
        if not asked.masked:
            yield claim(
                "unplanned-release",
                where,
                "expected no shares of masks in a run without secure aggregation, found some",
            )
    elif charge.purpose.startswith("fisher-"):
        event = charge.event
        if not isinstance(event, GaussianRelease) or event.noise_multiplier != asked.fisher_noise:
            planned = "none" if asked.fisher_noise is None else f"noise multiplier {asked.fisher_noise:g}"
            yield claim(
                "unplanned-release",
                where,
                f'expected {planned} for a private Fisher, found another release, "{charge.purpose}"',
            )
    elif charge.purpose == LOCAL_ACCURACY:
        yield from _own_release(charge, where)
    else:
        yield claim(
            "unplanned-release", where, f'expected updates and what the configuration names, found "{charge.purpose}"'
        )


def _own_release(charge: Charge, where: str) -> Iterator[Finding]:
    """What an institution's people released of their own accord: noised, and allowed by a line of the policy."""
    line = charge.text("allowed_by")
    if not isinstance(charge.event, GaussianRelease) or not line:
        yield claim(
            "unplanned-release",
            where,
            f'expected noise, and the policy\'s line that allowed it, for "{charge.purpose}", found less',
        )
    else:
        yield note("own-release", where, f'"{charge.purpose}", noised, by the institution\'s own decision: {line}')


def _update_as_asked(charge: Charge, where: str, asked: Asked) -> Iterator[Finding]:
    event, kind = charge.event, _KINDS[asked.mode]
    beyond = [number for number in charge.rounds if not 1 <= number <= asked.rounds]
    if beyond:
        yield claim(
            "round-not-planned", where, f"expected rounds 1-{asked.rounds}, found {rounds_text(beyond)} charged"
        )
    if not isinstance(event, kind):
        yield claim(
            "event-kind",
            where,
            f'expected {kind.__name__} for privacy.mode "{asked.mode}", found {type(event).__name__} in '
            f"{_rounds(charge)}",
        )
    elif isinstance(event, DpSgdRound | DistributedStep) and event.steps != asked.local_steps:
        yield claim(
            "steps", where, f"expected {asked.local_steps} steps a round, found {event.steps} in {_rounds(charge)}"
        )
    yield from _rate_as_asked(charge, where, asked)
    wanted = {"batch_size": asked.batch_size, "clip_norm": asked.clip_norm, "delta": asked.delta, "cap": asked.cap}
    for name, value in wanted.items():
        found = charge.value(name)
        if value is not None and found is not None and found != value:
            yield claim(
                name.replace("_", "-"), where, f"expected {name} {value:g}, found {found:g} in {_rounds(charge)}"
            )
    unit = charge.text("unit")
    if unit is not None and unit != asked.unit:
        yield claim(
            "unit", where, f"expected {unit_text(asked.unit)} as the unit, found {unit_text(unit)} in {_rounds(charge)}"
        )


def _rate_as_asked(charge: Charge, where: str, asked: Asked) -> Iterator[Finding]:
    """Where the evidence of an older ledger does not say the batch size itself."""
    event, units = charge.event, charge.value("units")
    if isinstance(event, DpSgdRound) and charge.value("batch_size") is None and units:
        yield from _rate(event, asked.batch_size, units, where, _rounds(charge))
    if isinstance(event, DistributedStep) and asked.max_units is not None:
        yield from _rate(event, asked.batch_size, asked.max_units, where, _rounds(charge))
        if units is not None and units > asked.max_units:
            yield claim(
                "units", where, f"expected at most {asked.max_units} units, found {units:g} in {_rounds(charge)}"
            )


def _noise(name: str, updates: Sequence[Charge], asked: Asked) -> Iterator[Finding]:
    """The multiplier, recomputed from the plan."""
    if asked.mode == "distributed":
        yield from _noise_in_shares(name, updates, asked)
    private = [charge for charge in updates if isinstance(charge.event, DpSgdRound)]
    if not private or asked.mode != "dp-sgd":
        return
    used = sorted({charge.event.noise_multiplier for charge in private})  # type: ignore[union-attr]
    if len(used) > 1:
        listed = ", ".join(f"{value:g}" for value in used)
        yield claim("noise-changed", name, f"expected one noise multiplier in a run, found {listed}")
    units = _units_by_task(private, asked)
    if units is None:
        yield note("noise-not-checked", name, "the evidence says no units: the noise was not recomputed")
        return
    complete = set(asked.tasks) <= units.keys()
    for value in used:
        problem = noise_problem(asked, value, units, complete=complete)
        if problem:
            yield claim("noise", name, problem)
    if not complete:
        yield note(
            "noise-not-exact",
            name,
            "not every task was trained: whether the noise is the least that was needed was not checked",
        )


def _noise_in_shares(name: str, updates: Sequence[Charge], asked: Asked) -> Iterator[Finding]:
    for used in sorted({c.event.noise_multiplier for c in updates if isinstance(c.event, DistributedStep)}):
        problem = shared_noise_problem(asked, used)
        if problem:
            yield claim("noise", name, problem)


def _units_by_task(charges: Sequence[Charge], asked: Asked) -> Mapping[str, int] | None:
    found: dict[str, int] = {}
    for charge in charges:
        units = charge.value("units")
        if units is None or units < 1:
            return None
        for task in {asked.task(number) for number in charge.rounds}:
            found[task] = min(int(units), found.get(task, int(units)))
    return found


def unit_text(column: str) -> str:
    return f'column "{column}"' if column else "each row"


def _rounds(charge: Charge) -> str:
    return rounds_text(charge.rounds)
