"""The files of a run against its audit log: configuration, metrics, checkpoints, and all others at its end."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fedft.audit.bundle_names import is_packed
from fedft.audit.mismatch import Broken
from fedft.audit.verify_log import LogStory, RoundFacts
from fedft.records.files import GROWING, all_files, digest_of
from fedft.records.lineage import PARENT, is_summed
from fedft.records.log import HEAD, LOG

KEPT_ROUNDS = 2
"""Of the newest rounds the checkpoints are there."""
_MAX_LINE = 64 * 2**20
"""Bytes of config.json, or of a line of metrics.jsonl."""
_MAX_JSON = 2 * _MAX_LINE
"""Bytes of a checkpoint's manifest, or of what a file of tensors says of itself: read whole."""


def check_config(folder: Path, story: LogStory) -> None:
    path = folder / "config.json"
    if path.is_file() and path.stat().st_size > _MAX_LINE:
        raise Broken(path.name, f"at most {_MAX_LINE} bytes", f"{path.stat().st_size}", story.signer)
    _require(folder, "config.json", str(story.start["config"]), f"{LOG}, entry 1", story)
    said = json.loads(path.read_bytes()).get(PARENT)
    if said != (None if story.parent is None else story.parent.as_json()):
        raise Broken(path.name, f"the run that entry 2 of {LOG} goes on from, or none", "another", story.signer)


def check_metrics(folder: Path, story: LogStory) -> None:
    """Line by line. Of a run that has not ended the last line may be missing, cut off, or ahead of its entry."""
    path, number = folder / "metrics.jsonl", 0
    with _opened(path, story) as file:
        while line := file.readline(_MAX_LINE):
            number += 1
            if number > len(story.rounds):
                break
            facts = story.rounds[number - 1]
            if hashlib.sha256(line.rstrip(b"\n")).hexdigest() != facts.record or not line.endswith(b"\n"):
                if story.end is None and number == len(story.rounds) and not line.endswith(b"\n"):
                    return
                where, said = f"{path.name}, line {number}", f"the line that entry {facts.sequence} of {LOG} names"
                raise Broken(where, said, "another", story.signer)
    ended = story.end is not None
    if number > len(story.rounds) + (not ended) or number < len(story.rounds) - (not ended):
        found = "more" if number > len(story.rounds) else f"{number}"
        raise Broken(path.name, f"{len(story.rounds)} lines, one a round", found, story.signer)


def check_checkpoints(folder: Path, story: LogStory) -> None:
    home, there = folder / "checkpoints", set()
    for path in sorted(home.glob("round-*")):
        number = int(path.name[6:]) if path.name[6:].isdigit() and len(path.name) < 20 else 0
        if story.end is None and number == story.newest + 1:
            continue  # died before its entry
        if number and number == story.base:
            _check_base(folder, path.name, story)
            continue
        if not story.base < number <= story.newest:
            said = f"a round from {story.base + 1} to {story.newest}"
            raise Broken(f"checkpoints/{path.name}", said, "another", story.signer)
        there.add(number)
        _check_checkpoint(folder, path.name, story.rounds[number - story.base - 1], story)
    for number in range(max(story.base + 1, story.newest - KEPT_ROUNDS + 1), story.newest + 1):
        if number not in there:
            said = f"the state that entry {story.rounds[number - story.base - 1].sequence} of {LOG} names"
            raise Broken(f"checkpoints/round-{number:04d}", said, "none", story.signer)


def check_end(folder: Path, story: LogStory, *, packed: bool = False) -> list[str]:
    """Every file that the last entry covers; in words what is there beside them.

    packed: the folder comes from an archive, which leaves files out by their names; what it left out is in the words.
    """
    if story.end is None:
        return []
    where, covered, left_out = f"{LOG}, entry {len(story.hashes)}", story.end["files"], []
    for name, file in covered.items():
        if ".." in PurePosixPath(name).parts or "." in name.split("/"):
            raise Broken(where, "paths in the run's folder", "one that leaves it", story.signer)
        if packed and not is_packed(name):
            left_out.append(name)
            continue
        growing = PurePosixPath(name).name in GROWING
        _require(folder, name, file["sha256"], where, story, length=file["bytes"], growing=growing)
    _check_best(folder, story)
    beside = [
        words
        for path in all_files(folder)
        if (words := _not_covered(path, path.relative_to(folder).as_posix(), covered)) is not None
    ]
    return [*beside, f"left out of the archive: {listed(left_out)}"] if left_out else beside


def listed(names: Sequence[str]) -> str:
    """The first three, and how many more."""
    more = [f"and {len(names) - 3:,} more"] if len(names) > 3 else []
    return ", ".join([*(ascii(name)[1:-1] for name in names[:3]), *more])


def _not_covered(path: Path, name: str, covered: dict[str, Any]) -> str | None:
    if name in (LOG, HEAD):
        return None
    if name not in covered:
        return name
    size = int(covered[name]["bytes"])
    return f"{name} from byte {size} on" if path.stat().st_size > size else None


def _check_base(folder: Path, name: str, story: LogStory) -> None:
    """The state of another run that this one begins with: whose it is, and whose updates are in it."""
    parent, home = story.parent, f"checkpoints/{name}"
    if parent is None:
        return
    _check_tensors(folder, home, parent.checkpoint, f"{LOG}, entry 2", story)
    try:
        told = json.loads((folder / home / "manifest.json").read_bytes())["manifest"]
        whose = told["run"], told["round"]
        inside = {(who, one["round"]) for one in filter(is_summed, told["records"]) for who in one["updates"]}
    except (LookupError, TypeError, AttributeError):
        raise Broken(f"{home}/manifest.json", "a checkpoint's manifest", "something else", story.signer) from None
    if whose != (parent.run, parent.round):
        said = f"the state after round {parent.round} of {parent.run}, as entry 2 of {LOG} says"
        raise Broken(home, said, f"one of round {whose[1]} of {whose[0]}", story.signer)
    for who, number in sorted(inside, key=str):
        if number not in parent.contributed.get(who, ()):
            found = f"one of {who} in round {number} beside them"
            raise Broken(home, f"the updates that entry 2 of {LOG} names", found, story.signer)


def _check_tensors(folder: Path, home: str, manifest: str, where: str, story: LogStory) -> str:
    """The path of a checkpoint's tensors, which are those that its manifest names, which has this digest."""
    _require(folder, f"{home}/manifest.json", manifest, where, story)
    tensors = _tensors(folder, home, story)
    file = f"{home}/tensors-{tensors[:16]}.safetensors"
    _require(folder, file, tensors, f"{home}/manifest.json", story)
    return file


def _check_checkpoint(folder: Path, name: str, facts: RoundFacts, story: LogStory) -> None:
    file = _check_tensors(folder, f"checkpoints/{name}", facts.checkpoint, f"{LOG}, entry {facts.sequence}", story)
    if tensor_digest(folder / file, "adapter") != facts.adapter:
        raise Broken(file, f"the adapter that entry {facts.sequence} of {LOG} names", "another", story.signer)


def _check_best(folder: Path, story: LogStory) -> None:
    """The best adapter is that of a round in the log."""
    best = int((story.end or {}).get("best_round", 0))
    home = "checkpoints/best"
    if not story.base < best <= story.newest or not (folder / home / "manifest.json").is_file():
        return
    tensors = _tensors(folder, home, story)
    facts = story.rounds[best - story.base - 1]
    if tensor_digest(folder / home / f"tensors-{tensors[:16]}.safetensors", "adapter") != facts.adapter:
        raise Broken(home, f"the adapter of round {best}, as entry {facts.sequence} of {LOG} says", "another")


def _tensors(folder: Path, home: str, story: LogStory) -> str:
    """The digest that a manifest names. Who signed the manifest's own digest may still have written nonsense."""
    path = folder / home / "manifest.json"
    try:
        tensors = json.loads(path.read_bytes())["tensors"]["sha256"] if path.stat().st_size <= _MAX_JSON else None
    except (ValueError, LookupError, TypeError, RecursionError):
        tensors = None
    if not isinstance(tensors, str) or not re.fullmatch("[0-9a-f]{64}", tensors):
        raise Broken(f"{home}/manifest.json", "a checkpoint's manifest", "something else", story.signer)
    return tensors


def tensor_digest(path: Path, name: str) -> str | None:
    """SHA-256 of a tensor's bytes in a safetensors file; None where it has no such tensor."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            start, end = json.loads(file.read(length) if length <= _MAX_JSON else b"")[name]["data_offsets"]
            left = int(end) - int(start)
            if int(start) < 0:
                return None
            file.seek(8 + length + int(start))
        except (ValueError, LookupError, TypeError, RecursionError, OverflowError):
            return None
        total = hashlib.sha256()
        while left > 0 and (block := file.read(min(left, 2**20))):
            total.update(block)
            left -= len(block)
    return total.hexdigest()


def _require(
    folder: Path,
    name: str,
    sha256: str,
    where: str,
    story: LogStory,
    *,
    length: int | None = None,
    growing: bool = False,
) -> None:
    """Raise Broken unless the file is there, regular, as long as it should be, and has this digest."""
    path, expected = folder / name, f"{sha256[:16]}, as {where} says"
    if path.is_symlink() or not path.is_file():
        raise Broken(name, f"the file with SHA-256 {expected}", "no regular file", story.signer)
    size = path.stat().st_size
    if length is not None and (size < length or (size > length and not growing)):
        raise Broken(name, f"{length} bytes, as {where} says", f"{size}", story.signer)
    found = digest_of(path, length)[1]
    if found != sha256:
        raise Broken(name, f"SHA-256 {expected}", found[:16], story.signer)


def _opened(path: Path, story: LogStory) -> Any:
    """The file, or an empty one where there is none and need not be."""
    if path.is_file() and not path.is_symlink():
        return path.open("rb")
    if story.rounds and (story.end is not None or len(story.rounds) > 1):
        raise Broken(path.name, f"{len(story.rounds)} lines, one a round", "no file", story.signer)
    return open("/dev/null", "rb")
