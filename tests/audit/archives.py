"""Archives of a run as a forger writes them: Python's own tarfile, which takes any name and any kind of entry."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedft.audit.archive import LABEL, SUMS, pack, unpack

ROOT = Path(__file__).parents[2]
RUN_V1 = ROOT / "tests" / "vectors" / "run-v1"
BUNDLE_V1 = ROOT / "tests" / "vectors" / "bundle-v1.tar.gz"

Members = list[tuple[str, bytes]]


def members_of(archive: Path) -> Members:
    """Its files in their order, checksums first."""
    with tarfile.open(archive) as tar:
        return [(entry.name, tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]


def sums_of(members: Iterable[tuple[str, bytes]], label: str = LABEL) -> bytes:
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in members if name != SUMS]
    return "".join([f"# {label}\n", *lines]).encode()


def write(path: Path, members: Members, *, gnu: bool = False, **changes: Any) -> Path:
    """Entries as fedft writes them, or in GNU's form, but for ``changes`` of the last one."""
    entries = [tarfile.TarInfo(name) for name, _ in members]
    for entry, (_, content) in zip(entries, members, strict=True):
        entry.size = len(content)
    for name, value in changes.items():
        setattr(entries[-1], name, value)
    with begun(path) as squeezed:
        for entry, (_, content) in zip(entries, members, strict=True):
            squeezed.write(entry.tobuf(tarfile.GNU_FORMAT if gnu else tarfile.USTAR_FORMAT))
            squeezed.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
        squeezed.write(bytes(2 * tarfile.BLOCKSIZE))
    return path


def begun(path: Path) -> gzip.GzipFile:
    return gzip.GzipFile("", "wb", 6, path.open("wb"), mtime=0)


def repacked(archive: Path, target: Path, changes: Mapping[str, bytes | None]) -> Path:
    """Files replaced or, for None, left out, and the checksums made anew: what anyone can do who has the archive."""
    files: dict[str, Path | bytes] = {name: content for name, content in members_of(archive) if name != SUMS}
    files |= {name: content for name, content in changes.items() if content is not None}
    packed = io.BytesIO()
    pack(packed, {name: content for name, content in files.items() if changes.get(name, b"") is not None})
    target.write_bytes(packed.getvalue())
    return target


def unpacked(archive: Path, folder: Path) -> dict[str, bytes]:
    """What unpack makes of it."""
    folder.mkdir()
    return {name: (folder / name).read_bytes() for name in unpack(archive, folder)}
