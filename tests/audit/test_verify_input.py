"""fedft audit verify of what is no run, or not yet: half written, newer, foreign, huge; words and exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedft.audit.mismatch import Mismatch
from fedft.audit.verify import Verdict, verify_run
from fedft.errors import ConfigError
from fedft.identity.keys import PrivateKey
from fedft.records.heads import LogHead
from tests.audit.verified import ROOT, finding_of, replaced
from tests.made_run import MadeRun


def test_a_run_that_goes_on_is_never_valid(made: MadeRun) -> None:
    verdict = verify_run(made.folder)
    assert verdict.finding is not None
    assert "stops after round 3" in verdict.finding.found
    assert verdict.ledgers == made.names
    made.end()
    assert verify_run(made.folder).valid


def test_a_half_written_folder(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert finding_of(tmp_path).where == "audit.head"
    shutil.copy(whole / "audit.head", tmp_path)
    assert finding_of(tmp_path).where == "audit.jsonl"
    entries = (whole / "audit.jsonl").read_bytes()
    (tmp_path / "audit.jsonl").write_bytes(entries[: len(entries) // 2])
    assert "audit.jsonl, entry" in finding_of(tmp_path).where


def test_a_newer_format_is_said_to_be_one(whole: Path) -> None:
    newer = (whole / "audit.jsonl").read_bytes().replace(b"fedft/v1/audit-entry", b"fedft/v2/audit-entry", 1)
    with replaced(whole / "audit.jsonl", newer):
        assert "newer version" in finding_of(whole).found


def test_the_ledger_of_another_institution(made: MadeRun, tmp_path: Path) -> None:
    made.end()
    other = MadeRun(tmp_path / "other", 1, rounds=1)
    other.play()
    other.end()
    found = finding_of(made.folder, ledgers=[other.ledger_path("bank-000")])
    assert "another ledger" in found.found
    one, two = (made.ledger_path(name).parent for name in made.names)
    shutil.move(one, tmp_path / "aside")
    shutil.copytree(two, one)
    assert finding_of(made.folder).where == "institutions/bank-000/ledger.sqlite"


@pytest.mark.parametrize("text", ["", "no head", "fedft/v1/audit-log/x\n1\n", "/dev/null"])
def test_what_is_no_head_is_bad_input(whole: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="signed head"):
        verify_run(whole, heads=[text])


def test_a_forged_head(whole: Path) -> None:
    note = LogHead.claimed((whole / "audit.head").read_text())
    forged = note.signed(PrivateKey.generate())
    assert finding_of(whole, heads=[forged]).where == "the remembered head"
    with replaced(whole / "audit.head", forged.encode()):
        assert finding_of(whole).where == "audit.head"


def test_what_is_no_run_is_bad_input(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(ConfigError, match="expected a run's folder"):
        verify_run(tmp_path)
    with pytest.raises(ConfigError, match="ledger"):
        verify_run(whole, ledgers=[tmp_path])


@pytest.mark.parametrize(
    "name",
    ["audit.jsonl", "audit.head", "config.json", "metrics.jsonl", "institutions/north/ledger.sqlite", "summary.json"],
)
def test_a_gigabyte_of_garbage_is_read_in_bounds(whole: Path, name: str) -> None:
    begun = time.monotonic()
    with replaced(whole / name, b""):
        with (whole / name).open("r+b") as file:
            file.truncate(2**30)
        found = finding_of(whole)
    assert Path(name).name in found.where
    assert time.monotonic() - begun < 20


def test_exit_codes_and_words(whole: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "fedft", "audit", "verify", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    assert run(str(whole))[0] == 0
    with replaced(whole / "config.json", b"{}"):
        code, said = run(str(whole))
        assert (code, "NOT VALID: config.json" in said, "coordinator, ed25519:" in said) == (1, True, True)
        code, said = run(str(whole), "--json")
        verdict = json.loads(said)
        assert (code, verdict["valid"], verdict["finding"]["where"]) == (1, False, "config.json")
    assert run(str(tmp_path))[0] == 2
    assert run(str(whole), "--head", "nonsense")[0] == 2


def test_a_verdict_is_json() -> None:
    verdict = Verdict("r", "f", 1, 0, (), (), Mismatch("a", "b", "c"))
    assert json.loads(json.dumps(verdict.as_json()))["finding"]["where"] == "a"
