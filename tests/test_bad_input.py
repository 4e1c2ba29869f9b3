"""Bad input to a whole run: a clear error before anything is written, or a round that goes on without whoever sent it.

What a single room refuses is tested there: rows in tests/data, models in tests/model, budgets in tests/privacy,
envelopes in tests/update, checkpoints and ledgers byte by byte in tests/model/test_checkpoint.py and
tests/ledger/test_damage.py.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fedft.rounds.institution
from fedft.assembly.saved_run import open_run
from fedft.config import FederationConfig
from fedft.errors import (
    BadRecord,
    ConfigError,
    DataError,
    FedftError,
    LayoutMismatch,
    LedgerCorrupt,
    LedgerLocked,
    ModelError,
    QuorumNotReached,
    StorageError,
    UnreachableEpsilon,
)
from fedft.ledger.store import Ledger
from fedft.model.checkpoint import read_checkpoint
from fedft.privacy.events import DpSgdRound, GaussianRelease
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.simulation.run import play
from fedft.update.release import release_update
from tests.federation import federation, records_of, rows_of
from tests.simulation.test_masked_runs import EndAfter, Interrupted
from tests.tiny import tiny_bert, write_jsonl

OFF = ("privacy.mode=off", "privacy.epsilon=", "privacy.delta=", "privacy.clip_norm=")


def refused(folder: Path, error: type[FedftError], words: str, *overrides: str) -> None:
    """The federation in ``folder`` raises before its run folder is made."""
    with pytest.raises(error, match=words):
        play(federation_in(folder, *overrides), folder=folder / "run")
    assert not (folder / "run").exists()


def federation_in(folder: Path, *overrides: str) -> FederationConfig:
    return federation(folder / "data", *overrides)


def adapter_of(run: Path) -> npt.NDArray[np.float32]:
    tensors, _ = read_checkpoint(RunFolder(run).best)
    return np.asarray(tensors["adapter"])


CONFIGURATIONS: dict[str, tuple[type[FedftError], str, tuple[str, ...]]] = {
    "an-epsilon-no-noise-reaches": (UnreachableEpsilon, "raise", ("privacy.epsilon=1e-9", "privacy.delta=1e-12")),
    "delta-of-one-over-n": (ConfigError, "below 1 / number", ("privacy.delta=0.5",)),
    "rank-larger-than-the-layer": (ModelError, "rank", ("adapter.rank=17",)),
    "a-target-that-matches-nothing": (ModelError, "absent_proj", ('adapter.target_modules=["absent_proj"]',)),
    "a-path-that-is-no-model": (ModelError, "model", ("model.base=/nowhere/at/all",)),
    "another-digest": (ModelError, "digest", (f"model.sha256={'0' * 64}",)),
    "missing-file": (DataError, "found none: check the path", ("institutions.south.data=absent.jsonl",)),
    "missing-public-rows": (DataError, "found none: check the path", ("data.evaluation=absent.jsonl",)),
    "wrong-column": (BadRecord, 'field "story"', ("task.text=story",)),
    "wrong-unit-column": (BadRecord, 'field "customer"', ("data.unit=customer",)),
    "a-label-unknown-to-the-task": (BadRecord, "labels", ('task.labels=["a", "b"]',)),
    "smaller-than-one-batch": (DataError, "batch_size = 80", ("training.batch_size=80",)),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_cannot_work_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    error, words, overrides = CONFIGURATIONS[name]
    refused(tmp_path, error, words, *overrides)


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        (list, DataError, r"south\.jsonl.*empty file"),
        (lambda: [row | {"label": "a"} for row in rows_of(1)], DataError, r"south\.jsonl.*one class only"),
        (lambda: rows_of(1)[:5], DataError, r"south\.jsonl.*batch_size = 8"),
        (lambda: [*rows_of(1), {"text": ["w1"], "label": "a", "patient": "p"}], BadRecord, r"south\.jsonl, row 91"),
    ],
    ids=["empty-file", "one-class-only", "smaller-than-one-batch", "malformed-row"],
)
def test_an_institutions_bad_rows_are_refused_by_the_name_of_its_file(
    rows: Callable[[], list[dict[str, Any]]], error: type[FedftError], words: str, tmp_path: Path
) -> None:
    config = federation(tmp_path / "data", rows={"south": rows()})
    with pytest.raises(error, match=words):
        play(config, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_label_at_test_time_is_refused(tmp_path: Path) -> None:
    play(federation_in(tmp_path, *OFF, "federation.rounds=1"), folder=tmp_path / "run")
    path = write_jsonl(tmp_path / "test.jsonl", [{"text": "w1", "label": "a"}, {"text": "w1", "label": "zebra"}])
    with pytest.raises(BadRecord, match='row 2, field "label"') as caught:
        open_run(tmp_path / "run").evaluate(str(path))
    assert "zebra" not in str(caught.value)


def sending(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., bytes]:
    """North's release with ``change`` made to what is sealed; the others' as it is."""

    def release(delta: Any, **options: Any) -> bytes:
        fields = {"delta": delta, **options}
        return release_update(**(change(fields) if fields["institution"] == "north" else fields))

    return release


BAD_UPDATES: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "a-giant-norm": ("update-too-large", lambda f: f | {"delta": f["delta"] * np.float32(1e8)}),
    "a-wrong-layout": ("layout-mismatch", lambda f: f | {"layout_digest": "f" * 64}),
    "a-wrong-size": ("update", lambda f: f | {"delta": f["delta"][:-1]}),
    "another-plan": ("stale-update", lambda f: f | {"plan_digest": "f" * 64}),
    "anothers-name": ("update", lambda f: f | {"institution": "south"}),
    "nan-at-the-source": ("internal", lambda f: f | {"delta": f["delta"] * np.float32("nan")}),
}


@pytest.fixture(scope="module")
def without_north(tmp_path_factory: pytest.TempPathFactory) -> npt.NDArray[np.float32]:
    """The adapter of two rounds in the first of which north did not answer."""
    folder = tmp_path_factory.mktemp("without-north")
    play(federation_in(folder, *OFF, "institutions.north.faults.drop_rounds=[1]"), folder=folder / "run")
    return adapter_of(folder / "run")


@pytest.mark.parametrize("name", BAD_UPDATES)
def test_a_bad_update_is_refused_and_the_round_goes_on_as_if_it_had_not_come(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_north: npt.NDArray[np.float32]
) -> None:
    word, change = BAD_UPDATES[name]
    bad = sending(change)
    monkeypatch.setattr(
        fedft.rounds.institution,
        "release_update",
        lambda delta, **f: (bad if f["round"] == 1 else release_update)(delta, **f),
    )
    play(federation_in(tmp_path, *OFF), folder=tmp_path / "run")
    first, second = records_of(tmp_path / "run")
    assert (first["updates"], first["refused"]) == (["south", "west"], {"north": word})
    assert second["updates"] == ["north", "south", "west"]
    assert np.array_equal(adapter_of(tmp_path / "run"), without_north)


def test_nan_in_an_update_is_refused_by_the_coordinator_too(
    tmp_path: Path, without_north: npt.NDArray[np.float32]
) -> None:
    config = federation_in(tmp_path, *OFF, "institutions.north.faults.corrupt_rounds=[1]")
    play(config, folder=tmp_path / "run")
    assert records_of(tmp_path / "run")[0]["refused"] == {"north": "non-finite-update"}
    assert np.array_equal(adapter_of(tmp_path / "run"), without_north)


def test_when_no_update_can_be_used_the_run_stops_and_says_who_sent_what(tmp_path: Path) -> None:
    config = federation_in(tmp_path, *OFF, "federation.rounds=9", "aggregation.max_update_norm=1e-9")
    with pytest.raises(QuorumNotReached, match="north: update-too-large, south: update-too-large"):
        play(config, folder=tmp_path / "run")
    assert len(records_of(tmp_path / "run")) == 3


def test_an_adapter_from_another_base_is_refused(tmp_path: Path) -> None:
    config = federation_in(tmp_path, *OFF)
    with pytest.raises(Interrupted):
        play(config, folder=tmp_path / "run", observer=EndAfter(1))
    shutil.rmtree(tmp_path / "data" / "base")
    (tmp_path / "data" / "base").mkdir()
    tiny_bert(tmp_path / "data" / "base", seed=1)
    with pytest.raises(ModelError, match="digest"):
        open_run(tmp_path / "run")
    with pytest.raises(LayoutMismatch, match="base model"):
        play(config, folder=tmp_path / "run", resume=True)


@pytest.fixture
def uninterrupted(tmp_path: Path) -> npt.NDArray[np.float32]:
    play(federation_in(tmp_path, *OFF, "federation.rounds=3"), folder=tmp_path / "whole")
    return adapter_of(tmp_path / "whole")


def test_a_disk_that_fills_up_is_an_error_and_the_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: npt.NDArray[np.float32]
) -> None:
    config, run = federation_in(tmp_path, *OFF, "federation.rounds=3"), tmp_path / "run"
    fsync, full = os.fsync, [False]

    def filling_up(file: int) -> None:
        if full[0] and "checkpoints" in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    class Fill(Observer):
        def round_finished(self, record: Any) -> None:
            full[0] = True

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling_up)
        with pytest.raises(StorageError, match="space"):
            play(config, folder=run, observer=Fill())
    assert [record["round"] for record in records_of(run)] == [1]
    play(config, folder=run, resume=True)
    assert [record["round"] for record in records_of(run)] == [1, 2, 3]
    assert np.array_equal(adapter_of(run), uninterrupted)


def test_a_ledger_on_a_full_disk_is_a_refusal_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_intent = Ledger.record_intent

    def full_at_north(self: Ledger, **fields: Any) -> Any:
        if fields["dataset"] == "north":
            raise StorageError("expected room for the ledger, found none")
        return record_intent(self, **fields)

    monkeypatch.setattr(Ledger, "record_intent", full_at_north)
    play(federation_in(tmp_path), folder=tmp_path / "run")
    assert [record["refused"] for record in records_of(tmp_path / "run")] == [{"north": "storage"}] * 2


def test_what_an_interrupted_write_leaves_behind_is_put_right_or_replaced(
    tmp_path: Path, uninterrupted: npt.NDArray[np.float32]
) -> None:
    config, run = federation_in(tmp_path, *OFF, "federation.rounds=3"), tmp_path / "run"
    with pytest.raises(Interrupted):
        play(config, folder=run, observer=EndAfter(2))
    lines = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(lines[:-20])
    (run / ".summary.json.tmp").write_text("{")
    shutil.rmtree(run / "checkpoints" / "best")
    play(config, folder=run, resume=True)
    assert (run / "metrics.jsonl").read_bytes().startswith(lines)
    assert np.array_equal(adapter_of(run), uninterrupted)


@pytest.mark.parametrize("cut", [1, 100])
def test_a_damaged_checkpoint_is_refused_and_left_as_it_is(cut: int, tmp_path: Path) -> None:
    config, run = federation_in(tmp_path, *OFF), tmp_path / "run"
    with pytest.raises(Interrupted):
        play(config, folder=run, observer=EndAfter(1))
    file = next((run / "checkpoints" / "round-0001").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-cut])
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "institutions" not in path.parts}
    with pytest.raises(StorageError, match="round-0001"):
        play(config, folder=run, resume=True)
    assert {path: path.read_bytes() for path in kept} == kept


@pytest.fixture
def ledgers(tmp_path: Path) -> Path:
    """Where budgets are kept across runs, with something spent for each institution."""
    folder = tmp_path / "ledgers"
    folder.mkdir()
    for name in ("north", "south", "west"):
        with Ledger.open(folder / f"{name}.sqlite") as ledger:
            ledger.record_intent(
                run="earlier", round=1, purpose="update", dataset=name, plan_digest="0" * 64,
                event=GaussianRelease(3.0), evidence={},
            )  # fmt: skip
    return folder


def test_a_ledger_that_another_process_holds_is_refused(tmp_path: Path, ledgers: Path) -> None:
    config = federation_in(tmp_path, f"simulation.ledger_dir={ledgers}")
    with Ledger.open(ledgers / "south.sqlite"), pytest.raises(LedgerLocked, match=r"south\.sqlite"):
        play(config, folder=tmp_path / "run")


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[: len(raw) // 2], lambda raw: raw.replace(b"earlier", b"earlies"), lambda raw: b""],
    ids=["truncated", "altered", "emptied"],
)
def test_a_damaged_ledger_is_refused_and_never_repaired(
    damage: Callable[[bytes], bytes], tmp_path: Path, ledgers: Path
) -> None:
    file = ledgers / "south.sqlite"
    with Ledger.open(file):
        pass
    damaged = damage(file.read_bytes())
    file.write_bytes(damaged)
    with pytest.raises(LedgerCorrupt):
        play(federation_in(tmp_path, f"simulation.ledger_dir={ledgers}"), folder=tmp_path / "run")
    assert file.read_bytes() == damaged


def test_what_earlier_runs_spent_counts_and_a_spent_budget_is_a_refusal(tmp_path: Path, ledgers: Path) -> None:
    """South's earlier spending leaves room for no round under its cap; the others' owners allow more."""
    caps = ("institutions.north.epsilon=20", "institutions.south.epsilon=1", "institutions.west.epsilon=20")
    config = federation_in(tmp_path, f"simulation.ledger_dir={ledgers}", *caps)
    summary = play(config, folder=tmp_path / "run")
    assert [record["refused"] for record in records_of(tmp_path / "run")] == [{"south": "budget-exhausted"}] * 2
    assert summary["institutions"]["north"]["rounds_answered"] == 2
    with Ledger.open(ledgers / "south.sqlite", read_only=True) as ledger:
        assert ledger.events("south") == (GaussianRelease(3.0),)
    with Ledger.open(ledgers / "north.sqlite", read_only=True) as ledger:
        assert [type(event) for event in ledger.events("north")] == [GaussianRelease, DpSgdRound, DpSgdRound]
