"""Files that are whole or not there: a checkpoint is tensors and a manifest, written atomically, verified when read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedft import strict_json
from fedft.durable import sync, write_whole
from fedft.errors import StorageError

CHECKPOINT_LABEL = "fedft/v1/checkpoint"
MANIFEST = "manifest.json"

Array = npt.NDArray[Any]


def write_checkpoint(folder: Path, *, tensors: Mapping[str, Array], manifest: Mapping[str, Any]) -> None:
    """Write numeric arrays of any shape and dtype, and ``manifest``, which must be JSON; NaN and infinity become null.

    Guarantee: at every moment, also after kill -9 or a power cut, ``folder`` reads as the old checkpoint or as the new
    one; a folder that was not there before appears with everything in it. Raises StorageError when the disk refuses.

    The tensors' file is named by its digest and the manifest names it, so that replacing the manifest is the one step
    that counts.
    """
    payload = save({name: np.array(value, order="C") for name, value in tensors.items()})
    digest = hashlib.sha256(payload).hexdigest()
    about = {"sha256": digest, "bytes": len(payload)}
    body = {"label": CHECKPOINT_LABEL, "tensors": about, "manifest": strict_json.finite(manifest)}
    sealed = strict_json.dumps({"sha256": _seal(body), **body}, indent=1).encode()

    def fill(target: Path) -> None:
        write_whole(target / _tensors_name(digest), payload)
        write_whole(target / MANIFEST, sealed)

    if not folder.is_dir():
        with whole_folder(folder) as target:
            fill(target)
        return
    with storage_errors(folder):
        fill(folder)
        sync(folder)
        for other in folder.glob("tensors-*.safetensors*"):
            if other.name != _tensors_name(digest):
                other.unlink()


def read_checkpoint(folder: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and manifest. Raises StorageError when there is none, or when a byte of it is missing or altered."""
    try:
        sealed = json.loads((folder / MANIFEST).read_bytes())
        seal, body = sealed.pop("sha256"), sealed
        expected = body["tensors"]["sha256"]
    except OSError as error:
        raise StorageError(f"expected a checkpoint in {folder}, found none that can be read: check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, "a manifest that is no checkpoint's") from error
    if body.get("label") != CHECKPOINT_LABEL:
        raise StorageError(
            f"expected a {CHECKPOINT_LABEL} in {folder}, found another format: use the version that wrote it"
        )
    if seal != _seal(body):
        raise _damaged(folder, "an altered manifest")
    try:
        payload = (folder / _tensors_name(expected)).read_bytes()
    except OSError as error:
        raise _damaged(folder, "no file of tensors that can be read") from error
    if len(payload) != body["tensors"]["bytes"]:
        raise _damaged(folder, f"{len(payload)} bytes of tensors instead of {body['tensors']['bytes']}")
    if hashlib.sha256(payload).hexdigest() != expected:
        raise _damaged(folder, "altered tensors")
    try:
        return load(payload), dict(body["manifest"])
    except SafetensorError as error:
        raise _damaged(folder, "tensors in another format") from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill, moved to ``folder`` when all is written and synced; on an error nothing has changed.

    A folder already there is replaced; kill -9 between the two renames leaves it beside, and the next call puts it
    back. Raises StorageError when the disk refuses, or when a file has the name.
    """
    partial, old = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")
    with storage_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        _put_back(old, folder)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            yield partial
            for path in partial.iterdir():
                sync(path)
            sync(partial)
            if folder.exists():
                folder.rename(old)
            partial.rename(folder)
            sync(folder.parent)
        finally:
            _put_back(old, folder)
            shutil.rmtree(partial, ignore_errors=True)


def _put_back(old: Path, folder: Path) -> None:
    """The folder of before: back where it was if nothing has taken its place, gone otherwise."""
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError, or safetensors' form of one, into a StorageError that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        problem = "no space left" if full else str(getattr(error, "strerror", None) or error)
        raise StorageError(
            f"expected to write {path}, found {problem}: free space or correct the path; "
            "what was there before is unchanged"
        ) from error


def _tensors_name(digest: str) -> str:
    return f"tensors-{digest[:16]}.safetensors"


def _seal(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _damaged(folder: Path, found: str) -> StorageError:
    return StorageError(f"expected the checkpoint in {folder} as it was written, found {found}: use another checkpoint")
