"""fedft audit verify: what holds is valid, and whatever was changed is found and named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedft.audit.verify import verify_run
from tests.audit.verified import KEPT_FOR_EVER, ROOT, finding_of, replaced

CHANGES = 800


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
