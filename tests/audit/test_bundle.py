"""fedft audit bundle, and audit verify and recompute of what it packs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedft.audit.archive import SUMS, pack
from fedft.audit.bundle import bundle, verify
from fedft.audit.recompute import recompute, recompute_any
from fedft.audit.verify import verify_run
from fedft.errors import ConfigError, RecordError, StorageError
from fedft.identity.keys import PrivateKey
from fedft.ledger.chain import Signer
from fedft.ledger.store import Ledger
from fedft.records.heads import LogHead
from tests.audit.archives import BUNDLE_V1, ROOT, RUN_V1, members_of, repacked, unpacked
from tests.cli.commands import fedft
from tests.made_run import MadeRun

BYTES, FILES = 300, 40
"""Changed bytes of an archive, and of files whose checksums are made anew."""


class Elsewhere(MadeRun):
    """Each institution keeps its ledger on its own machine."""

    def ledger_path(self, name: str) -> Path:
        return self.folder.parent / name / "own.sqlite"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    assert bundle(RUN_V1, folder / "whole.tar.gz")[1] is not None
    return folder / "whole.tar.gz"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[MadeRun]:
    """A round of two institutions, whose ledgers are elsewhere; not ended."""
    run = Elsewhere(tmp_path / "run", 2, rounds=1)
    run.play()
    yield run
    run.close()


NOTE = (RUN_V1 / "audit.head").read_text()
FORGED = LogHead.claimed(NOTE).signed(PrivateKey.generate())
NEWER = (RUN_V1 / "audit.jsonl").read_bytes().replace(b"fedft/v1/audit-entry", b"fedft/v2/audit-entry", 1)


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


# What holds


def test_an_archive_of_version_1_is_valid_for_ever() -> None:
    """Made by fedft audit bundle, of run-v1 with south's ledger beside it."""
    verdict = verify(BUNDLE_V1)
    assert (verdict.finding, verdict.entries, verdict.rounds) == (None, 5, 2)
    assert verdict.ledgers == ("north", "south", "south")
    assert {name.split("/")[0] for name, _ in members_of(BUNDLE_V1)} == {SUMS, "VERIFY.txt", "run", "ledgers"}


def test_an_archive_is_checked_as_its_folder_and_says_what_it_lacks(whole: Path) -> None:
    """Its bytes are those of the folder; logs, and counts of an institution's rows, stay out."""
    folder, packed = verify_run(RUN_V1), verify(whole)
    assert (packed.finding, packed.entries, packed.ledgers) == (None, folder.entries, folder.ledgers)
    left_out = [f"institutions/{name}" for name in ("north/log.txt", "north/quality.json", "south/log.txt")]
    words = f"left out of the archive: {', '.join(left_out)}, and 1 more"
    assert packed.not_covered == (words, "VERIFY.txt: by whoever packed the archive")
    for name, content in members_of(whole):
        if name.startswith("run/"):
            assert content == (RUN_V1 / name.removeprefix("run/")).read_bytes()
    assert fedft("audit", "verify", whole).exit_code == 0


def test_its_figures_are_those_of_the_folder(whole: Path) -> None:
    assert recompute_any(whole).as_json() == recompute(RUN_V1).as_json()
    assert fedft("audit", "recompute", whole).exit_code == 0


def test_other_programs_can_unpack_and_check_it(whole: Path, tmp_path: Path) -> None:
    with tarfile.open(whole) as tar:
        tar.extractall(tmp_path, filter="data")
    label, *lines = (tmp_path / SUMS).read_text().splitlines()
    assert label == "# fedft/v1/audit-bundle"
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert verify_run(tmp_path / "run", ledgers=[tmp_path / "run" / "institutions" / "north"]).finding is not None
    assert "fedft audit verify FILE" in (tmp_path / "VERIFY.txt").read_text()


def test_it_needs_no_torch_and_no_flower(tmp_path: Path) -> None:
    archive = str(tmp_path / "run.tar.gz")
    check = (
        "import sys\nfrom fedft.cli import app\n"
        f"for words in (['bundle', {str(RUN_V1)!r}, '--to', {archive!r}], ['verify', {archive!r}], "
        f"['recompute', {archive!r}]):\n"
        "    try:\n        app(['audit', *words])\n    except SystemExit as end:\n        print('code', end.code)\n"
        "    print(sorted({'torch', 'transformers', 'peft', 'opacus', 'flwr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("code 0\n[]") == 3, done.stdout


# Ledgers


def test_ledgers_from_elsewhere_are_packed_and_found_again(made: MadeRun, tmp_path: Path) -> None:
    made.end()
    one, two = made.names
    archive = tmp_path / "one.tar.gz"
    verdict, packed = bundle(made.folder, archive, ledgers=[made.ledger_path(one)])
    assert packed is not None
    assert packed.ledgers == (one,)
    assert f"the ledger of {two}: give it with --ledger" in verdict.not_covered
    found = verify(archive)
    assert (found.finding, found.ledgers) == (None, (one,))
    assert f"the ledger of {two}: give it with --ledger" in found.not_covered
    assert verify(archive, ledgers=[made.ledger_path(two)]).ledgers == (one, two)
    assert set(recompute_any(archive).ledgers) == {one}
    assert set(recompute_any(archive, [(two, made.ledger_path(two))]).ledgers) == {one, two}
    both = fedft(
        "audit", "bundle", made.folder, "--to", tmp_path / "both.tar.gz", "--json",
        "--ledger", made.ledger_path(one), "--ledger", made.ledger_path(two),
    )  # fmt: skip
    assert (both.exit_code, json.loads(both.stdout)["packed"]["ledgers"]) == (0, [one, two])
    assert verify(tmp_path / "both.tar.gz").ledgers == (one, two)


def test_a_ledger_whose_writer_died_is_packed_with_what_its_log_holds(made: MadeRun, tmp_path: Path) -> None:
    made.end()
    own = made.ledger_path(made.names[0])
    with Ledger.open(own, signer=Signer(made.names[0], made.keys[made.names[0]])) as ledger:
        ledger.record_refusal(run="next/1", round=1, dataset="rows", reason="policy")
        entries = ledger.entries()
        shutil.copytree(own.parent, tmp_path / "died")
    assert (tmp_path / "died" / "own.sqlite-wal").stat().st_size
    (tmp_path / "link").symlink_to(tmp_path / "died" / "own.sqlite")
    _, packed = bundle(made.folder, tmp_path / "run.tar.gz", ledgers=[tmp_path / "link"])
    assert packed is not None
    assert f"ledgers/{made.names[0]}/ledger.sqlite-wal" in packed.names
    assert verify(tmp_path / "run.tar.gz").valid
    unpacked(tmp_path / "run.tar.gz", tmp_path / "out")
    with Ledger.open(tmp_path / "out" / "ledgers" / made.names[0] / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.entries() == entries


def test_ledgers_that_do_not_fit(made: MadeRun, tmp_path: Path) -> None:
    target, own = tmp_path / "run.tar.gz", made.ledger_path(made.names[0])
    made.end()
    with pytest.raises(ConfigError, match="found two"):
        bundle(made.folder, target, ledgers=[own, own])
    with Ledger.open(own), pytest.raises(ConfigError, match="expected nobody to write"):
        bundle(made.folder, target, ledgers=[own])
    other = MadeRun(tmp_path / "other", 1, rounds=1)
    other.play()
    other.end()
    for ledger, words, code in (
        (other.ledger_path("bank-000"), "found another ledger", 1),
        (made.folder / "audit.jsonl", "NOT VALID", 1),
        (tmp_path / "nothing", "found none: check the path", 2),
    ):
        result = fedft("audit", "bundle", made.folder, "--to", target, "--ledger", ledger)
        assert (result.exit_code, words in result.output) == (code, True), result.output
        assert "Traceback" not in result.output
        assert not target.exists()


def test_a_ledger_under_anothers_name(made: MadeRun, tmp_path: Path) -> None:
    made.end()
    archive, (one, two) = tmp_path / "run.tar.gz", made.names
    bundle(made.folder, archive, ledgers=[made.ledger_path(one)])
    files: dict[str, Path | bytes] = {
        name.replace(one, two): content for name, content in members_of(archive) if name != SUMS
    }
    with (tmp_path / "forged.tar.gz").open("wb") as file:
        pack(file, files)
    finding = verify(tmp_path / "forged.tar.gz").finding
    assert finding is not None
    assert (finding.where, finding.expected) == (f"ledgers/{two}/ledger.sqlite", f"the ledger of {two}")


# What is not packed


def test_the_same_files_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(RUN_V1, tmp_path / "copy"))
    for number, path in enumerate(sorted(copy.rglob("*"), reverse=True)):
        os.utime(path, (number, number))
    (copy / "adapter").chmod(0o700)
    bundle(copy, tmp_path / "other-name.tar.gz")
    assert (tmp_path / "other-name.tar.gz").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "config.json").write_text("{}"), "NOT VALID: config.json"),
        (lambda run: (run / "audit.jsonl").write_bytes((run / "audit.jsonl").read_bytes()[:-1]), "NOT VALID"),
        (lambda run: (run / "summary.json").unlink(), "NOT VALID: summary.json"),
        (lambda run: (run / "audit.head").unlink(), "NOT VALID: audit.head"),
        (lambda run: (run / "institutions/north/ledger.sqlite").unlink(), "NOT VALID: institutions/north"),
        (lambda run: os.truncate(run / "metrics.jsonl", 2**30), "NOT VALID: metrics.jsonl"),
        (lambda run: os.truncate(run / "institutions/south/ledger.sqlite", 2**30), "NOT VALID: institutions/south"),
        (lambda run: emptied(run).joinpath("config.json").write_text("{}"), "NOT VALID: audit.head"),
        (lambda run: (run / "audit.jsonl").write_bytes(NEWER), "found others: a newer version"),
        (lambda run: (run / "audit.head").write_text(FORGED), "NOT VALID: audit.head"),
    ],
)
def test_a_run_that_does_not_hold_is_not_packed(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(Path(shutil.copytree(RUN_V1, tmp_path / "run")))
    result = fedft("audit", "bundle", tmp_path / "run", "--to", tmp_path / "run.tar.gz")
    assert (result.exit_code, words in result.stdout, "nothing was packed" in result.stdout) == (1, True, True)
    assert "\nvalid" not in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_goes_on_is_not_packed_and_an_archive_of_one_is_not_valid(made: MadeRun, tmp_path: Path) -> None:
    result = fedft("audit", "bundle", made.folder, "--to", tmp_path / "run.tar.gz")
    assert (result.exit_code, "the run goes on" in result.stdout) == (1, True)
    assert not (tmp_path / "run.tar.gz").exists()
    files: dict[str, Path | bytes] = {
        f"run/{name}": made.folder / name for name in ("audit.jsonl", "audit.head", "config.json", "metrics.jsonl")
    }
    for path in (made.folder / "checkpoints").rglob("*.*"):
        files[f"run/{path.relative_to(made.folder).as_posix()}"] = path
    with (tmp_path / "run.tar.gz").open("wb") as file:
        pack(file, {**files, "VERIFY.txt": b""})
    result = fedft("audit", "verify", tmp_path / "run.tar.gz")
    assert (result.exit_code, "the run goes on" in result.stdout, "\nvalid" in result.stdout) == (1, True, False)
    assert fedft("audit", "recompute", tmp_path / "run.tar.gz").exit_code == 2


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("run.zip", "ends in .tar.gz"), ("there.tar.gz", "something there"), ("no/run.tar.gz", "outside"),
        ("run/run.tar.gz", "outside"), ("run/adapter/run.tar.gz", "outside"),
    ],
)  # fmt: skip
def test_a_place_that_is_none(tmp_path: Path, target: str, words: str) -> None:
    shutil.copytree(RUN_V1, tmp_path / "run")
    (tmp_path / "there.tar.gz").write_bytes(b"mine")
    result = fedft("audit", "bundle", tmp_path / "run", "--to", tmp_path / target)
    assert (result.exit_code, words in result.stderr) == (2, True), result.output
    assert (tmp_path / "there.tar.gz").read_bytes() == b"mine"


def test_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "file", tmp_path / "nothing"):
        result = fedft("audit", "bundle", path, "--to", tmp_path / "run.tar.gz")
        assert (result.exit_code, "expected" in result.stderr) == (2, True), result.output
    assert not (tmp_path / "run.tar.gz").exists()
    result = fedft("audit", "bundle", BUNDLE_V1, "--to", tmp_path / "run.tar.gz")
    assert (result.exit_code, "is packed already" in result.stderr) == (2, True), result.output


def test_a_file_that_changes_while_it_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(shutil.copytree(RUN_V1, tmp_path / "run"))
    from fedft.audit import archive

    copied = archive._copy

    def change(path: Path, *rest: object) -> None:
        path.write_bytes(path.read_bytes() + b" ")
        copied(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(archive, "_copy", change)
    with pytest.raises(StorageError, match="found it changed"):
        bundle(run, tmp_path / "run.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# Whatever is changed


@settings(max_examples=BYTES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_byte_of_an_archive(whole: Path, tmp_path_factory: pytest.TempPathFactory, at: float, by: int) -> None:
    """Found, or a bit that gzip does not read: then every file is as it was."""
    data = bytearray(whole.read_bytes())
    data[int(at * len(data))] ^= by
    folder = tmp_path_factory.mktemp("changed")
    (folder / "changed.tar.gz").write_bytes(data)
    try:
        files = unpacked(folder / "changed.tar.gz", folder / "out")
    except RecordError:
        return
    finally:
        shutil.rmtree(folder)
    assert files == dict(members_of(whole)[1:])


NAMES = [name for name, _ in members_of(BUNDLE_V1) if name not in (SUMS, "VERIFY.txt")]


@settings(max_examples=FILES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(NAMES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_file_of_an_archive_whose_checksums_are_made_anew(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: float, by: int
) -> None:
    """Signatures and digests say so, wherever the change is; of a ledger from elsewhere not in SQLite's free space."""
    data = bytearray(dict(members_of(BUNDLE_V1))[name] or b"x")
    data[int(at * len(data))] ^= by
    forged = repacked(BUNDLE_V1, tmp_path_factory.mktemp("forged") / "forged.tar.gz", {name: bytes(data)})
    verdict = verify(forged)
    assert not verdict.valid or name == "ledgers/south/ledger.sqlite"
    gone = repacked(BUNDLE_V1, forged, {name: None})
    try:
        assert not verify(gone).valid
    except RecordError as error:
        assert "expected the archive of a run" in str(error)


def test_a_forged_head_and_a_stranger(whole: Path, tmp_path: Path) -> None:
    found = verify(repacked(whole, tmp_path / "forged.tar.gz", {"run/audit.head": FORGED.encode()})).finding
    assert found is not None
    assert found.where == "audit.head"
    assert verify(whole, heads=[NOTE]).valid
    assert not verify(whole, heads=[FORGED]).valid
    assert not verify(whole, key=PrivateKey.generate().public.text).valid
    found = verify(repacked(whole, tmp_path / "newer.tar.gz", {"run/audit.jsonl": NEWER})).finding
    assert found is not None
    assert "newer version" in found.found
