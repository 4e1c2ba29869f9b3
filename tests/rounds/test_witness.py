"""What an institution keeps of a coordinator's log, and what it refuses to believe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedft.errors import IdentityError
from fedft.identity.keys import PrivateKey
from fedft.ledger.attestation import open_attestation
from fedft.ledger.chain import Signer
from fedft.ledger.store import Ledger
from fedft.records.heads import LogHead
from fedft.rounds.messages import encode_notice, split_attestation
from fedft.rounds.witness import Witness
from fedft.types import Digest

COORDINATOR, NORTH = PrivateKey.generate(), PrivateKey.generate()


def head(count: int, digit: str = "a", run: str = "run-1", key: PrivateKey = COORDINATOR) -> str:
    return LogHead(run, count, Digest(digit * 64)).signed(key)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", signer=Signer("north", NORTH)) as opened:
        yield opened


@pytest.fixture
def witness(ledger: Ledger) -> Witness:
    return Witness(Signer("north", NORTH), coordinator=COORDINATOR.public, ledger=ledger)


def receipts(ledger: Ledger) -> list[str]:
    return [entry.fields["head"] for entry in ledger.entries() if entry.kind == "receipt"]


def test_a_head_is_kept_once_and_those_after_it(witness: Witness, ledger: Ledger) -> None:
    for told in (head(2), head(2), head(3, "b"), head(2), head(7, "c"), head(3, "b")):
        witness.accept("run-1", told)
    witness.accept("run-2", head(1, "d", "run-2"))
    assert receipts(ledger) == [head(2), head(3, "b"), head(7, "c"), head(1, "d", "run-2")]


@pytest.mark.parametrize(
    "told",
    [
        head(3, "c"), head(2), head(1), head(4, key=NORTH), head(4, run="run-2"), "no head",
        head(4).replace("\n4\n", "\n5\n"), "",
    ],
    ids=["fork", "unseen", "older", "another key", "another run", "no note", "altered", "none"],
)  # fmt: skip
def test_another_history_is_refused_and_nothing_is_kept(witness: Witness, ledger: Ledger, told: str) -> None:
    witness.accept("run-1", head(3, "b"))
    with pytest.raises(IdentityError):
        witness.accept("run-1", told)
    assert receipts(ledger) == [head(3, "b")]


def test_an_answer_goes_out_behind_the_head_of_the_ledger_as_it_stands(witness: Witness, ledger: Ledger) -> None:
    witness.accept("run-1", head(2))
    note, answer = split_attestation(witness.attested(b"FEDFTUPD...", run="run-1", round=4))
    found = open_attestation(note, "north", NORTH.public)
    assert (answer, found.head, found.round) == (b"FEDFTUPD...", ledger.head, 4)


def test_a_notice_is_kept_and_replied_to(witness: Witness, ledger: Ledger) -> None:
    notice = encode_notice("run-1", head(9))
    found = open_attestation(witness.notice(notice).decode(), "north", NORTH.public)
    found.require_answer(run="run-1", round=0, answer=notice)
    assert receipts(ledger) == [head(9)]
    for told in (head(8), ""):
        with pytest.raises(IdentityError):
            witness.notice(encode_notice("run-1", told))


def test_receipts_outlive_the_process_and_the_file_of_the_head_is_signed(witness: Witness, ledger: Ledger) -> None:
    witness.accept("run-1", head(3))
    path = ledger._path
    ledger.close()
    with Ledger.open(path, signer=Signer("north", NORTH)) as again, pytest.raises(IdentityError):
        Witness(Signer("north", NORTH), coordinator=COORDINATOR.public, ledger=again).accept("run-1", head(3, "b"))
    assert "\n\u2014 north " in Path(f"{path}.head").read_text()
