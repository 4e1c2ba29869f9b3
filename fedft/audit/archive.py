"""One .tar.gz of known files and their checksums, of one form. docs/SPEC.md, "Archive of a run".

Guarantees:
- unpack writes regular files of known names inside ``folder`` and nothing else, fewer bytes than MAX_BYTES and at most
  MAX_MEMBERS files, whatever the archive says; each is as its checksum says, and none is missing. Anything else is a
  RecordError.
- pack gives the same bytes for the same files, under the same zlib.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fedft.audit.bundle_names import is_known
from fedft.errors import RecordError, StorageError
from fedft.records.files import digest_of

LABEL = "fedft/v1/audit-bundle"
SUMS = "SHA256SUMS"
MAX_BYTES = 8 * 2**30
"""All files together have fewer: so each fits into tar's oldest form."""
MAX_MEMBERS = 50_000
MAX_RATIO, FREE_BYTES = 200, 64 * 2**20
"""Unpacked bytes for each byte of the archive, beyond the first 64 MiB; of zeros gzip makes a thousand."""

_MAX_SUMS = MAX_MEMBERS * 256
_BLOCK, _TAR = 2**20, tarfile.BLOCKSIZE
_BEGIN = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""How Python's gzip begins at its middle level, without name and time."""
_LEVEL, _AGAIN = 6, "ask for another copy"
_LINE = re.compile(r"([0-9a-f]{64})  ([!-~]+)")
_KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"5": "a folder", b"6": "a pipe"}


def pack(file: BinaryIO, files: Mapping[str, Path | bytes]) -> None:
    """Write an archive of ``files``, by their names in it, each of them known.

    Raises StorageError for a file that cannot be read or changes meanwhile, RecordError for more than unpack takes.
    """
    known = {name: _digest(content) for name, content in sorted(files.items())}
    total = sum(size for size, _ in known.values())
    if len(known) > MAX_MEMBERS or total >= MAX_BYTES or not all(map(is_known, known)):
        raise _too_much()
    lines = [f"# {LABEL}", *(f"{digest}  {name}" for name, (_, digest) in known.items())]
    sums = "".join(f"{line}\n" for line in lines).encode()
    with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as squeezed:
        for name, content in {SUMS: sums, **{name: files[name] for name in known}}.items():
            size, digest = known.get(name, (len(sums), ""))
            squeezed.write(_header(name, size))
            if isinstance(content, bytes):
                squeezed.write(content)
            else:
                _copy(content, squeezed, size, digest)
            squeezed.write(bytes(-size % _TAR))
        squeezed.write(bytes(2 * _TAR))
    if total > FREE_BYTES + MAX_RATIO * file.tell():
        raise _too_much()


def unpack(path: Path, folder: Path) -> tuple[str, ...]:
    """Unpack the archive into an empty folder; the names of its files, sorted.

    Raises RecordError for what is no whole archive of this form, StorageError where the disk refuses.
    """
    with _opened(path) as source:
        sums = _sums(source)
        left = iter(sums)
        for name, size in source.members():
            expected = next(left, None)
            if name != expected:
                raise _refused(_shown(expected), _out_of_place(name, sums, expected))
            source.save(folder / name, name, size, sums[name])
        missing = next(left, None)
        if missing is not None:
            raise _refused(missing, "none: it was taken out")
        source.require_end()
    return tuple(sums)


class _Source:
    """The unpacked bytes of an archive, in their order and within the limits."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._squeezed, self._count = raw, gzip.GzipFile(fileobj=raw), 0

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        content = self._squeezed.read(size)
        self._count += len(content)
        if self._count > MAX_BYTES + 2 * _TAR * MAX_MEMBERS:
            raise _refused(f"at most {MAX_BYTES // 2**30} GiB", "more")
        if self._count > FREE_BYTES + MAX_RATIO * self._raw.tell():
            raise _refused(f"at most {MAX_RATIO} bytes for each byte of the archive", "more: it would fill the disk")
        if len(content) < size:
            raise EOFError
        return content

    def members(self) -> Iterator[tuple[str, int]]:
        """Name and size of each file; who asks for the next has read the content of the one before."""
        while (member := self.member()) is not None:
            yield member

    def member(self) -> tuple[str, int] | None:
        """Of the next file; None at the end. One form alone is taken: that of a regular file as pack writes it."""
        block = self.read(_TAR)
        if block == bytes(_TAR):
            return None
        name = "/".join(_text(part) for part in (block[345:500], block[:100]) if part[0])
        kind, digits = block[156:157], block[124:135]
        if kind != b"0":
            raise _refused("regular files alone", f"{_KINDS.get(kind, 'another kind of entry')} at {_shown(name)}")
        size = int(digits, 8) if re.fullmatch(rb"[0-7]{11}", digits) else -1
        try:
            same = size >= 0 and _header(name, size) == block
        except ValueError:
            same = False
        if not same:
            raise _refused("entries as fedft audit bundle writes them", f"another form at {_shown(name)}")
        return name, size

    def content(self, size: int) -> Iterator[bytes]:
        """A file's, in blocks, and the zeros that fill it up."""
        for begin in range(0, size, _BLOCK):
            yield self.read(min(_BLOCK, size - begin))
        if any(self.read(-size % _TAR)):
            raise _refused("zeros after a file", "something else")

    def save(self, path: Path, name: str, size: int, sha256: str) -> None:
        total = hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("xb") as file:
            for block in self.content(size):
                total.update(block)
                file.write(block)
        if total.hexdigest() != sha256:
            raise _refused(f"{name} with SHA-256 {sha256[:16]}, as {SUMS} says", total.hexdigest()[:16])

    def require_end(self) -> None:
        if any(self.read(_TAR)) or self._squeezed.read(1):
            raise _refused("nothing after the last file", "something")


@contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    """Whatever gzip or the system stumbles over is one of our errors, with the archive's path."""
    try:
        with path.open("rb") as raw:
            if raw.read(len(_BEGIN)) != _BEGIN:
                raise _refused("one of fedft audit bundle", "another file")
            raw.seek(0)
            yield _Source(raw)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        found = "it cut off" if isinstance(error, EOFError) else "damage"
        raise RecordError(f"{path}: {_refused('a whole archive', found)}") from None
    except OSError as error:
        raise StorageError(
            f"expected to unpack {path}, found {error.strerror}: free space, or check the path"
        ) from None


def _sums(source: _Source) -> dict[str, str]:
    """Digest by name. Its names are known ones, sorted, each once: so are those of the files that follow."""
    member = source.member()
    if member is None or member[0] != SUMS or member[1] > _MAX_SUMS:
        raise _refused(f"{SUMS} first, of at most {_MAX_SUMS // 2**20} MiB", "something else")
    label, *lines = b"".join(source.content(member[1])).decode("ascii", "replace").split("\n")
    if label != f"# {LABEL}":
        newer = re.fullmatch(r"# fedft/v[0-9]{1,9}/audit-bundle", label)
        what, do = ("a newer version", "use the fedft that wrote it") if newer else ("another label", _AGAIN)
        raise _refused(f"an archive of {LABEL}", what, do)
    if not lines or lines.pop():
        raise _refused(f"whole lines in {SUMS}", "the last one cut off")
    if len(lines) > MAX_MEMBERS:
        raise _refused(f"at most {MAX_MEMBERS:,} files", "more")
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        found = _LINE.fullmatch(line)
        if found is None or not is_known(found[2]):
            why = "no checksum" if found is None else _unknown(found[2])
            raise _refused(f"a checksum and a name that an archive may hold in line {number} of {SUMS}", why)
        if sums and found[2] <= next(reversed(sums)):
            raise _refused(f"sorted names in {SUMS}, each once", f"{found[2]} in line {number}")
        sums[found[2]] = found[1]
    return sums


def _out_of_place(name: str, sums: Mapping[str, str], expected: str | None) -> str:
    if not is_known(name) and name != SUMS:
        return _unknown(name)
    if name not in sums:
        return f"{name}, which has no checksum in {SUMS}" if name != SUMS else f"{SUMS} twice"
    return f"{name} twice" if expected is None or name < expected else f"{name}: a file is missing, or out of order"


def _unknown(name: str) -> str:
    leaves = name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name)
    return f"{_shown(name)}, {'which leaves the archive' if leaves else 'which no archive of a run has'}"


def _refused(expected: str, found: str, do: str = _AGAIN) -> RecordError:
    return RecordError(f"expected {expected}, found {found}; nothing of this archive counts: {do}")


def _too_much() -> RecordError:
    return RecordError(
        f"expected at most {MAX_MEMBERS:,} files of known names, of {MAX_BYTES // 2**30} GiB and {MAX_RATIO} bytes for "
        "each byte of the archive, found others: keep the folder"
    )


def _shown(name: str | None) -> str:
    """A name from an archive, without what a terminal obeys."""
    return "the end" if name is None else ascii(name)[1:-1][:120]


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("ascii", "replace")


def _header(name: str, size: int) -> bytes:
    """The block before a file. Raises ValueError for a name or a size that has no place in it."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _digest(content: Path | bytes) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    try:
        return digest_of(content)
    except OSError as error:
        raise StorageError(f"expected to read {content}, found {error.strerror}: check its permissions") from None


def _copy(path: Path, target: gzip.GzipFile, size: int, sha256: str) -> None:
    total, left = hashlib.sha256(), size
    try:
        with path.open("rb") as file:
            while left and (block := file.read(min(left, _BLOCK))):
                total.update(block)
                target.write(block)
                left -= len(block)
            more = file.read(1)
    except OSError as error:
        raise StorageError(f"expected to pack {path}, found {error.strerror}: free space, or check it") from None
    if left or more or total.hexdigest() != sha256:
        raise StorageError(f"expected {path} to stay as it is while it is packed, found it changed: try again")
