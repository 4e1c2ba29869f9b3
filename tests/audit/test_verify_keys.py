"""fedft audit verify against who has keys: another history, an older copy, entries that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedft.audit.verify import verify_run
from fedft.identity.keys import PrivateKey
from fedft.ledger.chain import Signer
from fedft.ledger.store import Ledger
from fedft.records.entries import make_entry
from fedft.records.heads import LogHead
from tests.audit.verified import finding_of
from tests.made_run import MadeRun


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
