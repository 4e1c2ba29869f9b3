"""What follows what, and what a history says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import LedgerCorrupt
from fedft.ledger.chain import KEPT_ROUNDS, KEPT_RUNS, Chain, Head
from fedft.ledger.entries import Entry, intent_fields
from fedft.privacy.events import GaussianRelease
from fedft.types import Digest

TIME = "2026-01-31T23:59:58Z"


def begun() -> Chain:
    chain = Chain()
    chain.add(chain.make("start", TIME, {"ledger": "0" * 32}))
    return chain


def intent(chain: Chain, round: int = 1, run: str = "run-1", dataset: str = "notes", purpose: str = "update") -> Entry:
    fields = intent_fields(
        run=run,
        round=round,
        purpose=purpose,
        dataset=dataset,
        plan_digest="1" * 64,
        event=GaussianRelease(1.0 + round),
        evidence={},
    )
    return chain.make("intent", TIME, fields)


def release(chain: Chain, of: int, round: int = 1, run: str = "run-1", **changes: Any) -> Entry:
    fields = {"run": run, "round": round, "purpose": "update", "intent": of, "bytes": 3, "sha256": "b" * 64}
    return chain.make("release", TIME, {**fields, **changes})


def add_round(chain: Chain, round: int, run: str = "run-1") -> int:
    """The release's number."""
    chain.add(intent(chain, round, run))
    chain.add(release(chain, chain.count, round, run))
    return chain.count


def refuses(chain: Chain, entry: Entry, match: str) -> None:
    before = chain.head
    with pytest.raises(LedgerCorrupt, match=match):
        chain.add(entry)
    assert chain.head == before


def test_only_the_entry_that_follows_is_taken() -> None:
    chain = begun()
    early = intent(chain, 1)
    chain.add(early)
    refuses(chain, early, "expected sequence number 3, found 2")
    refuses(chain, replace(intent(chain, 2), sequence=4), "expected sequence number 3, found 4")
    refuses(chain, replace(intent(chain, 2), previous=Digest("c" * 64)), "hash of the entry before")
    refuses(chain, chain.make("start", TIME, {"ledger": "1" * 32}), "the first entry and no other")
    refuses(chain, intent(chain, 1), "one intent for a run, round and purpose")
    with pytest.raises(LedgerCorrupt, match="the first entry and no other"):
        Chain().add(intent(Chain()))


def test_a_release_belongs_to_its_own_intent_and_comes_once() -> None:
    chain = begun()
    chain.add(intent(chain, 1))
    refuses(chain, release(chain, 1), "a release of an intent recorded before")
    refuses(chain, release(chain, 2, round=2), "a release of an intent recorded before")
    refuses(chain, release(chain, 2, purpose="fisher"), "a release of an intent recorded before")
    chain.add(release(chain, 2))
    refuses(chain, release(chain, 2), "one release of an intent")


def test_events_are_those_of_one_data_set_over_all_runs_in_order() -> None:
    chain = begun()
    for round, run, dataset in [(3, "run-1", "notes"), (1, "run-2", "memos"), (2, "run-2", "notes")]:
        chain.add(intent(chain, round, run, dataset))
    assert chain.events("notes") == (GaussianRelease(4.0), GaussianRelease(3.0))
    assert chain.events("letters") == ()
    assert chain.datasets() == ("memos", "notes")
    assert [chain.last_round(run) for run in ("run-1", "run-2", "run-3")] == [3, 2, 0]


def test_the_newest_rounds_of_the_newest_runs_are_kept() -> None:
    chain = begun()
    numbers = {
        (run, round): add_round(chain, round, f"run-{run}") for run in range(KEPT_RUNS + 1) for round in (1, 2, 3)
    }
    assert KEPT_ROUNDS == 2
    assert chain.kept_releases() == {number for (run, round), number in numbers.items() if run >= 1 and round >= 2}


def test_all_releases_of_a_round_are_kept_together_and_the_last_one_always() -> None:
    chain = begun()
    add_round(chain, 1)
    second, third = add_round(chain, 2), add_round(chain, 3)
    chain.add(intent(chain, 3, purpose="fisher"))
    chain.add(release(chain, chain.count, 3, purpose="fisher"))
    assert chain.kept_releases() == {second, third, chain.count}
    late = add_round(chain, 0)
    assert late in chain.kept_releases()


def test_a_history_holds_every_head_it_had_and_no_other() -> None:
    chain, other = begun(), begun()
    heads = [chain.head]
    for round in range(1, 6):
        add_round(chain, round)
        heads.append(chain.head)
    for head in heads:
        chain.require_holds(head)
    add_round(other, 9)
    for head in (
        other.head,
        replace(heads[2], count=4),
        replace(heads[2], ledger="1" * 32),
        replace(heads[2], count=0),
    ):
        with pytest.raises(LedgerCorrupt):
            chain.require_holds(head)
    with pytest.raises(LedgerCorrupt, match="entry 4: expected 11 entries as the head says, found 3"):
        other.require_holds(chain.head)


def test_a_head_comes_back_from_its_text() -> None:
    head = begun().head
    assert head.as_text() == f"fedft/v1/ledger-head\n{'0' * 32}\n1\n{head.hash}\n"
    assert Head.from_text(head.as_text()) == head


@given(st.integers(0, 200), st.text(max_size=3))
def test_another_text_is_another_head_or_none(position: int, replacement: str) -> None:
    head = begun().head
    text = head.as_text()
    changed = text[:position] + replacement + text[position + len(replacement) :]
    try:
        assert (Head.from_text(changed) == head) == (changed == text)
    except LedgerCorrupt:
        assert changed != text
