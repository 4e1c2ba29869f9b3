"""Runs as fedft plays them are confirmed by fedft audit recompute, of every kind; so is what the plan came to."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fedft.assembly.planning import institution_plan
from fedft.audit.asked import asked_of, noise_problem
from fedft.audit.findings import HOLDS
from fedft.audit.folder import read_files
from fedft.audit.recompute import Recomputed, recompute
from fedft.ledger.store import Ledger
from fedft.simulation.run import play
from fedft.simulation.setup import Setup
from tests.federation import NAMES, OFF, federation, rows_of
from tests.simulation.test_masked_runs import MASKED, four

TASKS = (
    "continual.method=ewc", "continual.strength=1.0", "continual.fisher=private-dp", "data.task_column=hospital",
    'continual.tasks=["north", "south"]', "continual.rounds_per_task=[1, 1]", "training.batch_size=4",
    "continual.fisher_clip_norm=0.5",
)  # fmt: skip
KINDS = {
    "private": (),
    "its own cap and batch": ("institutions.north.epsilon=20", "institutions.north.batch_size=5"),
    "tasks and a private Fisher": TASKS,
}


def confirmed(folder: Path) -> Recomputed:
    found = recompute(folder)
    assert found.exit_code == HOLDS, found.findings
    assert {account.institution for account in found.accounts} >= set(NAMES)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_private_run_is_confirmed_to_the_last_digit(kind: str, tmp_path: Path) -> None:
    """South and west have the same rows, and their noise is calculated once; north's are others."""
    config = federation(tmp_path / "data", *KINDS[kind], rows={"west": rows_of(1)})
    summary = play(config, folder=tmp_path / "run")
    found = confirmed(tmp_path / "run")
    assert not found.findings
    with Ledger.open(tmp_path / "run" / "institutions" / "north" / "ledger.sqlite", read_only=True) as ledger:
        clips = {e.fields["purpose"]: e.fields["evidence"]["clip_norm"] for e in ledger.entries() if e.kind == "intent"}
    assert clips == {"update": 1.0, **({"fisher-0": 0.5} if kind.startswith("tasks") else {})}
    for account in found.accounts:
        stated = summary["institutions"][account.institution]
        assert (account.epsilon, account.cap) == (stated["epsilon"], stated["cap"])
        assert account.units == ("patient",)


def test_a_run_without_privacy_is_told_as_such_with_the_line_that_allowed_it(tmp_path: Path) -> None:
    play(federation(tmp_path / "data", *OFF), folder=tmp_path / "run")
    found = confirmed(tmp_path / "run")
    assert {account.epsilon for account in found.accounts} == {math.inf}
    assert {finding.code for finding in found.findings} == {"unprotected"}
    assert all(finding.text.endswith('allowed by privacy.mode = "off"') for finding in found.findings)


def test_a_masked_run_in_which_some_drop_out_is_confirmed(tmp_path: Path) -> None:
    faults = {"east": {"drop_rounds": [1]}, "west": {"silent_rounds": [2]}}
    play(four(tmp_path, MASKED, faults=faults), folder=tmp_path / "run")
    found = confirmed(tmp_path / "run")
    assert sum(account.free_releases for account in found.accounts) > 0
    assert {finding.kind for finding in found.findings} <= {"note"}


def test_a_second_run_on_the_same_data_sets_is_confirmed_and_so_is_the_first_still(tmp_path: Path) -> None:
    caps = [f"institutions.{name}.epsilon=40" for name in NAMES]
    config = federation(tmp_path / "data", f"simulation.ledger_dir={tmp_path / 'ledgers'}", *caps)
    for name in ("one", "two"):
        play(config, folder=tmp_path / name)
    first, second = confirmed(tmp_path / "one"), confirmed(tmp_path / "two")
    assert [account.epsilon for account in first.accounts] == [account.epsilon for account in second.accounts]
    stated = {
        name: json.loads((tmp_path / name / "summary.json").read_text())["institutions"]["north"]["epsilon"]
        for name in ("one", "two")
    }
    north = second.accounts[0].epsilon
    assert north is not None
    assert stated["one"] < stated["two"] == north
    assert len(second.accounts[0].runs) == 2


def test_the_noise_that_is_read_off_the_configuration_is_what_the_plan_came_to(tmp_path: Path) -> None:
    config = federation(tmp_path / "data", *TASKS, rows=dict.fromkeys(NAMES, rows_of(0)))
    play(config, folder=tmp_path / "run")
    asked, setup = asked_of(read_files(tmp_path / "run"), "north"), Setup(config)
    data = setup.institution("north")
    units = {task: encoded.unit_count for task, encoded in data.encoded.items()}
    noise = institution_plan(config, data).noise_multiplier
    assert noise is not None
    assert noise_problem(asked, noise, units, complete=True) is None
    assert noise_problem(asked, noise - 0.001, units, complete=True) is not None
    assert noise_problem(asked, noise * 1.05, units, complete=True) is not None
    assert noise_problem(asked, noise * 1.05, units, complete=False) is None
