"""What a coordinator leaves on disk: whole or not there, and put right when a run goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedft.errors import ConfigError, StorageError
from fedft.model.checkpoint import read_checkpoint
from fedft.rounds.run_folder import KEPT_ROUNDS, RunFolder


def tensors(round: int) -> dict[str, Any]:
    return {"adapter": np.full(3, round, np.float32)}


def records(last: int) -> list[dict[str, Any]]:
    return [{"round": number, "updates": ["north"]} for number in range(1, last + 1)]


def commit(store: RunFolder, *rounds: int) -> None:
    for number in rounds:
        store.commit(number, tensors=tensors(number), manifest={"round": number, "records": records(number)})


def lines(store: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store.path / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_created_once(tmp_path: Path) -> None:
    store = RunFolder(tmp_path / "deep" / "run")
    store.create({"run": "tiny/1"})
    assert store.config() == {"run": "tiny/1"}
    with pytest.raises(ConfigError, match="resume"):
        store.create({"run": "tiny/2"})
    assert store.config() == {"run": "tiny/1"}


def test_a_folder_that_is_no_run_or_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none at"):
        RunFolder(tmp_path).config()
    (tmp_path / "config.json").write_text('{"run": ')
    with pytest.raises(StorageError, match="damaged"):
        RunFolder(tmp_path).config()


def test_a_committed_round_comes_back(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    assert store.latest() is None
    commit(store, 1, 2)
    found = store.latest()
    assert found is not None
    assert np.array_equal(found[0]["adapter"], tensors(2)["adapter"])
    assert found[1]["records"] == records(2) == lines(store)


def test_the_newest_rounds_alone_are_kept_also_past_the_width_of_their_names(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    commit(store, 1, 9998, 9999, 10000, 10001)
    kept = sorted(path.name for path in store.checkpoints.iterdir())
    assert kept == ["round-10000", "round-10001"]
    assert len(kept) == KEPT_ROUNDS
    found = store.latest()
    assert found is not None
    assert found[1]["round"] == 10001


def test_the_state_before_an_institutions_first_update_is_kept_while_a_round_without_quorum_is_none(
    tmp_path: Path,
) -> None:
    store, told = RunFolder(tmp_path), []
    for number in range(1, 8):
        updates = ["north"] if number < 4 else ["late", "north"]
        told.append({"round": number, "updates": updates, "quorum": number != 4})
        store.commit(number, tensors=tensors(number), manifest={"round": number, "records": told})
    assert sorted(path.name for path in store.checkpoints.iterdir()) == ["round-0004", "round-0006", "round-0007"]


@pytest.mark.parametrize(
    "left", [b"", b'{"round": 1, "upd', b'{"round": 7}\n', b'{"round": 1}\n{"round": 2}\n{"round": 3}\n{"round": 3}\n']
)
def test_whatever_a_crash_left_of_the_metrics_is_put_right(left: bytes, tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    commit(store, 1, 2, 3)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(left)
    store.latest()
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    commit(store, 4)
    assert lines(store) == records(4)


def test_a_round_interrupted_before_its_rename_never_was(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    commit(store, 1)
    shutil.copytree(store.checkpoints / "round-0001", store.checkpoints / ".round-0002.partial")
    found = store.latest()
    assert found is not None
    assert found[1]["round"] == 1
    commit(store, 2)
    assert not (store.checkpoints / ".round-0002.partial").exists()


@pytest.mark.parametrize("place", ["checkpoints", "metrics.jsonl"])
def test_a_full_disk_is_an_error_and_what_was_finished_stays(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RunFolder(tmp_path)
    commit(store, 1)
    fsync = os.fsync

    def full(file: int) -> None:
        if place in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"[Nn]o space left"):
            commit(store, 2)
    finished = 1 if place == "checkpoints" else 2
    found = store.latest()
    assert found is not None
    assert found[1]["round"] == finished
    assert lines(store) == records(finished)
    commit(store, *range(finished + 1, 4))
    assert lines(store) == records(3)


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_a_text_is_the_old_or_the_new_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunFolder(tmp_path)
    write = store.create if name == "config.json" else store.write_summary
    store.write_summary({"old": 1})

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(StorageError, match=name):
            write({"new": 1})
    assert (tmp_path / "config.json").exists() is False
    assert json.loads((tmp_path / "summary.json").read_text()) == {"old": 1}
    write({"new": 1})
    assert json.loads((tmp_path / name).read_text()) == {"new": 1}


def test_the_best_replaces_the_best(tmp_path: Path) -> None:
    store = RunFolder(tmp_path)
    for number in (1, 2):
        store.write_best(tensors=tensors(number), manifest={"round": number})
    found, about = read_checkpoint(store.best)
    assert about == {"round": 2}
    assert np.array_equal(found["adapter"], tensors(2)["adapter"])
    assert store.latest() is None, "the best is no round to go on from"


def test_a_file_in_the_folders_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StorageError, match="expected to write"):
        RunFolder(tmp_path / "run").create({})
