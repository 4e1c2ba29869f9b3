"""How findings are told, and what they come to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedft.audit.findings import BAD_INPUT, FOUND, HOLDS, bad_input, claim, exit_code, note, rounds_text


def test_a_false_claim_weighs_more_than_what_cannot_be_read_and_a_note_nothing() -> None:
    false, unread, seen = (make("code", "where", "text") for make in (claim, bad_input, note))
    assert exit_code([]) == exit_code([seen]) == HOLDS
    assert exit_code([seen, unread]) == BAD_INPUT
    assert exit_code([unread, false, seen]) == FOUND


@given(st.sets(st.integers(0, 40), min_size=1))
def test_rounds_are_told_in_ranges(numbers: set[int]) -> None:
    told: set[int] = set()
    for part in rounds_text(numbers).removeprefix("rounds ").removeprefix("round ").split(", "):
        first, _, last = part.partition("-")
        told |= set(range(int(first), int(last or first) + 1))
    assert told == numbers
