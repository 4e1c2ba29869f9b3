"""fedft audit recompute of plans with more in them than DP-SGD: masks, noise in shares, tasks and a private Fisher."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedft.audit.findings import FOUND, HOLDS
from fedft.privacy.accountant import calibrate, epsilon_of
from fedft.privacy.distributed import calibrate_distributed
from fedft.privacy.events import DataIndependentRelease, DistributedStep, DpSgdRound, GaussianRelease
from tests.audit.audited import (
    BATCH,
    DELTA,
    EPSILON,
    ROUNDS,
    STEPS,
    UNITS,
    Audited,
    charges_of,
    codes,
    each,
    event,
    found_in,
    set_in,
)


def shares_planned(run: Audited) -> None:
    set_in(run.config, "secure_aggregation.enabled", True)
    run.charges["north"] = [
        one
        for charge in charges_of("north")
        for one in (charge, replace(charge, event=DataIndependentRelease(), purpose="secagg-shares"))
    ]


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
