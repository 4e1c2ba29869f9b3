"""What a coordinator leaves on disk, in an order that survives a crash at any instant.

::

    RUN/config.json               the resolved configuration
    RUN/metrics.jsonl             one line per finished round
    RUN/checkpoints/round-0007/   the state after round 7; the last two are kept, of each institution the one before its
                                  first update, and the one that the run began with
    RUN/checkpoints/best/         the adapter that did best on the coordinator's own rows
    RUN/audit.jsonl, audit.head   the audit log and its signed head (fedft/records)
    RUN/secagg.json               under secure aggregation: its setup, and whom the newest question named
    RUN/summary.json              when the run has ended
    RUN/lock                      held by who plays the run

All of it is strict JSON: a figure that is not finite is null. Of epsilon, epsilon_infinite says so in words.

Guarantee: a round counts as finished exactly when its checkpoint is in place, which happens in one rename; the lines of
metrics.jsonl follow from the checkpoint and are put right on resumption.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy.typing as npt

from fedft import strict_json
from fedft.durable import write_whole
from fedft.errors import ConfigError, FederationError, StorageError
from fedft.model.checkpoint import MANIFEST, read_checkpoint, write_checkpoint
from fedft.records.lineage import Parent, first_sums

Tensors = Mapping[str, npt.NDArray[Any]]
KEPT_ROUNDS = 2
LOCK = "lock"
LOCK_WAIT_S = 2.0


class RunFolder:
    """Raises StorageError when the disk does not do as it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best"

    def create(self, config: Mapping[str, Any]) -> None:
        """A new run. Raises ConfigError when the folder already holds one: resuming has to be asked for."""
        if (self.path / "config.json").exists():
            raise ConfigError(
                f"expected a new folder for the run, found one in {self.path}: choose another, or resume with --resume"
            )
        _guarded(lambda: self.path.mkdir(parents=True, exist_ok=True), self.path)
        self._write_text("config.json", strict_json.dumps(config, indent=2) + "\n")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Play the run, which nobody else does meanwhile: two would ask for two different rounds.

        The lock ends with the process that holds it. Whoever asks is_played holds it too, for an instant: one that is
        taken is tried again for LOCK_WAIT_S. Raises FederationError when another plays it.
        """
        _guarded((self.path / LOCK).touch, self.path)
        with (self.path / LOCK).open("rb") as lock:
            end = time.monotonic() + LOCK_WAIT_S
            while not _held(lock, fcntl.LOCK_EX):
                if time.monotonic() > end:
                    raise FederationError(
                        f"expected nobody to play the run in {self.path}, found that another process does: wait for it"
                    )
                time.sleep(0.02)
            yield

    @property
    def is_played(self) -> bool:
        """Whether a process plays the run now. Changes nothing there."""
        try:
            with (self.path / LOCK).open("rb") as lock:
                return not _held(lock, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def config(self) -> dict[str, Any]:
        """Raises ConfigError when this is no run folder."""
        file = self.path / "config.json"
        if not file.is_file():
            raise ConfigError(f"expected a run's folder, with config.json, found none at {self.path}: check the path")
        try:
            body = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise StorageError(f"expected JSON in {file}, found it damaged: restore it, or start a new run") from error
        return dict(body)

    def parent(self) -> Parent | None:
        """The run whose state this one goes on from. Raises StorageError."""
        return Parent.of_config(self.config()) if (self.path / "config.json").is_file() else None

    def config_bytes(self) -> bytes:
        """config.json as it is. Raises StorageError."""
        try:
            return (self.path / "config.json").read_bytes()
        except OSError as error:
            raise StorageError(
                f"expected a run's config.json in {self.path}, found {error.strerror}: restore it"
            ) from error

    def commit(self, round: int, *, tensors: Tensors, manifest: Mapping[str, Any]) -> None:
        """Finish a round: its checkpoint, then its line of metrics, then make room."""
        write_checkpoint(self._round_path(round), tensors=tensors, manifest=manifest)
        records: Sequence[Mapping[str, Any]] = manifest["records"]
        if records:
            _guarded(lambda: self._append(records[-1]), self.path)
        rounds, parent = self._rounds(), self.parent()
        known, base = ({}, 0) if parent is None else (parent.contributed, parent.round)
        kept = {base, *(number - 1 for name, number in first_sums(records).items() if name not in known)}
        for old in rounds[:-KEPT_ROUNDS]:
            if old not in kept:
                shutil.rmtree(self._round_path(old), ignore_errors=True)

    def write_best(self, *, tensors: Tensors, manifest: Mapping[str, Any]) -> None:
        """Follows from the state of a finished round, like metrics.jsonl."""
        write_checkpoint(self.best, tensors=tensors, manifest=manifest)

    def latest(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None:
        """State after the last finished round, metrics.jsonl put right; None before the first. Raises StorageError."""
        rounds, parent = self._rounds(), self.parent()
        if not rounds:
            if parent is not None and parent.round:
                place = self._round_path(parent.round)
                raise StorageError(f"expected the state that this run begins with in {place}, found none: restore it")
            return None
        tensors, manifest = read_checkpoint(self._round_path(rounds[-1]))
        if parent is not None and rounds[-1] == parent.round:
            tensors, manifest = _as_start(tensors, manifest, str(self.config()["run"]))
        lines = "".join(strict_json.dumps(record) + "\n" for record in manifest["records"])
        self._write_text("metrics.jsonl", lines)
        return tensors, manifest

    def checkpoint_digest(self, round: int) -> str:
        """SHA-256 of the manifest, which names the tensors' digest. Raises StorageError."""
        manifest = self._round_path(round) / MANIFEST
        try:
            return hashlib.sha256(manifest.read_bytes()).hexdigest()
        except OSError as error:
            raise StorageError(f"expected to read {manifest}, found {error.strerror}: restore it") from error

    def progress(self) -> tuple[int, dict[str, Any] | None]:
        """Rounds that are finished, and the newest whole line of metrics.jsonl. Changes nothing: others may write."""
        rounds, file, last = self._rounds(), self.path / "metrics.jsonl", None
        for line in file.read_text().splitlines() if file.exists() else ():
            with suppress(ValueError):  # cut off
                last = dict(json.loads(line))
        return (rounds[-1] if rounds else 0), last

    def summary(self) -> dict[str, Any]:
        """Of a run that has ended. Raises StorageError."""
        try:
            return dict(json.loads((self.path / "summary.json").read_text()))
        except (OSError, ValueError) as error:
            raise StorageError(f"expected JSON in {self.path / 'summary.json'}, found none: restore it") from error

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        self._write_text("summary.json", strict_json.dumps(summary, indent=2) + "\n")

    def masking(self) -> dict[str, Any] | None:
        """What write_masking wrote last; None before the first. Raises StorageError."""
        file = self.path / "secagg.json"
        if not file.exists():
            return None
        try:
            return dict(json.loads(file.read_text()))
        except (OSError, ValueError) as error:
            raise StorageError(f"expected JSON in {file}, found it damaged: restore it") from error

    def write_masking(self, state: Mapping[str, Any]) -> None:
        self._write_text("secagg.json", strict_json.dumps(state, indent=2) + "\n")

    def _rounds(self) -> list[int]:
        return sorted(int(path.name.removeprefix("round-")) for path in self.checkpoints.glob("round-[0-9]*[0-9]"))

    def _round_path(self, round: int) -> Path:
        return self.checkpoints / f"round-{round:04d}"

    def _append(self, record: Mapping[str, Any]) -> None:
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(strict_json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _write_text(self, name: str, text: str) -> None:
        """Whole or not at all."""
        target = self.path / name
        _guarded(lambda: write_whole(target, text.encode()), target)


def _as_start(
    tensors: dict[str, npt.NDArray[Any]], manifest: dict[str, Any], run: str
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Another run's state as the one that ``run`` begins with: its records are not this run's, and what is best is
    looked for anew."""
    fresh = {"best_round": 0, "best_task": 0, "best_value": None, "without_better": 0, "without_quorum": 0}
    kept = {name: value for name, value in manifest.items() if name != "audit"}
    return {**tensors, "best": tensors["adapter"]}, {**kept, **fresh, "run": run, "records": [], "finished": None}


def _held(lock: IO[bytes], kind: int) -> bool:
    """Whether it is ours now, until it is closed."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _guarded(action: Callable[[], None], where: Path) -> None:
    try:
        action()
    except OSError as error:
        raise StorageError(
            f"expected to write {where}, found {error.strerror or type(error).__name__}: make room or choose another "
            "folder; what was finished before is intact"
        ) from error
