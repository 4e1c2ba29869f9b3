"""A ledger in use."""

from __future__ import annotations

import os
import sqlite3
import stat
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedft.errors import LedgerError, StorageError
from fedft.ledger import Ledger, database, files
from fedft.privacy.events import DpSgdRound, UnprotectedRelease
from tests.ledger.small import EVENT, intent, payload, play

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "institutions" / "clinic" / "ledger.sqlite"


def test_a_ledger_is_made_where_there_is_none_for_its_owner_alone(path: Path) -> None:
    with Ledger.open(path) as ledger:
        assert [entry.kind for entry in ledger.entries()] == ["start"]
        intent(ledger)
        assert (ledger.datasets(), ledger.last_round("run-1")) == (("triage-notes",), 1)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert sorted(os.listdir(path.parent)) == ["ledger.sqlite", "ledger.sqlite.head", "ledger.sqlite.lock"]


def test_a_reader_makes_none(path: Path) -> None:
    with pytest.raises(LedgerError, match="found no file"):
        Ledger.open(path, read_only=True)
    assert not path.parent.exists()


def test_what_was_recorded_is_there_when_opened_again(path: Path) -> None:
    with Ledger.open(path) as ledger:
        play(ledger, rounds=2)
        noted, head = ledger.entries(), ledger.head
        stored = ledger.find_intent("run-1", 2, "update")
    for read_only in (True, False):
        with Ledger.open(path, read_only=read_only) as ledger:
            assert (ledger.entries(), ledger.head) == (noted, head)
            assert ledger.find_intent("run-1", 2, "update") == stored
            assert ledger.find_intent("run-1", 3, "update") is None
            assert ledger.stored_release("run-1", 2, "update") == payload(2)
            assert ledger.stored_release("run-1", 3, "update") is None


def test_an_intent_says_when_and_under_what_evidence(path: Path) -> None:
    with Ledger.open(path) as ledger:
        stored = intent(ledger)
    assert stored.evidence == {"units": 640, "dataset_digest": "d" * 64, "delta": 1e-5}
    when = datetime.strptime(stored.time_utc, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - when).total_seconds()) < 60


@pytest.mark.parametrize(
    "change", [{"plan_digest": "2" * 64}, {"event": DpSgdRound(1.1, 0.25, 5)}, {"dataset": "other"}], ids=str
)
def test_a_round_is_not_charged_for_another_plan(path: Path, change: dict[str, object]) -> None:
    with Ledger.open(path) as ledger:
        intent(ledger)
        with pytest.raises(LedgerError, match="charged for round 1"):
            intent(ledger, 1, **change)
        assert len(ledger.entries()) == 2


def test_another_run_round_or_purpose_is_another_charge(path: Path) -> None:
    with Ledger.open(path) as ledger:
        intent(ledger)
        intent(ledger, run="run-2")
        intent(ledger, round=2)
        intent(ledger, purpose="fisher", event=UnprotectedRelease())
        assert ledger.events("triage-notes") == (EVENT, EVENT, EVENT, UnprotectedRelease())


def test_an_intent_of_another_ledger_is_refused(path: Path, tmp_path: Path) -> None:
    with Ledger.open(path) as ledger, Ledger.open(tmp_path / "other.sqlite") as other:
        foreign = intent(other)
        with pytest.raises(LedgerError, match="expected an intent of this ledger"):
            ledger.record_release(foreign, b"bytes")
        with pytest.raises(LedgerError, match="expected an intent of this ledger"):
            ledger.record_release(replace(intent(ledger), sequence=9), b"bytes")


def test_the_same_refusal_is_noted_once_and_another_as_well(path: Path) -> None:
    with Ledger.open(path) as ledger:
        for reason in ("storage", "storage", "budget-exhausted", "storage"):
            ledger.record_refusal(run="run-1", round=4, dataset="triage-notes", reason=reason)
        assert [entry.fields["reason"] for entry in ledger.entries()[1:]] == ["storage", "budget-exhausted"]
        assert ledger.events("triage-notes") == ()


def test_the_file_stays_small_however_long_it_goes_on(path: Path) -> None:
    with Ledger.open(path) as ledger:
        for number in range(1, 41):
            ledger.record_release(intent(ledger, number), os.urandom(100_000))
    assert path.stat().st_size < 600_000


def test_a_closed_ledger_answers_nothing_and_may_be_closed_again(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="was closed"):
        ledger.entries()
    with pytest.raises(LedgerError, match="was closed"):
        intent(ledger)


def test_a_fork_does_not_write_to_its_parents_ledger(path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from fedft.errors import LedgerError
from fedft.ledger import Ledger
from tests.ledger.small import intent
ledger = Ledger.open(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    try:
        intent(ledger)
    except LedgerError as error:
        ledger.close()
        os._exit(3 if "a fork of it" in str(error) else 4)
    os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
intent(ledger)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True)
    with Ledger.open(path) as ledger:
        assert len(ledger.entries()) == 2


def test_threads_take_turns(path: Path) -> None:
    with Ledger.open(path) as ledger:
        threads = [
            threading.Thread(target=lambda run=run: [intent(ledger, n, run=run) for n in range(1, 11)])
            for run in ("run-1", "run-2", "run-3")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ledger.events("triage-notes")) == 30
    Ledger.open(path).close()


def test_two_names_of_one_file_are_one_ledger(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.05)
    with Ledger.open(path):
        (tmp_path / "alias").symlink_to(path)
        with pytest.raises(LedgerError, match="only writer"):
            Ledger.open(tmp_path / "alias")


def test_another_program_that_locks_the_database_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_WAIT_S", 0.05)
    with Ledger.open(path) as ledger, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another program locks the database"):
            intent(ledger)
        other.execute("ROLLBACK")
        intent(ledger)


def test_a_folder_that_cannot_hold_a_ledger_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="Not a directory|File exists"):
        Ledger.open(tmp_path / "file" / "ledger.sqlite")
    with pytest.raises(StorageError):
        Ledger.open(tmp_path)


def test_settings_that_sqlite_will_not_keep_are_a_storage_error() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(StorageError, match="local disk"):
        database._require_setting(connection, "journal_mode", "WAL", "wal")


def test_a_round_costs_little(path: Path) -> None:
    """Processor time, which a busy machine does not lengthen: 19 ms when written."""
    content = os.urandom(4_000_000)
    spent = []
    with Ledger.open(path) as ledger:
        for number in range(1, 8):
            start = time.process_time()
            ledger.record_release(intent(ledger, number), content)
            spent.append(time.process_time() - start)
    assert statistics.median(spent) < 0.1
