"""fedft audit verify: what holds is valid, and whatever was changed is found and named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedft.audit.mismatch import Mismatch
from fedft.audit.verify import Verdict, verify_run
from fedft.errors import ConfigError
from fedft.identity.keys import PrivateKey
from fedft.ledger.chain import Signer
from fedft.ledger.store import Ledger
from fedft.records.entries import make_entry
from fedft.records.heads import LogHead
from tests.made_run import MadeRun

ROOT = Path(__file__).parents[2]
KEPT_FOR_EVER = ROOT / "tests" / "vectors" / "run-v1"
CHANGES = 800


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run of version 1, to be changed and put back."""
    return Path(shutil.copytree(KEPT_FOR_EVER, tmp_path_factory.mktemp("whole") / "run"))


@pytest.fixture
def made(tmp_path: Path) -> Iterator[MadeRun]:
    """Three rounds of two institutions, whose keys are at hand; not ended."""
    run = MadeRun(tmp_path / "run", 2, rounds=3)
    run.play(3)
    yield run
    run.close()


def finding_of(folder: Path, **options: Any) -> Mismatch:
    found = verify_run(folder, **options).finding
    assert found is not None, "valid"
    return found


def test_a_run_of_version_1_is_valid_for_ever(whole: Path) -> None:
    verdict = verify_run(whole)
    assert verdict.finding is None
    assert (verdict.entries, verdict.rounds, verdict.ledgers) == (5, 2, ("north", "south"))
    assert verdict.not_covered == ()


def test_it_needs_no_torch_no_flower_and_changes_nothing(whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    check = (
        "import sys\nfrom fedft.cli import app\n"
        f"try:\n    app(['audit', 'verify', {str(whole)!r}])\n"
        "except SystemExit as end:\n    code = end.code\n"
        "print(code, sorted({'torch', 'transformers', 'peft', 'opacus', 'flwr', 'dp_accounting'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


# Whatever is changed


FILES = sorted(path.relative_to(KEPT_FOR_EVER).as_posix() for path in KEPT_FOR_EVER.rglob("*") if path.is_file())
PLACES = st.tuples(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))


@contextmanager
def replaced(path: Path, content: bytes | None) -> Iterator[None]:
    """``content`` in a file's place, or no file, for the length of the block."""
    before = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def turned(data: bytes, at: float, by: int) -> bytes:
    place = int(at * len(data))
    return data[:place] + bytes([data[place] ^ by]) + data[place + 1 :] if data else b"x"


def cut(data: bytes, at: float, by: int) -> bytes:
    return data[: int(at * len(data))] if data else b"x"


def longer(data: bytes, at: float, by: int) -> bytes:
    return data + bytes([by])


def without_bytes(data: bytes, at: float, by: int) -> bytes:
    place = int(at * len(data))
    return data[:place] + data[place + 1 + by :] if data else b"x"


@settings(max_examples=CHANGES, deadline=None, suppress_health_check=list(HealthCheck))
@given(PLACES, st.sampled_from([turned, turned, turned, cut, longer, without_bytes]))
def test_any_byte_of_any_file(whole: Path, place: tuple[str, float, int], change: Callable[..., bytes]) -> None:
    name, at, by = place
    if change is longer and name.endswith("log.txt"):
        return  # it may grow, and that is said
    content = change((whole / name).read_bytes(), at, by)
    with replaced(whole / name, content):
        found = finding_of(whole)
    assert Path(name).name.removesuffix(".head") in found.where or found.where.startswith(
        ("audit.jsonl", "institutions/")
    )
    assert found.expected
    assert found.found


@pytest.mark.parametrize(("name", "step"), [("audit.head", 1), ("audit.jsonl", 4)])
def test_every_byte_of_what_is_signed(whole: Path, name: str, step: int) -> None:
    data = (whole / name).read_bytes()
    for place in range(0, len(data), step):
        with replaced(whole / name, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]):
            assert finding_of(whole).where.startswith("audit.")


def test_growth_of_a_log_is_told(whole: Path) -> None:
    name = "institutions/north/log.txt"
    content = (whole / name).read_bytes()
    with replaced(whole / name, content + b"more\n"):
        verdict = verify_run(whole)
    assert verdict.valid
    assert verdict.not_covered == (f"{name} from byte {len(content)} on",)


def test_a_file_beside_is_told(whole: Path) -> None:
    (whole / "adapter" / "notes.txt").write_text("mine")
    try:
        assert verify_run(whole).not_covered == ("adapter/notes.txt",)
    finally:
        (whole / "adapter" / "notes.txt").unlink()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(whole: Path, name: str) -> None:
    with replaced(whole / name, None):
        assert Path(name).name.removesuffix(".head") in finding_of(whole).where


@pytest.mark.parametrize("name", FILES)
def test_a_link_or_a_folder_in_a_files_place(whole: Path, name: str, tmp_path: Path) -> None:
    if "ledger.sqlite" in name or name.startswith("audit."):
        return  # read through: what they hold is checked
    moved = tmp_path / "moved"
    shutil.move(whole / name, moved)
    try:
        (whole / name).symlink_to(moved)
        assert name in finding_of(whole).where
        (whole / name).unlink()
        (whole / name).mkdir()
        assert name in finding_of(whole).where
        (whole / name).rmdir()
    finally:
        shutil.move(moved, whole / name)


def swapped(entries: list[bytes], at: int) -> list[bytes]:
    return [*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]]


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("how", ["deleted", "twice", "swapped", "cut-before"])
def test_entries_deleted_repeated_reordered_cut(whole: Path, at: int, how: str) -> None:
    entries = (whole / "audit.jsonl").read_bytes().splitlines(keepends=True)
    changed = {
        "deleted": [*entries[:at], *entries[at + 1 :]],
        "twice": [*entries[: at + 1], *entries[at:]],
        "swapped": swapped(entries, min(at, 3)),
        "cut-before": entries[:at],
    }[how]
    with replaced(whole / "audit.jsonl", b"".join(changed)):
        found = finding_of(whole)
    place = {"twice": at + 2, "swapped": min(at, 3) + 1}.get(how, at + 1)
    assert found.where == f"audit.jsonl, entry {place}"


# Who has keys


def rewritten(made: MadeRun, at: int, change: Callable[[dict[str, Any]], None], key: PrivateKey) -> None:
    """The log with one entry changed, chained anew and signed: what who holds a key can do."""
    entries = [json.loads(line) for line in (made.folder / "audit.jsonl").read_text().splitlines()]
    change(entries[at - 1])
    previous, bodies = "0" * 64, []
    for fields in entries:
        own = {name: value for name, value in fields.items() if name not in ("label", "kind", "sequence", "previous")}
        entry = make_entry(
            fields["kind"], sequence=fields["sequence"], previous=previous,  # type: ignore[arg-type]
            time_utc=own.pop("time_utc"), fields=own,
        )  # fmt: skip
        previous = entry.hash
        bodies.append(entry.body + b"\n")
    (made.folder / "audit.jsonl").write_bytes(b"".join(bodies))
    head = LogHead(made.run, len(bodies), entry.hash)
    (made.folder / "audit.head").write_text(head.signed(key))


def test_a_coordinator_cannot_tell_another_history(made: MadeRun) -> None:
    made.end()
    assert verify_run(made.folder).valid
    rewritten(made, 3, lambda entry: entry.update(time_utc="2031-01-01T00:00:00Z"), made.coordinator)
    found = finding_of(made.folder)
    assert found.where == "audit.jsonl, entry 3"
    assert "the receipt in institutions/bank-000/ledger.sqlite, entry 5" in found.expected
    assert "two histories" in found.found
    assert "coordinator" in found.signed_by


def test_two_histories_shown_to_two_institutions_are_found_in_any_two_ledgers(made: MadeRun, tmp_path: Path) -> None:
    """Each history fits the institution that saw it, and not the other."""
    made.end()
    shown = {}
    for name in made.names:
        shown[name] = tmp_path / name
        shutil.move(made.folder / "institutions" / name, shown[name])
    for name in made.names:  # both ledgers know the history that is here
        assert "institutions" in finding_of(made.folder, ledgers=[shown[name]]).where
    other = tmp_path / "other"
    shutil.copytree(made.folder, other)
    rewritten(made, 3, lambda entry: entry.update(time_utc="2031-01-01T00:00:00Z"), made.coordinator)
    for name in made.names:
        found = finding_of(made.folder, ledgers=[shown[name]])
        assert (found.where, "two histories" in found.found) == ("audit.jsonl, entry 3", True)


def test_a_stranger_cannot_sign_the_log_anew(made: MadeRun) -> None:
    made.end()
    stranger = PrivateKey.generate()
    rewritten(made, 1, lambda entry: entry.update(coordinator=stranger.public.text), stranger)
    found = finding_of(made.folder)
    assert "institutions/bank-000/ledger.sqlite, entry 2" in found.where
    assert finding_of(made.folder, key=made.coordinator.public.fingerprint).where == "audit.jsonl, entry 1"
    assert verify_run(made.folder, key=stranger.public.text).finding == found


def test_an_institution_cannot_rewrite_its_ledger(made: MadeRun) -> None:
    """It holds its own key; the coordinator holds its heads."""
    made.end()
    name = made.names[0]
    path = made.ledger_path(name)
    for file in path.parent.iterdir():
        file.unlink()
    with Ledger.open(path, signer=Signer(name, made.keys[name])) as ledger:
        ledger.record_refusal(run=made.run, round=1, dataset=name, reason="policy")
    found = finding_of(made.folder)
    assert found.where == "institutions/bank-000/ledger.sqlite"
    assert "another ledger" in found.found


def test_an_older_copy_of_a_ledger_is_found(made: MadeRun, tmp_path: Path) -> None:
    home = made.ledger_path(made.names[0]).parent
    older = tmp_path / "older"
    shutil.copytree(home, older)
    made.play()
    made.end()
    shutil.rmtree(home)
    shutil.copytree(older, home)
    found = finding_of(made.folder)
    assert found.where == "institutions/bank-000/ledger.sqlite, entry 13"
    assert "an older copy was put back" in found.found
    assert "bank-000" in found.signed_by


def test_an_older_copy_of_the_whole_folder_is_found_by_a_receipt_or_a_head(made: MadeRun, tmp_path: Path) -> None:
    made.play()
    older = tmp_path / "older"
    shutil.copytree(made.folder, older)
    made.play()
    remembered = (made.folder / "audit.head").read_text()
    made.end()
    assert finding_of(older).expected == "a log that ends"
    by_head = finding_of(older, heads=[remembered])
    assert (by_head.where, "an older copy" in by_head.found) == ("audit.jsonl, entry 7", True)
    assert finding_of(older, heads=[str(made.folder / "audit.head")]).where == "audit.jsonl, entry 8"
    shutil.rmtree(older / "institutions")
    found = finding_of(older, ledgers=[made.ledger_path(made.names[1])])
    assert (found.where, "the receipt in" in found.expected) == ("audit.jsonl, entry 7", True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e["heads"].pop("bank-000"), "what bank-000 signed beside its update"),
        (lambda e: e["updates"]["bank-000"].update(sha256="0" * 64), "the update of bank-000 with digest"),
        (lambda e: e["updates"]["bank-000"].update(released="0" * 64), "bytes with SHA-256 0000"),
        (lambda e: e["heads"].update({"bank-000": e["heads"]["bank-001"]}), "a head signed by bank-000"),
        (lambda e: e["heads"].update({"bank-009": e["heads"]["bank-001"]}), "signatures of keys in the roster"),
        (lambda e: e.update(missing=["bank-009"]), "institutions of the round's cohort"),
        (lambda e: e.update(plan="0" * 64), "the plan 0000"),
        (lambda e: e.update(record="0" * 64), "the line that entry 4"),
        (lambda e: e.update(adapter="0" * 64), "the adapter that entry 4"),
        (lambda e: e.update(checkpoint="0" * 64), "the file with SHA-256 0000|SHA-256 0000"),
    ],
)
def test_an_entry_that_does_not_fit_is_named_even_if_its_coordinator_signs_it(
    made: MadeRun, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    made.end()
    rewritten(made, 4, change, made.coordinator)
    found = finding_of(made.folder)
    assert any(part in found.expected for part in words.split("|")), found


def test_a_round_without_a_receipt_before_it(tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "run", 2, rounds=2)
    made.play()
    made.witnesses["bank-001"].accept = lambda run, head: None  # type: ignore[method-assign]
    made.play()
    made.end()
    found = finding_of(made.folder)
    assert found.where == "institutions/bank-001/ledger.sqlite, entry 6"
    assert "receipt" in found.expected


# What is no run, or not yet


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
