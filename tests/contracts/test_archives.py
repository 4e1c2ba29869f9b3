"""The guarantees of fedft/audit/bundle_names, archive and bundle: what goes into an archive, what comes out."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.audit.archive import SUMS, unpack
from fedft.audit.bundle import bundle, verify
from fedft.audit.bundle_names import is_known, is_packed
from fedft.errors import ConfigError, RecordError
from fedft.identity.keys import PrivateKey
from tests.audit.archives import Members, members_of, sums_of, write
from tests.made_run import MadeRun

SECRET = b"this stays where it is"
STAYS = [
    "identity.key", "coordinator.key", "keys/coordinator.pem", "superlink/state.db", "certificates/ca.key", "log.txt",
    "events.jsonl", "deployment.json", "lock", "policy.toml", ".hidden", "checkpoints/identity.key", "adapter/a.key",
    "checkpoints/round-0002/optimizer.pt", "institutions/bank-000/identity.key", "institutions/bank-000/rows.jsonl",
    "institutions/bank-000/quality.json", "institutions/bank-000/log.txt", "institutions/bank-000/ledger.sqlite.bak",
    f"institutions/bank-000/secagg/{'0' * 32}.key", f"institutions/bank-000/secagg/{'0' * 32}.keys", "run/audit.jsonl",
]  # fmt: skip


def put(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(SECRET)


@pytest.mark.parametrize("covered", [True, False], ids=["in the log", "put there later"])
def test_no_key_no_log_and_no_file_that_nobody_thought_of_is_packed(tmp_path: Path, covered: bool) -> None:
    made = MadeRun(tmp_path / "run", 2, rounds=2)
    made.play(2)
    if covered:
        put(made.folder, STAYS)
    made.end()
    put(made.folder, STAYS)
    PrivateKey.generate().save(tmp_path / "own.key")
    (made.folder / "report.html").symlink_to(tmp_path / "own.key")
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    _, packed = bundle(made.folder, tmp_path / "run.tar.gz")
    assert packed is not None
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before
    assert set(packed.left_out) == set(STAYS) - {".hidden"}
    members = members_of(tmp_path / "run.tar.gz")
    assert {name for name, _ in members} == set(packed.names)
    for name, content in members:
        assert SECRET not in content, name
        assert b"PRIVATE KEY" not in content, name
        assert name == SUMS or is_known(name)
    verdict = verify(tmp_path / "run.tar.gz")
    assert verdict.finding is None
    assert any(words.startswith("left out of the archive: ") for words in verdict.not_covered) == covered


@given(
    st.text(st.sampled_from("./\\~:\n\0 akr0-"), max_size=12), st.sampled_from(["", "run/", "run/adapter/", "ledgers/"])
)
def test_no_other_name_is_known(text: str, where: str) -> None:
    assert not is_known(where + text)
    assert not is_packed(text)


def test_a_name_has_one_spelling() -> None:
    for name in ("run/config.json", "ledgers/north/ledger.sqlite", "VERIFY.txt"):
        assert is_known(name)
        for other in (f"{name}\n", f" {name}", f"./{name}", f"/{name}", name.upper(), name.replace("/", "//") + "/"):
            assert not is_known(other)
    assert not is_known("ledgers/../ledger.sqlite")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../evil"}, {"name": "/tmp/evil"}, {"name": "run/adapter/../../../evil"}, {"name": "run/evil"},
        {"type": tarfile.SYMTYPE, "linkname": "../.."}, {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.FIFOTYPE}, {"type": tarfile.DIRTYPE}, {"type": tarfile.CHRTYPE}, {"mode": 0o4755},
    ],
)  # fmt: skip
def test_whatever_an_archive_says_only_known_regular_files_are_written_inside(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    members: Members = [("VERIFY.txt", b""), ("run/audit.head", b"x"), ("run/config.json", b"{}")]
    members = [(SUMS, sums_of(members)), *members]
    folder = tmp_path / "in" / "in" / "in"
    folder.mkdir(parents=True)
    forged = write(tmp_path / "forged.tar.gz", members, **change)
    with pytest.raises(RecordError):
        unpack(forged, folder)
    written = {path for path in tmp_path.rglob("*") if not path.is_dir() or path.is_symlink()} - {forged}
    assert written == {folder / "VERIFY.txt", folder / "run" / "audit.head"}
    assert all(path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o111 == 0 for path in written)


def test_a_run_that_does_not_hold_is_not_packed(tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "run", 1, rounds=1)
    made.play()
    with pytest.raises(ConfigError, match="wait until the run has ended"):
        bundle(made.folder, tmp_path / "run.tar.gz")
    made.end()
    (made.folder / "summary.json").write_text("{}")
    assert bundle(made.folder, tmp_path / "run.tar.gz")[1] is None
    assert not (tmp_path / "run.tar.gz").exists()
