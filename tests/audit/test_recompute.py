"""fedft audit recompute: what holds is confirmed, and each thing that does not has its finding."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedft.audit.findings import FOUND, HOLDS
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.events import DataIndependentRelease, DpSgdRound, GaussianRelease, UnprotectedRelease
from tests.audit.audited import (
    BATCH,
    DELTA,
    EPSILON,
    ROUNDS,
    STEPS,
    UNITS,
    Audited,
    Spoil,
    charges_of,
    codes,
    each,
    event,
    evidence,
    found_in,
    noise_of,
    set_in,
)
from tests.cli.commands import fedft


def test_a_run_that_holds_together_is_confirmed(tmp_path: Path) -> None:
    found = found_in(tmp_path / "run")
    assert (found.exit_code, found.findings) == (HOLDS, ())
    for account in found.accounts:
        units = UNITS[account.institution]
        event = DpSgdRound(noise_of(units), BATCH / units, STEPS)
        assert account.epsilon == epsilon_of([event] * ROUNDS, DELTA)
        assert account.epsilon is not None
        assert account.epsilon <= EPSILON
        assert account.prv is not None
        assert account.rdp is not None
        assert account.prv[0] <= account.epsilon <= account.prv[1] + 0.004
        assert account.epsilon < account.rdp
        assert (account.units, account.sizes, account.cap) == (("patient",), (units,), EPSILON)
        (run,) = account.runs
        assert (run.rounds, run.events, run.unprotected) == (ROUNDS, ROUNDS, 0)


def swapped(run: Audited) -> None:
    run.charges["north"], run.charges["south"] = run.charges["south"], run.charges["north"]


def nothing_of_this_run(run: Audited) -> None:
    each(run, lambda charge: replace(charge, run="wards/another"))


def own_release(purpose: str, what: Any) -> Spoil:
    def spoil(run: Audited) -> None:
        run.charges["north"].append(replace(run.charges["north"][-1], event=what, purpose=purpose))

    return spoil


CLAIMS: dict[str, tuple[str, Spoil]] = {
    "too little noise": ("noise", lambda run: each(run, event(noise_multiplier=noise_of(400) - 0.01))),
    "more noise than the plan's": ("noise", lambda run: each(run, event(noise_multiplier=noise_of(400) * 1.1))),
    "two noises": ("noise-changed", lambda run: each(run, event(noise_multiplier=noise_of(400) + 0.1), only=2)),
    "another noise than stated": (
        "stated-noise",
        lambda run: set_in(run.summary or {}, "institutions.north.noise_multiplier", 9.0),
    ),
    "a lower sampling rate": ("sampling-rate", lambda run: each(run, event(sampling_rate=0.02))),
    "a larger batch": ("sampling-rate", lambda run: each(run, evidence(batch_size=40))),
    "a batch that was not asked for": (
        "batch-size",
        lambda run: each(run, lambda one: event(sampling_rate=40 / 400)(one.but(batch_size=40))),
    ),
    "a smaller data set, of an older ledger": (
        "sampling-rate",
        lambda run: each(run, evidence(batch_size=None, units=380)),
    ),
    "fewer steps": ("steps", lambda run: each(run, event(steps=STEPS - 1))),
    "another clip norm": ("clip-norm", lambda run: each(run, evidence(clip_norm=2.0))),
    "another delta": ("delta", lambda run: each(run, evidence(delta=1e-4))),
    "a delta that is none": ("delta", lambda run: each(run, evidence(delta=1.5))),
    "a delta for fewer units": (
        "delta-too-large",
        lambda run: each(run, lambda one: event(sampling_rate=BATCH / 1000)(one.but(units=1000))),
    ),
    "another cap": ("cap", lambda run: each(run, evidence(cap=8.0))),
    "another unit": ("unit", lambda run: each(run, evidence(unit=""))),
    "a lower epsilon than spent": (
        "stated-epsilon",
        lambda run: set_in(run.summary or {}, "institutions.north.epsilon", 1.0),
    ),
    "a finite epsilon where it is infinite": (
        "stated-epsilon",
        lambda run: each(run, lambda one: replace(one, event=UnprotectedRelease()).but(allowed_by="a line"), only=1),
    ),
    "an update for free": (
        "free-release",
        lambda run: each(run, lambda one: replace(one, event=DataIndependentRelease())),
    ),
    "an update of another kind": (
        "event-kind",
        lambda run: each(run, lambda one: replace(one, event=GaussianRelease(5.0)), only=2),
    ),
    "an unprotected release that nobody allowed": (
        "unprotected-not-allowed",
        lambda run: each(run, lambda one: replace(one, event=UnprotectedRelease()), only=3),
    ),
    "a round too many": (
        "round-not-planned",
        lambda run: run.charges["north"].append(replace(run.charges["north"][0], round=ROUNDS + 1)),
    ),
    "a Fisher that was not planned": ("unplanned-release", own_release("fisher-0", GaussianRelease(5.0))),
    "shares without secure aggregation": ("unplanned-release", own_release("secagg-shares", DataIndependentRelease())),
    "a release that no plan names": ("unplanned-release", own_release("accuracy", GaussianRelease(20.0))),
    "more than the cap": ("over-cap", own_release("accuracy", GaussianRelease(0.8))),
    "an update without a charge": ("release-without-intent", lambda run: run.charges["north"].pop(1)),
    "an update that the ledger lacks": (
        "update-not-recorded",
        lambda run: each(run, lambda one: replace(one, released=False), only=2),
    ),
    "two ledgers swapped": ("ledger-of-another", swapped),
    "a ledger of another run": ("ledger-of-another", nothing_of_this_run),
    "another data set": ("ledger-of-another", lambda run: each(run, lambda one: replace(one, dataset="north-2"))),
}  # fmt: skip


@pytest.mark.parametrize("case", CLAIMS)
def test_a_claim_that_does_not_hold_is_found_and_named(case: str, tmp_path: Path) -> None:
    code, spoil = CLAIMS[case]
    found = found_in(tmp_path / "run", spoil)
    assert code in codes(found, "claim"), found.findings
    assert found.exit_code == FOUND
    assert all(finding.where and finding.text for finding in found.findings)


def other_run_too(run: Audited) -> None:
    run.charges["north"] += [
        replace(charge, run="wards/later", event=UnprotectedRelease()).but(
            allowed_by='release.unprotected = ["update"]'
        )
        for charge in charges_of("north")
    ]


def charged_alone(run: Audited) -> None:
    each(run, lambda one: replace(one, released=False), only=3)
    run.records[2]["updates"].remove("north")


NOTES: dict[str, tuple[str, Spoil]] = {
    "charged, and nothing left": (
        "spend-without-release",
        charged_alone,
    ),
    "sent, and not counted": ("release-not-counted", lambda run: run.records[2]["updates"].remove("north")),
    "rows that changed": ("data-changed", lambda run: each(run, evidence(fingerprint="other"), only=3)),
    "another run without a guarantee, allowed": ("unprotected", other_run_too),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTES)
def test_what_is_to_be_seen_and_not_wrong_is_noted(case: str, tmp_path: Path) -> None:
    code, spoil = NOTES[case]
    found = found_in(tmp_path / "run", spoil)
    assert codes(found, "note") == {code}
    assert found.exit_code == HOLDS


def test_what_a_later_run_spends_counts_for_the_data_set_and_not_against_what_was_stated(tmp_path: Path) -> None:
    found = found_in(tmp_path / "run", other_run_too)
    north, south = found.accounts
    assert north.epsilon == math.inf
    assert south.epsilon is not None
    assert south.epsilon < EPSILON
    assert [run.unprotected for run in north.runs] == [0, ROUNDS]
    (seen,) = {finding.text for finding in found.findings}
    assert seen == 'rounds 1-3 left without a guarantee: allowed by release.unprotected = ["update"]'
    shown = " ".join(fedft("audit", "recompute", tmp_path / "run").stdout.split())
    assert "no guarantee for everyone" in shown
    assert "every figure holds" not in shown
