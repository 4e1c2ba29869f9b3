"""The guarantees of fedft/records, rounds/witness and rounds/trail, on whole runs. Changed bytes: tests/audit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedft.audit.verify import verify_run
from fedft.ledger import Entry, Ledger
from fedft.records.log import read_entries
from fedft.simulation.run import play
from tests.dying import KILLED
from tests.federation import NAMES, federation
from tests.simulation.killed_run import play_in_child


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    play(federation(folder / "data"), folder=folder / "run")
    return folder / "run"


def test_a_simulated_run_is_valid_and_its_private_keys_are_gone(run: Path) -> None:
    verdict = verify_run(run)
    assert (verdict.finding, verdict.ledgers, verdict.not_covered) == (None, NAMES, ())
    assert list(run.rglob("identity.key")) == []


def test_a_run_that_has_ended_stays_as_it_is(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    play(federation(tmp_path / "data"), folder=run, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "point", ["before-an-entry", "an-entry-not-counted", "before-the-last-entry", "before-the-keys-are-deleted"]
)
def test_killed_around_an_entry_a_run_ends_valid_and_no_round_has_two(point: str, tmp_path: Path) -> None:
    """What was told before the death is in the log after it: receipts bear that out."""
    config, run = federation(tmp_path / "data"), tmp_path / "run"
    assert play_in_child(config, run, point=point) == KILLED
    told = {
        name: [entry for entry in entries_of(run, name) if entry.kind == "receipt"]
        for name in NAMES
        if (run / "institutions" / name / "ledger.sqlite").exists()
    }
    verdict = verify_run(run)
    assert (verdict.valid, point) in ((False, point), (True, "before-the-keys-are-deleted"))
    assert play_in_child(config, run) == 0
    assert verify_run(run).finding is None
    assert [entry.kind for entry in read_entries(run / "audit.jsonl")] == ["start", "roster", "round", "round", "end"]
    for name, kept in told.items():
        assert [entry for entry in entries_of(run, name) if entry.kind == "receipt"][: len(kept)] == kept
    assert list(run.rglob("identity.key")) == []


def entries_of(run: Path, name: str) -> tuple[Entry, ...]:
    with Ledger.open(run / "institutions" / name / "ledger.sqlite", read_only=True) as ledger:
        return ledger.entries()


@pytest.mark.parametrize(
    "overrides",
    [
        ("secure_aggregation.enabled=true",),
        ("aggregation.encoding=mxint8",),
        ("institutions.west.faults.drop_rounds=[1]", "institutions.south.faults.corrupt_rounds=[2]"),
        ("simulation.ledger_dir=ledgers",),
    ],
    ids=["masked", "eight bits", "faults", "ledgers elsewhere"],
)
def test_every_kind_of_run_is_valid(overrides: tuple[str, ...], tmp_path: Path) -> None:
    run, kept = tmp_path / "run", tmp_path / "data" / "ledgers"
    play(federation(tmp_path / "data", *overrides), folder=run)
    ledgers = sorted(kept.glob("*.sqlite")) if kept.exists() else []
    verdict = verify_run(run, ledgers=ledgers)
    assert (verdict.finding, verdict.ledgers, verdict.not_covered) == (None, NAMES, ())


def test_a_ledger_that_went_on_to_another_run_still_fits_the_first(tmp_path: Path) -> None:
    config = federation(tmp_path / "data", "simulation.ledger_dir=ledgers", "institutions.north.epsilon=20")
    for name in ("first", "second"):
        play(config, folder=tmp_path / name)
    north = tmp_path / "data" / "ledgers" / "north.sqlite"
    second = verify_run(tmp_path / "second", ledgers=[north])
    assert second.finding is None
    first = verify_run(tmp_path / "first", ledgers=[north])
    assert (first.finding, first.ledgers) == (None, ("north",))
    assert any("signed with a key" in words for words in first.not_covered)
    shutil.copy(tmp_path / "first" / "audit.head", tmp_path / "remembered")
    assert verify_run(tmp_path / "first", heads=[str(tmp_path / "remembered")]).valid
