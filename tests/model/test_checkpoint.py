"""A checkpoint is whole or not there: killed at any step, on a full disk, truncated or altered."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import StorageError
from fedft.model.checkpoint import read_checkpoint, storage_errors, whole_folder, write_checkpoint

OLD = {"adapter": np.arange(5, dtype=np.float32)}
NEW = {"adapter": np.arange(9, dtype=np.float32) - 4}


def held(folder: Path) -> str | None:
    """Which of the two checkpoints ``folder`` holds, None for no folder."""
    if not folder.exists():
        return None
    tensors, manifest = read_checkpoint(folder)
    expected = {"old": OLD, "new": NEW}[manifest["name"]]
    assert np.array_equal(tensors["adapter"], expected["adapter"])
    return str(manifest["name"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "best", tensors=OLD, manifest={"name": "old"})
    return tmp_path / "best"


@pytest.mark.parametrize(
    "array",
    [
        np.float32(2.5),
        np.zeros((), np.float64),
        np.zeros((0, 3), np.float32),
        np.arange(6, dtype=np.float64).reshape(2, 3).T,
        np.arange(6, dtype=np.float32)[::-2],
        np.array([2**64 - 1], np.uint64),
        np.array([-(2**63)], np.int64),
        np.array([True, False]),
        np.array([np.nan, np.inf, -0.0, 5e-324]),
        np.arange(4, dtype=np.float16),
    ],
)
def test_any_numeric_array_comes_back_bit_for_bit(tmp_path: Path, array: Any) -> None:
    write_checkpoint(tmp_path / "one", tensors={"a/b.c": array}, manifest={})
    found = read_checkpoint(tmp_path / "one")[0]["a/b.c"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_the_manifest_comes_back(tmp_path_factory: pytest.TempPathFactory, manifest: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("manifest") / "one"
    write_checkpoint(folder, tensors={}, manifest=manifest)
    assert read_checkpoint(folder) == ({}, manifest)


def test_what_json_has_no_number_for_is_null_in_the_manifest(folder: Path) -> None:
    write_checkpoint(folder, tensors={}, manifest={"loss": math.nan, "of": [{"perplexity": math.inf}], "rows": 2.0})
    assert read_checkpoint(folder) == ({}, {"loss": None, "of": [{"perplexity": None}], "rows": 2.0})
    assert not {"NaN", "Infinity"} & set(re.findall(r"\w+", (folder / "manifest.json").read_text()))


def test_replacing_leaves_no_old_file_behind(folder: Path) -> None:
    write_checkpoint(folder, tensors=NEW, manifest={"name": "new"})
    write_checkpoint(folder, tensors=NEW, manifest={"name": "new"})
    assert held(folder) == "new"
    assert len(list(folder.iterdir())) == 2
    assert [path.name for path in folder.parent.iterdir()] == ["best"]


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
import fedft.model.checkpoint as checkpoint

folder, last = Path(sys.argv[1]), int(sys.argv[2])
count = 0

def guard(module, name):
    real = getattr(module, name)
    def step(*args, **kwargs):
        global count
        count += 1
        if count > last:
            os._exit(9)
        return real(*args, **kwargs)
    setattr(module, name, step)

for module, name in ((os, "fsync"), (os, "open"), (Path, "replace"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir"), (Path, "open")):
    guard(module, name)
checkpoint.write_checkpoint(folder, tensors={"adapter": np.arange(9, dtype=np.float32) - 4}, manifest={"name": "new"})
print(count)
"""  # noqa: E501


def kill_after(steps: int, folder: Path) -> int:
    command = [sys.executable, "-c", KILLED, str(folder), str(steps)]
    return subprocess.run(command, check=False, capture_output=True).returncode


@pytest.mark.parametrize("exists", [True, False], ids=["replacing", "new"])
def test_a_process_killed_at_any_step_leaves_the_old_checkpoint_or_the_new_one(tmp_path: Path, exists: bool) -> None:
    seen, finished, steps = set(), False, 0
    while not finished:
        folder = tmp_path / f"after-{steps}"
        if exists:
            write_checkpoint(folder, tensors=OLD, manifest={"name": "old"})
        finished = kill_after(steps, folder) == 0
        seen.add(held(folder))
        write_checkpoint(folder, tensors=NEW, manifest={"name": "new"})
        assert held(folder) == "new", "what a killed process left must not stand in the way"
        assert len(list(folder.iterdir())) == 2
        steps += 1
    assert seen == {"old" if exists else None, "new"}
    assert steps > 5


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_an_error_and_the_old_checkpoint_stays(
    folder: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, 0

    def fail_at_the_second(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= 2:
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", fail_at_the_second)
    message = "Input/output error" if number == errno.EIO else "no space left"
    with pytest.raises(StorageError, match=f"found {message}: free space"):
        write_checkpoint(folder, tensors=NEW, manifest={"name": "new"})
    calls = 0
    with pytest.raises(StorageError, match=message):
        write_checkpoint(folder.with_name("other"), tensors=NEW, manifest={"name": "new"})
    monkeypatch.undo()
    assert held(folder) == "old"
    assert [path.name for path in folder.parent.iterdir()] == ["best"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_device_that_is_really_full(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="no space left"),
        storage_errors(tmp_path),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"0")


def test_a_path_that_cannot_be_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Not a directory"):
        write_checkpoint(tmp_path / "file" / "best", tensors=NEW, manifest={})
    with pytest.raises(StorageError, match="Not a directory"):
        write_checkpoint(tmp_path / "file", tensors=NEW, manifest={})
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("name", ["tensors", "manifest"])
def test_every_altered_byte_is_found(folder: Path, name: str) -> None:
    path = next(folder.glob(f"{name}*"))
    whole = path.read_bytes()
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= 0x01
        path.write_bytes(altered)
        try:
            tensors, manifest = read_checkpoint(folder)
        except StorageError:
            continue
        assert whole[position : position + 1].isspace(), f"byte {position} of {name} was altered and not found"
        assert (held(folder), list(tensors), manifest) == ("old", ["adapter"], {"name": "old"})


@pytest.mark.parametrize("name", ["tensors", "manifest"])
def test_a_truncated_file_is_found(folder: Path, name: str) -> None:
    path = next(folder.glob(f"{name}*"))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StorageError, match="use another checkpoint"):
            read_checkpoint(folder)


def test_a_longer_file_is_found(folder: Path) -> None:
    path = next(folder.glob("tensors*"))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StorageError, match="instead of"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["tensors", "manifest"])
def test_a_missing_file_is_found(folder: Path, name: str) -> None:
    next(folder.glob(f"{name}*")).unlink()
    with pytest.raises(StorageError, match="checkpoint"):
        read_checkpoint(folder)


def test_a_folder_that_holds_no_checkpoint_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StorageError, match="found none that can be read"):
            read_checkpoint(folder)


@pytest.mark.parametrize("content", ["[]", "1", "null", '{"sha256": 1, "tensors": []}'])
def test_a_manifest_of_another_kind_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(StorageError, match="a manifest that is no checkpoint's"):
        read_checkpoint(folder)


def test_a_newer_format_is_refused_by_name(folder: Path) -> None:
    body = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(body | {"label": "fedft/v2/checkpoint"}))
    with pytest.raises(StorageError, match="use the version that wrote it"):
        read_checkpoint(folder)


def test_a_folder_that_cannot_be_moved_into_place_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "kept").touch()
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == ".out.partial":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError, match="Input/output error"), whole_folder(folder) as target:
        (target / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_set_aside_by_a_killed_process_is_put_back(tmp_path: Path) -> None:
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "kept").touch()
    with pytest.raises(ValueError, match="stop"), whole_folder(tmp_path / "out"):
        raise ValueError("stop")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]
