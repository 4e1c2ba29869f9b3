"""The coordinator's log on disk: what append returned for stays, what the head does not count goes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedft.errors import FederationError, IdentityError, RecordError, StorageError
from fedft.identity.keys import PrivateKey
from fedft.records.heads import LogHead
from fedft.records.log import HEAD, LOG, AuditLog, has_ended, read_entries

KEY = PrivateKey.generate()
DIGEST = "d" * 64
START: dict[str, Any] = {
    "run": "run-1", "coordinator": KEY.public.text, "version": "0.1.0",
    **dict.fromkeys(("code", "packages", "config", "terms", "base_model", "layout"), DIGEST),
}  # fmt: skip
ROSTER: dict[str, Any] = {"keys": {}, "sha256": ""}
END: dict[str, Any] = {"rounds": 0, "best_round": 0, "heads": {}, "files": {}}


def opened(folder: Path, *, run: str = "run-1", key: PrivateKey = KEY) -> AuditLog:
    return AuditLog.open(folder, run=run, key=key)


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    made = opened(tmp_path)
    made.append("start", START)
    made.append("roster", ROSTER)
    return made


def test_what_was_appended_is_there_under_its_head(log: AuditLog) -> None:
    again = opened(log.folder)
    assert (again.count, again.rounds, again.ended, again.note) == (2, 0, False, log.note)
    assert LogHead.open((log.folder / HEAD).read_text(), KEY.public).count == 2
    assert [entry.kind for entry in read_entries(log.folder / LOG)] == ["start", "roster"]
    again.append("end", END)
    assert has_ended(log.folder)


@pytest.mark.parametrize("rest", [b"{", b'{"kind":"round"}\n', b"\x00" * 100])
def test_what_the_head_does_not_count_is_cut_off(log: AuditLog, rest: bytes) -> None:
    """A death between the entry and its head."""
    with (log.folder / LOG).open("ab") as file:
        file.write(rest)
    again = opened(log.folder)
    assert again.count == 2
    entry = again.append("end", END)
    assert list(read_entries(log.folder / LOG))[-1] == entry


def test_a_whole_entry_that_was_not_counted_is_written_anew(log: AuditLog, tmp_path: Path) -> None:
    older = (log.folder / HEAD).read_bytes()
    first = log.append("end", END, time_utc="2026-01-31T23:59:58Z")
    (log.folder / HEAD).write_bytes(older)
    again = opened(log.folder)
    assert not again.ended
    assert again.append("end", END, time_utc="2026-01-31T23:59:58Z") == first


def test_a_death_before_the_first_head_begins_anew(tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(b'{"kind":')
    log = opened(tmp_path)
    log.append("start", START)
    assert opened(tmp_path).count == 1


@pytest.mark.parametrize("damage", ["changed", "shorter", "no-head", "another-head"])
def test_a_log_that_does_not_hold_is_not_gone_on_with(log: AuditLog, damage: str, tmp_path: Path) -> None:
    path = log.folder / LOG
    if damage == "changed":
        path.write_bytes(path.read_bytes().replace(b"0.1.0", b"0.1.1"))
    elif damage == "shorter":
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    elif damage == "no-head":
        (log.folder / HEAD).unlink()
    else:
        (log.folder / HEAD).write_text(LogHead("run-1", 2, log.last["start"].hash).signed(KEY))
    before = {file.name: file.read_bytes() for file in log.folder.iterdir()}
    with pytest.raises(RecordError):
        opened(log.folder)
    assert {file.name: file.read_bytes() for file in log.folder.iterdir()} == before


def test_another_run_or_key_is_refused(log: AuditLog) -> None:
    with pytest.raises(FederationError):
        opened(log.folder, run="run-2")
    with pytest.raises(IdentityError):
        opened(log.folder, key=PrivateKey.generate())


def test_nothing_follows_the_end(log: AuditLog) -> None:
    log.append("end", END)
    with pytest.raises(RecordError, match="nothing after"):
        log.append("roster", ROSTER)
    assert opened(log.folder).ended


@pytest.mark.parametrize("file", [LOG, HEAD])
def test_a_full_disk_is_an_error_and_what_was_there_counts(
    log: AuditLog, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def full(handle: int) -> None:
        if file in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="[Nn]o space left"):
            log.append("end", END)
    assert not log.ended
    assert not opened(log.folder).ended
    log.append("end", END)
    assert opened(log.folder).ended


def test_a_copy_of_the_folder_is_the_same_log(log: AuditLog, tmp_path: Path) -> None:
    shutil.copytree(log.folder, tmp_path / "copy")
    assert opened(tmp_path / "copy").note == log.note
