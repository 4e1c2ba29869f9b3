"""An archive of a run that is damaged, forged or another file: a finding each, and nothing outside its folder."""

from __future__ import annotations

import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedft.audit import archive
from fedft.audit.archive import LABEL, SUMS, unpack
from fedft.audit.bundle import bundle, verify
from fedft.audit.findings import BAD_INPUT
from fedft.audit.recompute import recompute_any
from fedft.errors import RecordError
from tests.audit.archives import RUN_V1, Members, begun, members_of, sums_of, write
from tests.cli.commands import fedft

MANIFEST = "run/checkpoints/best/manifest.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    assert bundle(RUN_V1, folder / "whole.tar.gz")[1] is not None
    return folder / "whole.tar.gz"


@pytest.fixture
def members(whole: Path) -> Members:
    return members_of(whole)


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    return tmp_path / "forged.tar.gz"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where archives are unpacked."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def refusal_of(path: Path) -> str:
    """What verify says; that recompute finds the same and confirms nothing; that nothing is left of the archive."""
    before = set(path.parent.rglob("*"))
    with pytest.raises(RecordError) as refused:
        verify(path)
    said, found = str(refused.value), recompute_any(path)
    assert (found.exit_code, [finding.text for finding in found.findings]) == (BAD_INPUT, [said])
    assert set(path.parent.rglob("*")) == before
    return said


def put(members: Members, at: int, *more: tuple[str, bytes]) -> Members:
    return [*members[:at], *more, *members[at:]]


# Another file


def empty(path: Path) -> None:
    path.write_bytes(b"")


def gigabyte(begin: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(begin)
        with path.open("r+b") as file:
            file.truncate(2**30)

    return make


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("run/config.json", "{}")


def text(path: Path) -> None:
    with begun(path) as file:
        file.write(b"dear auditor\n" * 100)


def bare(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        tar.add(RUN_V1, "run")


def squeezed(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(RUN_V1, "run")


@pytest.mark.parametrize(
    "make",
    [
        empty, gigabyte(b""), gigabyte(os.urandom(4096)), gigabyte(b"\x1f\x8b\x08\0\0\0\0\0\0\xff"),
        gigabyte(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + os.urandom(4096)), zipped, text, bare, squeezed,
    ],
    ids=["empty", "zeros", "garbage", "a-beginning", "a-beginning-and-garbage", "zip", "text", "tar", "another-tar.gz"],
)  # fmt: skip
def test_another_file(make: Callable[[Path], None], forged: Path) -> None:
    make(forged)
    begun = time.monotonic()
    assert "expected" in refusal_of(forged)
    for command in ("verify", "recompute"):
        result = fedft("audit", command, forged)
        assert (result.exit_code, "Traceback" in result.output) == (2, False), result.output
        assert "valid" not in result.stdout
        assert "holds" not in result.stdout
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3, 0.7, 0.999])
def test_a_truncated_archive(whole: Path, forged: Path, share: float) -> None:
    data = whole.read_bytes()
    forged.write_bytes(data[: max(10, int(share * len(data)))])
    assert "found it cut off" in refusal_of(forged)


@pytest.mark.parametrize("more", [b"x", b"\x1f\x8b", bytes(8) + b"x"])
def test_something_after_its_end(whole: Path, forged: Path, more: bytes) -> None:
    forged.write_bytes(whole.read_bytes() + more)
    assert "expected a whole archive" in refusal_of(forged)


def test_a_second_archive_behind_the_first(whole: Path, forged: Path) -> None:
    forged.write_bytes(2 * whole.read_bytes())
    assert "expected nothing after the last file" in refusal_of(forged)


# Bombs


def test_a_bomb_is_refused_before_it_fills_the_disk(forged: Path, temporary: Path) -> None:
    size = 160 * 2**20
    sums = f"# {LABEL}\n{'0' * 64}  run/audit.jsonl\n".encode()
    with begun(forged) as file:
        for name, length in ((SUMS, len(sums)), ("run/audit.jsonl", size)):
            entry = tarfile.TarInfo(name)
            entry.size = length
            file.write(entry.tobuf(tarfile.USTAR_FORMAT))
            file.write(sums + bytes(-length % 512) if name == SUMS else b"")
        for _ in range(size // 2**20):
            file.write(bytes(2**20))
        file.write(bytes(1024))
    assert "it would fill the disk" in refusal_of(forged)
    with pytest.raises(RecordError, match="fill the disk"):
        unpack(forged, temporary)
    written = (temporary / "run" / "audit.jsonl").stat().st_size
    assert written <= archive.FREE_BYTES + archive.MAX_RATIO * forged.stat().st_size < size


def test_more_files_than_any_run_has(forged: Path) -> None:
    names = (f"run/checkpoints/round-{number:06d}/manifest.json" for number in range(archive.MAX_MEMBERS + 1))
    sums = sums_of([(name, b"") for name in names])
    write(forged, [(SUMS, sums)])
    assert "at most 50,000 files, found more" in refusal_of(forged)


def test_more_bytes_than_any_run_has(members: Members, forged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 30)
    assert "at most 0 GiB, found more" in refusal_of(write(forged, members))


def test_checksums_without_end(forged: Path) -> None:
    write(forged, [(SUMS, bytes(archive._MAX_SUMS + 1))])
    assert f"expected {SUMS} first" in refusal_of(forged)


# Names and kinds of entries

LEAVING = ["../evil", "/etc/evil", "run/../../evil", "..\\evil", "run/checkpoints/../../../evil"]
OTHERS = [
    "run/identity.key", "run/institutions/north/identity.key", f"run/institutions/north/secagg/{'0' * 32}.key",
    "run/keys/coordinator.pem", "coordinator/superlink.db", "run/.ssh/id_ed25519", "evil", "run/log.txt", "run",
    "run/institutions/north/ledger.sqlite-shm", "run/checkpoints/round-1/manifest.json", "run/policy.toml",
]  # fmt: skip


@pytest.mark.parametrize("name", [*LEAVING, *OTHERS])
@pytest.mark.parametrize("summed", [True, False])
def test_a_name_that_no_archive_has(members: Members, forged: Path, name: str, summed: bool) -> None:
    changed = put(members, 2, (name, b"evil"))
    if summed:
        changed[0] = (SUMS, sums_of(sorted(changed[1:])))
    said = refusal_of(write(forged, changed))
    assert ("which leaves the archive" if name in LEAVING else "which no archive of a run has") in said
    assert not list(forged.parent.rglob("evil*"))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a link"), (tarfile.LNKTYPE, "a link"), (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.CHRTYPE, "a device"), (tarfile.BLKTYPE, "a device"), (tarfile.DIRTYPE, "a folder"),
        (tarfile.CONTTYPE, "another kind"), (tarfile.GNUTYPE_SPARSE, "another kind"), (b"\0", "another kind"),
        (tarfile.XHDTYPE, "another kind"), (tarfile.GNUTYPE_LONGNAME, "another kind"),
    ],
)  # fmt: skip
def test_what_is_no_regular_file(members: Members, forged: Path, kind: bytes, words: str) -> None:
    said = refusal_of(write(forged, members[:4], type=kind, linkname="/etc/passwd"))
    assert f"expected regular files alone, found {words}" in said


@pytest.mark.parametrize(
    "change",
    [
        {"mode": 0o755},
        {"mtime": 1.0},
        {"uid": 1000},
        {"uname": "root"},
        {"linkname": "x"},
        {"gnu": True},
    ],
)
def test_one_form_alone_is_taken(members: Members, forged: Path, change: dict[str, Any]) -> None:
    assert "another form at" in refusal_of(write(forged, members[:4], **change))


def test_a_name_is_shown_without_what_a_terminal_obeys(members: Members, forged: Path) -> None:
    said = refusal_of(write(forged, put(members, 1, ("run/\x1b[2J\r", b""))))
    assert "\x1b[2J" not in said
    assert "\\x1b[2J\\r" in said


# Checksums


def test_a_file_that_is_there_twice(members: Members, forged: Path) -> None:
    assert f"found {members[2][0]} twice" in refusal_of(write(forged, put(members, 3, members[2])))
    last = len(members)
    assert f"found {members[-1][0]} twice" in refusal_of(write(forged, put(members, last, members[-1])))
    assert f"found {SUMS} twice" in refusal_of(write(forged, put(members, 1, members[0])))


def test_a_checksum_that_is_there_twice(members: Members, forged: Path) -> None:
    members[0] = (SUMS, sums_of([members[1], members[1], *members[2:]]))
    assert "each once" in refusal_of(write(forged, members))


@pytest.mark.parametrize("at", range(1, 21, 5))
def test_a_checksum_that_differs(members: Members, forged: Path, at: int) -> None:
    name, content = members[at]
    members[at] = (name, content[:-1] + bytes([content[-1] ^ 1]))
    said = refusal_of(write(forged, members))
    assert f"expected {name} with SHA-256" in said
    assert f"as {SUMS} says" in said


@pytest.mark.parametrize("at", [1, -1])
def test_a_file_in_no_checksum(members: Members, forged: Path, at: int) -> None:
    name = members[at][0]
    members[0] = (SUMS, sums_of([member for member in members if member[0] != name]))
    assert f"found {name}, which has no checksum in {SUMS}" in refusal_of(write(forged, members))


@pytest.mark.parametrize("at", [1, 5, -1])
def test_a_file_that_was_taken_out(members: Members, forged: Path, at: int) -> None:
    name = members.pop(at)[0]
    assert f"expected {name}, found" in refusal_of(write(forged, members))


def test_files_in_another_order(members: Members, forged: Path) -> None:
    members[3], members[4] = members[4], members[3]
    assert "out of order" in refusal_of(write(forged, members))
    assert f"expected {SUMS} first" in refusal_of(write(forged, members[1:]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda sums: sums.replace(b"fedft/v1/", b"fedft/v2/", 1),
            "found a newer version; nothing of this archive counts: use the fedft",
        ),
        (
            lambda sums: sums.replace(b"fedft/v1/", b"other/v1/", 1),
            f"expected an archive of {LABEL}, found another label",
        ),
        (lambda sums: sums.split(b"\n", 1)[1], f"expected an archive of {LABEL}"),
        (lambda sums: sums[:-1], "whole lines"),
        (lambda sums: sums[:-9] + b"\n", "which no archive of a run has"),
        (lambda sums: sums.replace(b"  ", b" *", 1), "found no checksum"),
        (lambda sums: sums.upper().replace(b"# FEDFT/V1/AUDIT-BUNDLE", b"# fedft/v1/audit-bundle"), "no checksum"),
        (lambda sums: sums.replace(b"run/", b"run\xff", 1), "found no checksum"),
        (lambda sums: b"", f"expected an archive of {LABEL}"),
    ],
)
def test_checksums_of_another_form(
    members: Members, forged: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    members[0] = (SUMS, change(members[0][1]))
    assert words in refusal_of(write(forged, members))


@pytest.mark.parametrize("gone", ["VERIFY.txt", "run/audit.jsonl", "run/audit.head", "run/config.json"])
def test_an_archive_of_no_run(members: Members, forged: Path, gone: str) -> None:
    members = [member for member in members if member[0] not in (gone, SUMS)]
    said = refusal_of(write(forged, [(SUMS, sums_of(members)), *members]))
    assert f"expected the archive of a run, with {gone}, found none" in said


def test_a_head_without_its_ledger(members: Members, forged: Path) -> None:
    members = put(members[1:], 1, ("ledgers/north/ledger.sqlite.head", b"x"))
    said = refusal_of(write(forged, [(SUMS, sums_of(members)), *members]))
    assert "with ledgers/north/ledger.sqlite, found none" in said


def test_an_archive_that_cannot_be_read(tmp_path: Path) -> None:
    assert "or an archive of one, found none at" in fedft("audit", "verify", tmp_path / "nothing.tar.gz").stderr
    with pytest.raises(RecordError, match="another file"):
        unpack(RUN_V1 / "audit.jsonl", tmp_path)
