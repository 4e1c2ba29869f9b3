"""tests/vectors/audit_log.json: made without fedft, read as coordinator, institution and auditor do."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from fedft import errors
from fedft.errors import IdentityError, RecordError
from fedft.identity.keys import PublicKey
from fedft.ledger.attestation import open_attestation
from fedft.records.entries import parse_entry
from fedft.records.heads import LogHead
from fedft.records.log import Chain

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "audit_log.json").read_text())
COORDINATOR, NORTH = PublicKey(VECTORS["coordinator"]), PublicKey(VECTORS["north"])


def chained(lines: list[str]) -> Chain:
    chain = Chain()
    for line in lines:
        chain.add(parse_entry(line.encode()))
    return chain


def test_the_file_is_what_its_script_makes() -> None:
    assert runpy.run_path(str(FOLDER / "make_audit_log.py"))["vectors"]() == VECTORS


def test_the_honest_log_is_read() -> None:
    chain = chained(VECTORS["log"])
    head = LogHead.open(VECTORS["head"], COORDINATOR)
    assert (head.run, head.count, head.hash) == ("hospitals-1", chain.count, chain.hash)
    assert LogHead.claimed(VECTORS["head"]) == head
    attestation = open_attestation(VECTORS["attestation"], "north", NORTH)
    attestation.require_answer(run="hospitals-1", round=1, answer=VECTORS["answer"].encode())
    for changed in ({"run": "hospitals-2"}, {"round": 2}, {"answer": b"another"}):
        asked: dict[str, Any] = {"run": "hospitals-1", "round": 1, "answer": VECTORS["answer"].encode(), **changed}
        with pytest.raises(IdentityError):
            attestation.require_answer(**asked)


def test_the_honest_log_of_a_run_that_one_left_is_read() -> None:
    chain = chained(VECTORS["log_with_withdrawal"])
    assert (chain.round, chain.contributed) == (2, {"north": 1})


def test_the_honest_log_of_a_run_that_goes_on_from_anothers_state_is_read() -> None:
    chain = chained(VECTORS["log_with_parent"])
    assert (chain.base, chain.round, chain.contributed) == (2, 3, {"north": 3})


@pytest.mark.parametrize("name", VECTORS["hostile_entries"])
def test_what_is_no_entry_is_refused_and_no_word_of_it_told(name: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_entry(VECTORS["hostile_entries"][name].encode())
    assert "17" not in str(caught.value)
    assert "1200" not in str(caught.value)


@pytest.mark.parametrize("name", VECTORS["hostile_logs"])
def test_what_is_no_log_is_refused(name: str) -> None:
    with pytest.raises(RecordError):
        chained(VECTORS["hostile_logs"][name])


@pytest.mark.parametrize("name", VECTORS["hostile_heads"])
def test_what_is_no_head_of_the_coordinators_is_refused(name: str) -> None:
    case = VECTORS["hostile_heads"][name]
    with pytest.raises(getattr(errors, case["raises"])) as caught:
        LogHead.open(case["note"], COORDINATOR)
    assert type(caught.value) is getattr(errors, case["raises"])


@pytest.mark.parametrize("name", VECTORS["hostile_attestations"])
def test_what_is_no_attestation_of_norths_is_refused(name: str) -> None:
    with pytest.raises(IdentityError):
        open_attestation(VECTORS["hostile_attestations"][name], "north", NORTH)


def test_a_head_with_any_byte_altered_is_refused() -> None:
    note = VECTORS["head"]
    for place in range(len(note)):
        for other in ("x", "\n", "0", "A"):
            if note[place] != other:
                with pytest.raises((IdentityError, RecordError)):
                    LogHead.open(note[:place] + other + note[place + 1 :], COORDINATOR)
