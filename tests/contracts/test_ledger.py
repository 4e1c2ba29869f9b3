"""The guarantees of fedft/ledger, sentence by sentence."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedft.errors import FedftError, LedgerCorrupt, LedgerError, LedgerLocked, StorageError
from fedft.ledger import Ledger, files
from fedft.ledger.entries import SALT, make_entry
from tests.ledger import killed_writer
from tests.ledger.small import EVENT, crashed_copy, files_of, intent, payload, play, read_everything

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "tests" / "ledger" / "killed_writer.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed ledger of ten entries: start, four rounds of an intent and a release, a refusal."""
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        play(ledger)
    return tmp_path / "ledger.sqlite"


# "A hash tells nobody who guesses an intent's evidence whether it is right"


def test_a_hash_tells_nobody_who_guesses_the_evidence_whether_it_is_right(tmp_path: Path) -> None:
    """Who knows all of an intent but its salt, 128 random bits, cannot make its hash again."""
    salts = set()
    for number in range(8):
        with Ledger.open(tmp_path / f"{number}.sqlite") as ledger:
            stored, entry = intent(ledger), ledger.entries()[-1]
        place: Any = {"sequence": 2, "previous": entry.previous, "time_utc": entry.time_utc}
        known: Any = {**entry.fields, "evidence": stored.evidence}
        assert make_entry("intent", **place, fields=known).hash != entry.hash
        salts.add(entry.fields["evidence"][SALT])
        again = {**known, "evidence": {**stored.evidence, SALT: entry.fields["evidence"][SALT]}}
        assert make_entry("intent", **place, fields=again).hash == entry.hash
    assert len(salts) == 8
    assert {len(bytes.fromhex(salt)) for salt in salts} == {16}


# "the spend is on disk ... after any crash, whether or not a release follows; nothing is counted twice"


def killed(folder: Path, how: str, numbers: list[int]) -> list[Path]:
    command = [sys.executable, str(SCRIPT), how, str(folder), *map(str, numbers)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300)
    return [folder / str(number) for number in numbers]


def require_nothing_lost_and_nothing_twice(folder: Path) -> bool:
    """After the kill, and after the round is asked for again. Returns whether the writer had come to its end."""
    log = folder / "acknowledged"
    acknowledged = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        found = [entry.kind for entry in ledger.entries()[1:]]
    told = [line[0] for line in acknowledged if line[0] != "closed"]
    assert found[: len(told)] == told
    assert len(found) - len(told) <= 1  # what was committed and not yet told

    killed_writer.write(folder)
    with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
        assert [event.steps for event in ledger.events("notes")] == list(range(1, killed_writer.ROUNDS + 1))  # type: ignore[union-attr]
        kinds = [entry.kind for entry in ledger.entries()]
        assert kinds == ["start", *["intent", "release"] * killed_writer.ROUNDS, "refusal"]
        digests = {
            entry.fields["round"]: entry.fields["sha256"] for entry in ledger.entries() if entry.kind == "release"
        }
    for line in acknowledged:
        assert line[0] != "release" or digests[line[1]] == line[2]
    return ["closed"] in acknowledged


def test_a_writer_killed_at_any_step_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    ends = [
        require_nothing_lost_and_nothing_twice(folder)
        for folder in killed(tmp_path, "step", [*range(1, 2000, 47), 1_000_000])
    ]
    assert not any(ends[:25])  # the kills did happen inside
    assert ends[-1]


@pytest.mark.parametrize(("how", "committed"), [("before-commit", 0), ("after-commit", 1)])
def test_the_commit_is_the_moment_that_counts(tmp_path: Path, how: str, committed: int) -> None:
    """Two intents, two releases, a refusal: five commits, and a death right before and right after each."""
    for number, folder in enumerate(killed(tmp_path, how, [1, 2, 3, 4, 5]), start=1):
        with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
            assert len(ledger.entries()) - 1 == number - 1 + committed
        assert not require_nothing_lost_and_nothing_twice(folder)


def test_a_writer_killed_at_any_time_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    for folder in killed(tmp_path, "time", list(range(2_000, 60_000, 5_000))):
        require_nothing_lost_and_nothing_twice(folder)


def test_an_intent_counts_without_a_release(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        intent(ledger)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.events("triage-notes") == (EVENT,)
        assert ledger.stored_release("run-1", 1, "update") is None


def test_the_same_intent_again_is_the_same_entry(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        first = intent(ledger)
        assert intent(ledger, evidence={"units": 641}) == first
        ledger.record_release(first, payload(1))
        assert intent(ledger) == first
        assert ledger.events("triage-notes") == (EVENT,)


# "they are the first that were given for the intent"


def test_the_first_bytes_win_for_ever(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.record_release(intent(ledger), b"first") == b"first"
        assert ledger.record_release(intent(ledger), b"second") == b"first"
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.record_release(intent(ledger), b"third") == b"first"
        assert ledger.stored_release("run-1", 1, "update") == b"first"


def test_bytes_that_are_no_longer_kept_are_neither_replaced_nor_forgotten(path: Path) -> None:
    with Ledger.open(path) as ledger:
        with pytest.raises(LedgerError, match="no longer kept"):
            ledger.stored_release("run-1", 1, "update")
        with pytest.raises(LedgerError, match="no longer kept"):
            ledger.record_release(intent(ledger, 1), b"other noise")


# "One process writes. Any number read meanwhile, and change nothing."


def test_a_second_writer_is_refused_and_the_first_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.1)
    with Ledger.open(path) as ledger:
        with pytest.raises(LedgerLocked, match="only writer"):
            Ledger.open(path)
        code = f"from pathlib import Path; from fedft.ledger import Ledger; Ledger.open(Path({str(path)!r}))"
        other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, text=True)
        assert "LedgerLocked" in other.stderr
        intent(ledger, 9)
    Ledger.open(path).close()


def test_readers_work_while_a_writer_runs(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from fedft.ledger import Ledger
from tests.ledger.small import intent
with Ledger.open(Path(sys.argv[1])) as ledger:
    print("open", flush=True)
    for number in range(1, 61):
        ledger.record_release(intent(ledger, number), bytes(100_000))
    sys.stdin.read()
"""
    place = tmp_path / "ledger.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(place)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdout.readline()
    seen = [0]
    while seen[-1] < 121:
        with Ledger.open(place, read_only=True) as ledger:
            seen.append(len(ledger.entries()))
        assert writer.poll() is None
    assert seen == sorted(seen)
    writer.stdin.close()
    assert writer.wait() == 0


def test_a_reader_changes_nothing_and_leaves_nothing(path: Path) -> None:
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.stored_release("run-1", 4, "update") == payload(4)
        with pytest.raises(LedgerError, match="open for reading"):
            ledger.record_refusal(run="run-1", round=9, dataset="triage-notes", reason="storage")
    before = files_of(path.parent)
    names = sorted(os.listdir(path.parent))
    read_everything(path)
    assert files_of(path.parent) == before
    assert sorted(os.listdir(path.parent)) == names


def test_a_reader_reads_what_a_crash_left_and_leaves_it_so(path: Path) -> None:
    left = crashed_copy(path)
    before = files_of(left.parent)
    with Ledger.open(left, read_only=True) as ledger:
        assert len(ledger.entries()) == 12
    assert files_of(left.parent) == before


# append: "commits an entry and its payload together and synced, or not at all"


def test_commits_are_synced(path: Path) -> None:
    with Ledger.open(path) as ledger:
        connection = ledger._writer
        assert connection.execute("PRAGMA journal_mode").fetchone() == (b"wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


@contextmanager
def page_limit(ledger: Ledger) -> Iterator[None]:
    """SQLITE_FULL, as from a disk without space."""
    (pages,) = ledger._writer.execute("PRAGMA page_count").fetchone()
    ledger._writer.execute(f"PRAGMA max_page_count = {pages}")
    yield
    ledger._writer.execute("PRAGMA max_page_count = 1073741823")


@contextmanager
def file_size_limit(ledger: Ledger) -> Iterator[None]:
    """The operating system refuses to write past the first 300 kB of any file: SQLITE_IOERR."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("limit", [page_limit, file_size_limit])
def test_a_full_disk_is_a_storage_error_and_leaves_nothing_half_written(
    path: Path, limit: Callable[[Ledger], AbstractContextManager[None]]
) -> None:
    big = random.Random(1).randbytes(4_000_000)
    with Ledger.open(path) as ledger:
        charged = intent(ledger, 5)
        before = ledger.entries()
        with limit(ledger), pytest.raises(StorageError, match="free space"):
            ledger.record_release(charged, big)
        assert ledger.entries() == before
        assert ledger.stored_release("run-1", 5, "update") is None
        assert ledger.stored_release("run-1", 3, "update") == payload(3)  # its removal was undone as well
    with Ledger.open(path) as ledger:
        assert ledger.entries() == before
        assert ledger.record_release(intent(ledger, 5), big) == big


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
            ledger.record_release(intent(ledger, 1), payload(1))
            charged = intent(ledger, 2)
            with pytest.raises(StorageError):
                ledger.record_release(charged, bytes(2_000_000))
            assert sum(map(len, files_of(tmp_path).values())) < 300_000  # nothing of it goes on to fill the disk
            filler = tmp_path / "filler"
            with pytest.raises(OSError, match="space"):
                filler.write_bytes(bytes(2_000_000))
            with pytest.raises(StorageError):
                _ = [intent(ledger, number) for number in range(3, 1000)]
            count = len(ledger.entries())
            filler.unlink()
            assert ledger.record_release(charged, payload(2)) == payload(2)
        with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger:
            assert len(ledger.entries()) == count + 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_head_that_cannot_be_written_is_a_storage_error_and_is_made_up_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Ledger.open(path) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StorageError, match="No space left"):
                intent(ledger, 5)
            with pytest.raises(StorageError, match="No space left"):
                intent(ledger, 5)
        stored = ledger.find_intent("run-1", 5, "update")
        assert intent(ledger, 5) == stored
        assert files.read_head(path) == ledger.head
        assert len(ledger.events("triage-notes")) == 5


def test_nothing_of_a_refused_value_is_in_the_message(tmp_path: Path) -> None:
    canary = "CANARY-0042 chest pain"
    wrong: list[dict[str, object]] = [
        {"run": canary},
        {"purpose": canary},
        {"dataset": canary},
        {"plan_digest": canary},
        {"evidence": {canary: 1}},
        {"evidence": {"note": [canary]}},
        {"evidence": {"note": canary * 100}},
        {"evidence": {"note": float("nan")}},
        {"round": -1},
        {"round": 1.0},
        {"round": True},
    ]
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        for change in wrong:
            with pytest.raises(LedgerError) as caught:
                intent(ledger, **change)  # type: ignore[arg-type]
            assert "CANARY" not in str(caught.value)
            assert not isinstance(caught.value, LedgerCorrupt)
        assert len(ledger.entries()) == 1
        assert isinstance(caught.value, FedftError)
