"""What may touch the sum: whatever is wrong with an update, it leaves no bit in it and ends no round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedft.rounds.open_round import OpenRound
from fedft.rounds.progress import Observer
from fedft.update.release import Refusal
from tests.rounds.small import (
    COHORT,
    LAYOUT,
    bits,
    coordinator,
    delta_of,
    opened,
    play_round,
    refusal_of,
    update_of,
)


def flipped(update: bytes) -> bytes:
    return update[:-1] + bytes([update[-1] ^ 1])


HOSTILE: dict[str, tuple[str, Callable[[OpenRound], bytes]]] = {
    "nan": ("non-finite-update", lambda r: update_of("west", r, delta=np.full(LAYOUT.size, np.nan, np.float32))),
    "one-nan": (
        "non-finite-update",
        lambda r: update_of("west", r, delta=np.where(np.arange(14) == 3, np.float32("nan"), delta_of("west"))),
    ),
    "infinity": ("non-finite-update", lambda r: update_of("west", r, delta=np.full(14, np.inf, np.float32))),
    "giant-norm": ("update-too-large", lambda r: update_of("west", r, delta=np.full(14, 1e30, np.float32))),
    "largest-float": ("update-too-large", lambda r: update_of("west", r, delta=np.full(14, 3e38, np.float32))),
    "just-too-large": (
        "update-too-large",
        lambda r: update_of("west", r, delta=np.eye(14, dtype=np.float32)[0] * 1001),
    ),
    "another-layout": ("layout-mismatch", lambda r: update_of("west", r, layout_digest="f" * 64)),
    "fewer-values": ("update", lambda r: update_of("west", r, delta=delta_of("west", size=13))),
    "more-values": ("update", lambda r: update_of("west", r, delta=delta_of("west", size=15))),
    "no-values": ("update", lambda r: update_of("west", r, delta=np.empty(0, np.float32))),
    "an-earlier-round": ("stale-update", lambda r: update_of("west", r, round=r.plan.round - 1)),
    "a-later-round": ("stale-update", lambda r: update_of("west", r, round=r.plan.round + 1)),
    "another-run": ("stale-update", lambda r: update_of("west", r, run="tiny/2")),
    "another-plan": ("stale-update", lambda r: update_of("west", r, plan_digest="f" * 64)),
    "in-anothers-name": ("update", lambda r: update_of("south", r)),
    "in-a-strangers-name": ("update", lambda r: update_of("mallory", r)),
    "an-altered-value": ("update", lambda r: flipped(update_of("west", r))),
    "cut-short": ("update", lambda r: update_of("west", r)[:-4]),
    "no-update-at-all": ("update", lambda r: b"\x80\x04]."),
    "nothing": ("update", lambda r: b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_update_is_refused_and_the_sum_has_not_a_bit_of_it(name: str, tmp_path: Path) -> None:
    """In round 2, so that there is an earlier one; west before and after the honest ones."""
    word, make = HOSTILE[name]
    adapters = []
    for number, order in enumerate([("north", "south"), ("west", "north", "south"), ("north", "west", "south")]):
        played = coordinator(tmp_path / str(number))
        play_round(played)
        asked = opened(played)
        for sender in order:
            asked.receive(sender, make(asked) if sender == "west" else update_of(sender, asked))
        record = played.close(asked, bytes_down=0)
        assert record["updates"] == ["north", "south"]
        assert (record["refused"], record["missing"]) == (({"west": word}, []) if number else ({}, ["west"]))
        adapters.append(bits(played))
    assert len(set(adapters)) == 1


def test_the_norm_at_the_limit_is_accepted(tmp_path: Path) -> None:
    asked = opened(coordinator(tmp_path))
    asked.receive("west", update_of("west", asked, delta=np.eye(14, dtype=np.float32)[0] * 1000))
    assert asked.accepted == {"west"}


def test_the_first_of_two_updates_counts(tmp_path: Path) -> None:
    once, twice = coordinator(tmp_path / "once"), coordinator(tmp_path / "twice")
    play_round(once)
    asked = opened(twice)
    for name in (*COHORT, "north", "south"):
        asked.receive(name, update_of(name, asked))
    asked.receive("north", update_of("north", asked, delta=np.ones(14, np.float32)))
    asked.refuse("south", refusal_of("south", asked))
    record = twice.close(asked, bytes_down=0)
    assert (record["updates"], record["refused"]) == (list(COHORT), {})
    assert bits(once) == bits(twice)


def test_a_sender_outside_the_cohort_changes_nothing_not_even_the_list(tmp_path: Path) -> None:
    played = coordinator(tmp_path)
    asked = opened(played)
    asked.receive("mallory", update_of("mallory", asked))
    asked.receive("mallory", update_of("north", asked))
    asked.refuse("mallory", Refusal("mallory", "tiny/1", 1, "data"))
    asked.malformed("mallory")
    record = played.close(asked, bytes_down=0)
    assert (record["updates"], record["refused"], record["missing"]) == ([], {}, list(COHORT))


def test_a_refusal_that_is_not_this_rounds_or_not_the_senders_is_not_believed(tmp_path: Path) -> None:
    """Nobody can end another's part, or a run, with an old word or a borrowed name."""
    played = coordinator(tmp_path)
    asked = opened(played)
    asked.refuse("north", Refusal("south", "tiny/1", 1, "budget-exhausted"))
    asked.refuse("south", Refusal("south", "tiny/1", 2, "budget-exhausted"))
    asked.refuse("west", Refusal("west", "tiny/2", 1, "budget-exhausted"))
    record = played.close(asked, bytes_down=0)
    assert record["refused"] == dict.fromkeys(COHORT, "update")
    assert not played.finished


def test_an_update_after_a_bad_one_is_accepted(tmp_path: Path) -> None:
    asked = opened(coordinator(tmp_path))
    asked.receive("west", b"nonsense")
    asked.receive("west", update_of("west", asked))
    assert (asked.accepted, asked.refused) == ({"west"}, {})


def test_a_weight_that_takes_a_value_out_of_range_is_a_refusal_not_an_end(tmp_path: Path) -> None:
    played = coordinator(tmp_path, weights={"north": 1e6}, max_update_norm=1e6)
    asked = opened(played)
    asked.receive("north", update_of("north", asked, delta=np.full(14, 1.0, np.float32)))
    asked.receive("south", update_of("south", asked))
    assert (asked.accepted, asked.refused) == ({"south"}, {"north": "update-too-large"})


def test_what_arrived_is_counted_and_what_was_said_is_told(tmp_path: Path) -> None:
    heard: list[tuple[str, str]] = []

    class Listening(Observer):
        def answered(self, institution: str, outcome: str) -> None:
            heard.append((institution, outcome))

    played = coordinator(tmp_path, observer=Listening())
    asked = opened(played)
    update, rubbish = update_of("north", asked), b"rubbish"
    asked.receive("north", update)
    asked.receive("south", rubbish)
    asked.missing("west")
    asked.missing("north")
    record = played.close(asked, bytes_down=5, seconds_training=0.5)
    assert heard == [("north", "update"), ("south", "update"), ("west", "missing")]
    assert record["bytes_up"] == len(update) + len(rubbish)
    assert (record["bytes_down"], record["seconds_training"]) == (5, 0.5)
