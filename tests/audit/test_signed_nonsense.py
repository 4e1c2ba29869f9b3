"""fedft audit verify where whoever signed wrote nonsense, or had a key that is not in the roster."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedft.audit.mismatch import Mismatch
from fedft.audit.verify import verify_run
from fedft.errors import ConfigError
from fedft.identity.keys import PrivateKey
from fedft.ledger.chain import Signer
from fedft.ledger.files import head_path
from fedft.ledger.store import Ledger
from fedft.records import files as record_files
from tests.cli.commands import fedft
from tests.made_run import MadeRun

NAME = "bank-000"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[MadeRun]:
    run = MadeRun(tmp_path / "run", 1, rounds=2)
    yield run
    run.close()


def finding_of(folder: Path, **options: Any) -> Mismatch:
    found = verify_run(folder, **options).finding
    assert found is not None, "valid"
    return found


# A coordinator that signs what is no checkpoint

MANIFESTS: dict[str, Any] = {
    "no object": [1],
    "a number": 7,
    "no tensors": {"manifest": {}},
    "tensors that are none": {"tensors": "x"},
    "no digest": {"tensors": {"sha256": 3}},
    "a path": {"tensors": {"sha256": "../../../../etc/passwd"}},
    "a short digest": {"tensors": {"sha256": "0" * 63}},
}


@pytest.mark.parametrize("content", [*MANIFESTS, "no JSON", "deep JSON", "no text", "too long"])
def test_a_signed_manifest_that_is_none(made: MadeRun, content: str) -> None:
    def write(path: Path) -> None:
        other = {"no JSON": b"{", "deep JSON": b"[" * 10**6, "no text": b"\xff\xfe", "too long": b""}
        path.write_bytes(other.get(content) or json.dumps(MANIFESTS.get(content)).encode())
        if content == "too long":
            with path.open("wb") as file:
                file.truncate(2**27 + 1)

    made.play()
    spoil_checkpoint(made, "manifest.json", write)
    made.play()
    made.end()
    found = finding_of(made.folder)
    assert (found.where, found.expected) == ("checkpoints/round-0002/manifest.json", "a checkpoint's manifest")
    assert "coordinator" in found.signed_by


def spoil_checkpoint(made: MadeRun, name: str, write: Callable[[Path], None]) -> None:
    """From now on each checkpoint is rewritten before the log takes its digest."""
    digest = made.store.checkpoint_digest

    def spoilt(number: int) -> str:
        write(made.folder / "checkpoints" / f"round-{number:04d}" / name)
        return digest(number)

    made.store.checkpoint_digest = spoilt  # type: ignore[assignment,method-assign]


def header(content: bytes, length: int | None = None) -> bytes:
    return (len(content) if length is None else length).to_bytes(8, "little") + content


@pytest.mark.parametrize(
    "tensors",
    [
        b"", b"short", header(b"", 2**64 - 1), header(b"", 2**30), header(b"{}"), header(b"[]"), header(b"{" * 10**5),
        header(b"\xff"), header(b'{"adapter": 1}'), header(b'{"adapter": {"data_offsets": [0]}}'),
        header(b'{"adapter": {"data_offsets": ["a", "b"]}}'), header(b'{"adapter": {"data_offsets": [-99, 48]}}'),
        header(b'{"adapter": {"data_offsets": [0, 1e400]}}'), header(b'{"adapter": {"data_offsets": [9e99, 1]}}'),
        header(b'{"adapter": {"data_offsets": [48, 0]}}'), header(b'{"adapter": {"data_offsets": [0, 1e30]}}'),
    ],
)  # fmt: skip
def test_signed_tensors_that_are_none(made: MadeRun, tensors: bytes) -> None:
    def write(manifest: Path) -> None:
        digest = hashlib.sha256(tensors).hexdigest()
        (manifest.parent / f"tensors-{digest[:16]}.safetensors").write_bytes(tensors)
        manifest.write_text(json.dumps({"tensors": {"sha256": digest}}))

    made.play()
    spoil_checkpoint(made, "manifest.json", write)
    made.play()
    made.end()
    found = finding_of(made.folder)
    assert found.where.startswith("checkpoints/round-0002/tensors-")
    assert found.expected == "the adapter that entry 4 of audit.jsonl names"


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "adapter/../../x", "./config.json", "/etc/passwd", "a//b"])
def test_a_last_entry_whose_paths_leave_the_folder(made: MadeRun, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made.play()
    covered = {**record_files.files_of(made.folder), name: {"bytes": 0, "sha256": "0" * 64}}
    monkeypatch.setattr("fedft.rounds.trail.files_of", lambda folder: covered)
    if name.startswith("/") or "//" in name:
        with pytest.raises(Exception, match="expected files of an entry"):
            made.end()
        return
    made.end()
    found = finding_of(made.folder)
    assert (found.where, found.found) == ("audit.jsonl, entry 4", "one that leaves it")


# Ledgers


def resigned(made: MadeRun, key: PrivateKey) -> None:
    path = made.ledger_path(NAME)
    with Ledger.open(path, signer=Signer(NAME, key)):
        pass


def test_a_ledger_whose_head_is_signed_with_a_key_that_is_not_in_the_roster(made: MadeRun) -> None:
    made.play()
    made.end()
    resigned(made, PrivateKey.generate())
    found = finding_of(made.folder)
    assert (found.where, found.expected) == (f"institutions/{NAME}/ledger.sqlite.head", f"a head signed by {NAME}")
    resigned(made, made.coordinator)
    assert finding_of(made.folder) == found
    result = fedft("audit", "verify", made.folder)
    assert (result.exit_code, "NOT VALID" in result.stdout) == (1, True)
    resigned(made, made.keys[NAME])
    assert verify_run(made.folder).valid


@pytest.mark.parametrize("given", [True, False])
def test_what_is_no_ledger(made: MadeRun, tmp_path: Path, given: bool) -> None:
    made.play()
    made.end()
    home = made.ledger_path(NAME).parent
    shutil.copytree(home, tmp_path / "kept")
    path = tmp_path / "kept" / "ledger.sqlite" if given else home / "ledger.sqlite"
    options: dict[str, Any] = {"ledgers": [path]} if given else {}
    whole = path.read_bytes()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=2")
    connection.close()
    assert "found 2: use the version that wrote it" in finding(made, options)
    for content in (b"", whole[: len(whole) // 2], bytes(4096), b"SQLite format 3\0" + bytes(4080)):
        path.write_bytes(content)
        assert finding(made, options)
    with path.open("wb") as file:
        file.truncate(2**30)
    assert finding(made, options)
    path.write_bytes(whole)
    head_path(path).write_bytes(b"\xff" * 2**20)
    assert finding(made, options)
    head_path(path).unlink()
    assert "expected a head beside" in finding(made, options)
    path.unlink()
    if given:
        with pytest.raises(ConfigError, match="found none"):
            verify_run(made.folder, **options)
    else:
        assert finding(made, options)


def finding(made: MadeRun, options: dict[str, Any]) -> str:
    found = verify_run(made.folder, **options).finding
    assert found is not None
    assert "ledger.sqlite" in found.where
    return found.as_text()


def test_a_ledger_that_is_not_there_is_said(made: MadeRun) -> None:
    made.play()
    made.end()
    shutil.rmtree(made.ledger_path(NAME).parent)
    found = finding_of(made.folder)
    assert found.where == f"institutions/{NAME}/ledger.sqlite"
