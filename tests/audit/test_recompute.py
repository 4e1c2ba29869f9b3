"""fedft audit recompute: what holds is confirmed, and each thing that does not has its finding."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedft.audit.findings import FOUND, HOLDS
from fedft.audit.recompute import Recomputed, recompute
from fedft.privacy import opinions
from fedft.privacy.accountant import calibrate, epsilon_of
from fedft.privacy.distributed import calibrate_distributed
from fedft.privacy.events import (
    DataIndependentRelease,
    DistributedStep,
    DpSgdRound,
    GaussianRelease,
    UnprotectedRelease,
)
from tests.audit.audited import (
    BATCH,
    DELTA,
    EPSILON,
    ROUNDS,
    STEPS,
    UNITS,
    Audited,
    Charged,
    charges_of,
    codes,
    noise_of,
    set_in,
)
from tests.cli.commands import fedft

Spoil = Callable[[Audited], object]


def found_in(folder: Path, spoil: Spoil = lambda run: None) -> Recomputed:
    run = Audited()
    spoil(run)
    return recompute(run.write(folder))


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


def each(run: Audited, change: Callable[[Charged], Charged], *, only: int | None = None) -> None:
    run.charges["north"] = [
        change(charge) if only in (None, charge.round) else charge for charge in run.charges["north"]
    ]


def event(**changes: Any) -> Callable[[Charged], Charged]:
    return lambda charge: replace(charge, event=replace(charge.event, **changes))


def evidence(**changes: Any) -> Callable[[Charged], Charged]:
    return lambda charge: charge.but(**changes)


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


def shares_planned(run: Audited) -> None:
    set_in(run.config, "secure_aggregation.enabled", True)
    run.charges["north"] = [
        one
        for charge in charges_of("north")
        for one in (charge, replace(charge, event=DataIndependentRelease(), purpose="secagg-shares"))
    ]


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


def test_shares_of_masks_are_counted_and_cost_nothing(tmp_path: Path) -> None:
    found = found_in(tmp_path / "run", shares_planned)
    assert (found.exit_code, found.findings) == (HOLDS, ())
    assert [account.free_releases for account in found.accounts] == [ROUNDS, 0]
    assert found.accounts[0].epsilon == found_in(tmp_path / "without").accounts[0].epsilon


MOST = 400
"""privacy.max_units of the runs below, and what their noise comes to."""
SHARED_NOISE = calibrate_distributed(epsilon=EPSILON, delta=DELTA, sampling_rate=BATCH / MOST, steps=ROUNDS)


def in_shares(**changes: float) -> Callable[[Audited], None]:
    """A run with noise in shares; ``changes`` of what its ledgers say was done, and units: of each data set."""

    def distributed(run: Audited) -> None:
        set_in(run.config, "privacy.mode", "distributed")
        set_in(run.config, "privacy.max_units", MOST)
        set_in(run.config, "training.local_steps", 1)
        noise, rate = changes.get("noise", SHARED_NOISE), changes.get("rate", BATCH / MOST)
        step = DistributedStep(noise, rate, 1, least_honest=2, gap=1e-20)
        for name in UNITS:
            made = [replace(charge, event=step) for charge in charges_of(name)]
            run.charges[name] = [charge.but(units=changes["units"]) for charge in made] if "units" in changes else made
            spent = epsilon_of([step] * ROUNDS, DELTA)
            run.summary["institutions"][name] |= {"epsilon": spent, "noise_multiplier": noise}  # type: ignore[index]

    return distributed


def test_steps_under_secure_aggregation_are_told_with_what_they_rest_on(tmp_path: Path) -> None:
    found = found_in(tmp_path / "run", in_shares())
    assert codes(found, "note") == {"distributed"}
    assert found.exit_code == HOLDS
    for account in found.accounts:
        assert account.least_honest == 2
        alone = epsilon_of([DpSgdRound(SHARED_NOISE / math.sqrt(2), BATCH / MOST, ROUNDS)], DELTA)
        assert account.without_masks == pytest.approx(alone, abs=1e-6)
        assert alone > (account.epsilon or math.inf)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"noise": SHARED_NOISE - 0.001}, "noise"),
        ({"noise": SHARED_NOISE + 0.001}, "noise"),
        ({"rate": BATCH / 250}, "sampling-rate"),
        ({"units": MOST + 1}, "units"),
    ],
)
def test_noise_in_shares_is_recomputed_from_the_plan(changes: dict[str, float], code: str, tmp_path: Path) -> None:
    found = found_in(tmp_path / "run", in_shares(**changes))
    assert code in codes(found, "claim")
    assert found.exit_code == FOUND


def test_tasks_and_a_private_fisher_are_part_of_the_plan(tmp_path: Path) -> None:
    noise = calibrate(
        epsilon=EPSILON, delta=DELTA, sampling_rate=BATCH / 200, steps=ROUNDS * STEPS, other=(GaussianRelease(6.0),)
    )

    def two_tasks(run: Audited) -> None:
        fisher = {"method": "ewc", "fisher": "private-dp", "fisher_noise_multiplier": 6.0}
        run.config["continual"] = {**fisher, "tasks": ["old", "new"], "rounds_per_task": [1, 2]}
        made = []
        for charge in charges_of("north"):
            units = 400 if charge.round == 1 else 200
            made.append(replace(charge.but(units=units), event=DpSgdRound(noise, BATCH / units, STEPS)))
        made.insert(1, replace(made[0], round=2, purpose="fisher-0", event=GaussianRelease(6.0)))
        run.charges = {"north": made}
        spent = epsilon_of([charge.event for charge in made], DELTA)
        run.summary["institutions"] = {"north": {"epsilon": spent, "noise_multiplier": noise}}  # type: ignore[index]
        run.config["institutions"] = [{"name": "north"}]
        run.records = [{**record, "updates": ["north"]} for record in run.records]

    found = found_in(tmp_path / "run", two_tasks)
    assert (found.exit_code, found.findings) == (HOLDS, ())

    def less(run: Audited) -> None:
        two_tasks(run)
        each(run, lambda one: event(noise_multiplier=noise - 0.01)(one) if one.purpose == "update" else one)

    assert codes(found_in(tmp_path / "less", less), "claim") == {"noise", "stated-noise", "stated-epsilon"}


def test_another_delta_can_be_asked_for(tmp_path: Path) -> None:
    folder = Audited().write(tmp_path / "run")
    found = recompute(folder, delta=1e-6)
    assert found.exit_code == HOLDS
    units = UNITS["north"]
    expected = epsilon_of([DpSgdRound(noise_of(units), BATCH / units, STEPS * ROUNDS)], 1e-6)
    assert found.accounts[0].epsilon == expected > EPSILON


def test_a_disagreement_of_accountants_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Audited().write(tmp_path / "run")
    monkeypatch.setattr("fedft.audit.accounts.prv_bounds", lambda events, delta: (4.0, 4.02))
    assert codes(recompute(folder), "claim") == {"accountants-disagree"}
    monkeypatch.undo()
    monkeypatch.setattr("fedft.audit.accounts.rdp_epsilon", lambda events, delta: 2.0)
    assert codes(recompute(folder), "claim") == {"accountants-disagree"}


def test_without_opacus_a_wider_grid_takes_prvs_place_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Audited().write(tmp_path / "run")
    opinions._prv_accountant.cache_clear()
    opinions._prv_composition.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = recompute(folder)
    assert found.exit_code == HOLDS
    for account in found.accounts:
        assert account.prv is None
        assert "pip install --no-deps opacus" in (account.prv_problem or "")
        assert account.coarse == pytest.approx(account.epsilon, abs=0.01)


def test_the_command_shows_whom_it_cost_how_much_under_which_cap(tmp_path: Path) -> None:
    folder = Audited().write(tmp_path / "run")
    result = fedft("audit", "recompute", folder)
    assert result.exit_code == HOLDS, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    (north,) = [row for row in rows if row[:1] == ["north"]]
    assert north[1:4] == ["400", "by", "patient"]
    assert north[-2:] == ["0.001", "3"]
    assert "every figure holds" in result.stdout
    assert fedft("audit", "recompute", folder, "--delta", "1").exit_code == 2


def test_the_json_has_the_same_figures(tmp_path: Path) -> None:
    folder = Audited().write(tmp_path / "run")
    body = json.loads(fedft("audit", "recompute", folder, "--json").stdout)
    found = recompute(folder)
    assert body["label"] == "fedft/v1/audit-recompute"
    assert [one["epsilon"] for one in body["accounts"]] == [account.epsilon for account in found.accounts]
    assert (body["findings"], body["exit_code"]) == ([], HOLDS)


def test_it_needs_no_deep_learning_stack(tmp_path: Path) -> None:
    folder = Audited().write(tmp_path / "run")
    check = (
        "import sys; from fedft.cli import app\n"
        f"try: app(['audit', 'recompute', {str(folder)!r}, '--json'])\n"
        "except SystemExit as end: print('ended', end.code)\n"
        "print(sorted({'torch', 'flwr', 'transformers', 'peft', 'opacus', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == ["ended 0", "[]"]
