"""Promise: with noise in shares, the sum that leaves a round carries a central step's noise, whoever drops out.

And one unit moves an institution's part by at most the clip norm; the ledger says what it rests on, and what would hold
without masks. The mechanism itself against exact distributions: tests/privacy/test_distributed.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fedft.data.formats import EncodedDataSet
from fedft.errors import ConfigError, LedgerError
from fedft.ledger.store import Ledger
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.distributed import local_epsilon
from fedft.privacy.events import DataIndependentRelease, DistributedStep
from fedft.randomness import SecureStream
from fedft.simulation.run import play
from fedft.simulation.setup import Setup
from fedft.training.local import LocalPlan, Mechanism, sum_gradients
from fedft.types import AdapterVector
from tests.federation import UNITS, adapter_of, records_of
from tests.simulation.test_distributed_runs import SHARED, shared
from tests.simulation.test_masked_runs import FOUR, MASKED, Faults, entries_of, four

EVERYONE = f"training.batch_size={UNITS}"
"""Sampling rate 1: what is in the sum is no secret to this test."""
PLAN = LocalPlan(learning_rates=(), batch_size=8, sampling_rate=1.0, mechanism=Mechanism(0.5, 1.0))


def without_noise(setup: Setup, name: str, start: AdapterVector, clip_norm: float) -> np.ndarray:
    plan = replace(PLAN, mechanism=Mechanism(clip_norm, 1.0))
    data = setup.institution(name).encoded["default"]
    return sum_gradients(
        setup.model, data, start, plan, roles=setup.aggregation.trains, uniform=SecureStream().uniform
    ).total


@pytest.mark.parametrize("dropped", [(), ("east",)])
def test_the_sum_carries_at_least_the_noise_of_one_central_step(dropped: tuple[str, ...], tmp_path: Path) -> None:
    """What the coordinator steps by, less the clipped sums: its variance is that of all uploads, above the guarantee's.

    A chi-square of a few hundred values; a false alarm is one in ten million.
    """
    faults: Faults = {name: {"drop_rounds": [1]} for name in dropped}
    options = (EVERYONE, "federation.rounds=1", "training.learning_rate=1.0")
    play(shared(tmp_path, *options, faults=faults), folder=tmp_path / "run")
    setup = Setup(shared(tmp_path, *options))
    there = [name for name in FOUR if name not in dropped]
    start, roles, layout = setup.model.start_vector(), setup.aggregation.trains, setup.model.layout
    total = sum(without_noise(setup, name, start, 1.0) for name in there)
    moved = layout.part(adapter_of(tmp_path / "run"), roles).astype(np.float64) - layout.part(start, roles)
    noise = -moved * UNITS * len(there) - total
    (event,) = events_of(tmp_path, "north")
    stated = math.sqrt(len(there) / event.least_honest) * event.noise_multiplier
    assert event.least_honest == 2
    statistic = float(np.square(noise / stated).sum())
    assert 1e-7 < stats.chi2.cdf(statistic, noise.size) < 1 - 1e-7
    assert abs(noise.mean()) < 6 * stated / math.sqrt(noise.size)


def events_of(tmp_path: Path, name: str) -> list[DistributedStep]:
    with Ledger.open(tmp_path / "run" / "institutions" / name / "ledger.sqlite", read_only=True) as ledger:
        return [event for event in ledger.events(name) if isinstance(event, DistributedStep)]


def test_one_unit_moves_the_sum_by_at_most_the_clip_norm(tmp_path: Path) -> None:
    """Taken out one by one, at a clip norm that all of them exceed: each moves it by that, as clipping aims."""
    setup = Setup(shared(tmp_path))
    data, start = setup.institution("north").encoded["default"], setup.model.start_vector()
    roles, uniform = setup.aggregation.trains, SecureStream().uniform
    plan = replace(PLAN, mechanism=Mechanism(1e-3, 1.0))
    whole = sum_gradients(setup.model, data, start, plan, roles=roles, uniform=uniform).total
    assert whole.dtype == np.float64
    for unit in range(0, len(data.units), 5):
        left = EncodedDataSet(
            **{**vars(data), "units": [rows for number, rows in enumerate(data.units) if number != unit]}
        )
        without = sum_gradients(setup.model, left, start, plan, roles=roles, uniform=uniform).total
        assert 0.99e-3 < np.linalg.norm(whole - without) <= 1e-3


def test_the_ledger_holds_the_step_and_what_it_rests_on(tmp_path: Path) -> None:
    play(shared(tmp_path), folder=tmp_path / "run")
    with Ledger.open(tmp_path / "run" / "institutions" / "north" / "ledger.sqlite", read_only=True) as ledger:
        events = ledger.events("north")
    first, _, second, _ = events
    assert isinstance(first, DistributedStep)
    assert first == second
    assert (first.sampling_rate, first.steps, first.least_honest) == (8 / UNITS, 1, 2)
    assert events[1] == DataIndependentRelease()
    assert 0 < first.gap < 1e-12
    update = next(e.fields for e in entries_of(tmp_path, "north") if e.fields.get("purpose") == "update")
    assert update["evidence"]["secagg_threshold"] == 3
    spent = epsilon_of(events, 1e-3)
    assert spent <= 8.0
    assert records_of(tmp_path / "run")[-1]["epsilon"]["north"] == spent
    assert local_epsilon(events, 1e-3) > spent


def test_a_round_that_too_few_joined_is_paid_for(tmp_path: Path) -> None:
    faults: Faults = {name: {"drop_rounds": [1]} for name in ("east", "west")}
    play(shared(tmp_path, faults=faults), folder=tmp_path / "run")
    first, second = records_of(tmp_path / "run")
    assert (first["quorum"], second["quorum"]) == (False, True)
    assert len(events_of(tmp_path, "north")) == 2
    assert len(events_of(tmp_path, "east")) == 1


def test_an_institution_with_more_units_than_the_noise_was_made_for_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.max_units of at least the 40 units of a data set, found 20"):
        play(shared(tmp_path, "privacy.max_units=20"), folder=tmp_path / "run")


def test_without_masks_there_is_no_such_mode(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"secure_aggregation\.enabled with privacy\.mode = .distributed"):
        four(tmp_path, *(line for line in SHARED if line != MASKED))


def test_a_round_that_was_charged_bare_is_not_answered_in_shares(tmp_path: Path) -> None:
    """The same run and round under another mechanism: the ledger refuses it."""
    play(four(tmp_path, "federation.rounds=1"), folder=tmp_path / "run")
    with Ledger.open(tmp_path / "run" / "institutions" / "north" / "ledger.sqlite") as ledger:
        intent = next(entry.fields for entry in ledger.entries() if entry.kind == "intent")
        with pytest.raises(LedgerError):
            ledger.record_intent(
                run=intent["run"], round=1, purpose="update", dataset="north", plan_digest=intent["plan_digest"],
                event=DistributedStep(1.0, 0.2, 1, 2, 0.0), evidence={},
            )  # fmt: skip
