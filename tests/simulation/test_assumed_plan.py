"""A plan for sizes instead of rows: what an institution of that size would plan itself, and nobody's rows are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedft.assembly.planning import assumed_plan, likely_units, quarters
from fedft.config import FederationConfig, parse_config
from fedft.errors import ConfigError, FedftError
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.events import DpSgdRound, GaussianRelease, PrivacyEvent
from fedft.simulation.planning import plan_of
from fedft.update.release import reason_for
from tests.federation import BATCH, NAMES, OFF, federation, federation_body, rows_of
from tests.tiny import classification_rows

DELTA = 1e-3
SAME = dict.fromkeys(NAMES, rows_of(0))
UNITS = len({row["patient"] for row in rows_of(0)})


def coordinators(folder: Path, *overrides: str, named: tuple[str, ...] = ()) -> FederationConfig:
    """A file that names nobody's rows, in a folder where there are none."""
    body = federation_body(folder)
    for name in NAMES:
        (folder / f"{name}.jsonl").unlink()
    body["institutions"] = [{"name": name} for name in named]
    return parse_config(body, folder=folder, overrides=overrides)


def test_an_assumed_size_is_planned_as_rows_of_that_size_are(tmp_path: Path) -> None:
    config = federation(tmp_path, "federation.rounds=5", rows=SAME)
    real, (assumed,) = plan_of(config).institutions["north"], plan_of(config, units=[UNITS]).assumed
    found = assumed.plan
    assert found is not None
    for name in ("batch_size", "sampling_rate", "steps", "epsilon", "delta", "clip_norm", "noise_multiplier"):
        assert getattr(found, name) == getattr(real, name)
    assert (found.units, found.planned_epsilon) == (real.units, real.planned_epsilon)
    assert (found.rows, found.cap, found.affordable_rounds) == (None, None, None)


def test_epsilon_after_each_quarter_is_the_accountants(tmp_path: Path) -> None:
    assumed = assumed_plan(federation(tmp_path, "federation.rounds=5"), 40)
    assert assumed.plan is not None
    noise = assumed.plan.noise_multiplier
    assert noise is not None
    expected = [(done, epsilon_of([DpSgdRound(noise, BATCH / 40, 2)] * done, DELTA)) for done in (2, 3, 4, 5)]
    assert list(assumed.epsilon_after) == expected
    assert expected[-1][1] == assumed.plan.planned_epsilon


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 3, 4)), (10, (3, 5, 8, 10)), (100, (25, 50, 75, 100))],
)
def test_quarters(tmp_path: Path, rounds: int, expected: tuple[int, ...]) -> None:
    assert quarters(federation(tmp_path, f"federation.rounds={rounds}")) == expected


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(1, (2, 5, 10, 20, 50)), (8, (20, 50, 100, 200, 500)), (96, (200, 500, 1000, 2000, 5000))],
)
def test_likely_sizes_begin_at_twice_the_batch(tmp_path: Path, batch: int, expected: tuple[int, ...]) -> None:
    assert likely_units(federation(tmp_path, f"training.batch_size={batch}")) == expected


@pytest.mark.parametrize("named", [(), NAMES])
def test_a_file_that_names_nobodys_rows_is_planned_for_some_sizes(tmp_path: Path, named: tuple[str, ...]) -> None:
    config = coordinators(tmp_path, named=named)
    plan = plan_of(config)
    assert plan.institutions == {}
    assert plan.asked is not None
    assert (plan.asked.epsilon, plan.asked.delta, plan.asked.clip_norm) == (8.0, DELTA, 1.0)
    assert (plan.asked.steps, plan.asked.batch_size, plan.unit) == (4, BATCH, "patient")
    assert tuple(found.units for found in plan.assumed) == likely_units(config)
    assert plan.parameters_trained > 0
    json.dumps(plan.as_json())
    noises = [found.plan.noise_multiplier for found in plan.assumed if found.plan is not None]
    assert sorted(noises, reverse=True) == noises  # type: ignore[type-var]


def test_with_sizes_no_rows_are_read_though_the_file_names_some(tmp_path: Path) -> None:
    config = federation(tmp_path)
    for name in NAMES:
        (tmp_path / f"{name}.jsonl").unlink()
    assert [found.units for found in plan_of(config, units=[40]).assumed] == [40]
    with pytest.raises(FedftError, match="expected a data file"):
        plan_of(config)


def test_rows_for_some_of_the_institutions_alone_are_an_error_still(tmp_path: Path) -> None:
    body = federation_body(tmp_path)
    del body["institutions"][1]["data"]
    with pytest.raises(ConfigError, match=r"institutions\.south\.data"):
        plan_of(parse_config(body, folder=tmp_path))


@pytest.mark.parametrize(("units", "words"), [(4, "a step takes 8"), (1000, "below 1/1,000")])
def test_a_size_that_is_refused_is_refused_as_rows_of_that_size_are(tmp_path: Path, units: int, words: str) -> None:
    """Too few for a batch; so many that delta would let one be published outright."""
    rows = [row | {"patient": f"p{number % units}"} for number, row in enumerate(classification_rows(max(units, 90)))]
    config = federation(tmp_path, rows=dict.fromkeys(NAMES, rows))
    with pytest.raises(FedftError) as raised:
        plan_of(config)
    (assumed,) = plan_of(config, units=[units]).assumed
    assert (assumed.plan, assumed.refusal) == (None, reason_for(raised.value))
    assert words in str(assumed.because)


def test_a_budget_that_no_noise_keeps_is_refused_at_each_size(tmp_path: Path) -> None:
    config = federation(tmp_path, "privacy.epsilon=1e-6", "privacy.delta=1e-12")
    for assumed in plan_of(config, units=[20, 40]).assumed:
        assert assumed.plan is None
        assert "raise epsilon or delta" in str(assumed.because)


def test_looking_back_on_private_rows_is_planned_for(tmp_path: Path) -> None:
    both: list[dict[str, Any]] = [row | {"hospital": task} for row in rows_of(0) for task in ("north", "south")]
    words = (
        "continual.method=ewc", "continual.strength=1.0", "continual.fisher=private-dp",
        "continual.fisher_noise_multiplier=3", "data.task_column=hospital", 'continual.tasks=["north", "south"]',
        "continual.rounds_per_task=[1, 2]", "training.batch_size=4", "federation.rounds=3",
    )  # fmt: skip
    config = federation(tmp_path, *words, rows=dict.fromkeys(NAMES, both))
    real, (assumed,) = plan_of(config).institutions["north"], plan_of(config, units=[UNITS]).assumed
    assert assumed.plan is not None
    noise = assumed.plan.noise_multiplier
    assert noise is not None
    assert (noise, assumed.plan.planned_epsilon) == (real.noise_multiplier, real.planned_epsilon)
    step = DpSgdRound(noise, 4 / UNITS, 2)
    looked = GaussianRelease(3.0)
    done: tuple[list[PrivacyEvent], ...] = ([step], [step, looked, step], [step, looked, step, step])
    assert list(assumed.epsilon_after) == [(n, epsilon_of(events, DELTA)) for n, events in enumerate(done, start=1)]


def test_without_privacy_there_is_a_sampling_rate_and_no_promise(tmp_path: Path) -> None:
    (assumed,) = plan_of(coordinators(tmp_path, *OFF), units=[40]).assumed
    assert assumed.plan is not None
    assert assumed.plan.sampling_rate == BATCH / 40
    assert (assumed.plan.noise_multiplier, assumed.plan.epsilon, assumed.epsilon_after) == (None, None, ())
