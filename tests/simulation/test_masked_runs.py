"""Runs in which the coordinator sees sums alone: the same adapter, and what happens when someone drops out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedft.config import FederationConfig, parse_config
from fedft.errors import ConfigError, QuorumNotReached, StorageError
from fedft.ledger.entries import Entry
from fedft.ledger.store import Ledger
from fedft.privacy.events import DpSgdRound
from fedft.rounds.progress import Observer
from fedft.simulation.run import play
from tests.federation import NAMES, OFF, adapter_of, federation_body, records_of, rows_of
from tests.tiny import write_jsonl

FOUR = (*NAMES, "east")
MASKED = "secure_aggregation.enabled=true"
Faults = dict[str, dict[str, Any]]


def four(folder: Path, *overrides: str, faults: Faults | None = None) -> FederationConfig:
    """Four institutions, so that one may drop out: three of them are enough."""
    body = federation_body(folder)
    write_jsonl(folder / "east.jsonl", rows_of(3))
    body["institutions"] = [
        {"name": name, "data": f"{name}.jsonl", "faults": (faults or {}).get(name, {})} for name in FOUR
    ]
    return parse_config(body, folder=folder, overrides=overrides)


def played(tmp_path: Path, *overrides: str, faults: Faults | None = None, **options: Any) -> list[dict[str, Any]]:
    play(four(tmp_path, MASKED, *overrides, faults=faults), folder=tmp_path / "run", **options)
    return records_of(tmp_path / "run")


def entries_of(folder: Path, name: str) -> tuple[Entry, ...]:
    with Ledger.open(folder / "run" / "institutions" / name / "ledger.sqlite", read_only=True) as ledger:
        return ledger.entries()


def test_masks_change_nothing_but_who_sees_what(tmp_path: Path) -> None:
    """The sum of masked updates is that of the bare ones, up to the rounding of each to a whole number of 31 bits."""
    play(four(tmp_path, *OFF), folder=tmp_path / "bare")
    (first, _) = played(tmp_path, *OFF)
    bare, masked = adapter_of(tmp_path / "bare"), adapter_of(tmp_path / "run")
    assert np.abs(bare - masked).max() <= 1e-6
    secure = first["secure_aggregation"]
    assert secure["uploaded"] == sorted(FOUR)
    assert (secure["dropped"], secure["silent"], secure["lied"], secure["abandoned"]) == ([], [], [], None)
    assert (secure["threshold"], secure["ring_bits"]) == (3, 32)
    assert first["bytes_up"] > 4 * secure["bytes_vector"] > 0
    assert secure["bytes_shares"] > 0
    assert secure["seconds"] > 0
    assert not [path.name for path in (tmp_path / "run").rglob("*") if path.suffix == ".key"], "no key outlives a run"


def test_weights_are_applied_before_the_sum(tmp_path: Path) -> None:
    weights = "aggregation.weights={ north = 1.0, south = 3.0, west = 0.5, east = 2.5 }"
    play(four(tmp_path, weights, *OFF), folder=tmp_path / "bare")
    played(tmp_path, weights, *OFF)
    assert np.abs(adapter_of(tmp_path / "bare") - adapter_of(tmp_path / "run")).max() <= 1e-6


@pytest.mark.parametrize("method", ["fedavg", "ffa_lora", "fed_svd"])
def test_every_method_works_in_a_narrow_ring(method: str, tmp_path: Path) -> None:
    """16 bits: coarser, half the bytes, and no bias."""
    (first, _) = played(tmp_path, f"aggregation.method={method}", "secure_aggregation.ring_bits=16", *OFF)
    play(four(tmp_path, f"aggregation.method={method}", *OFF), folder=tmp_path / "bare")
    bare = np.abs(records_of(tmp_path / "bare")[0]["update_norm"] - first["update_norm"])
    assert bare <= 0.02 * first["update_norm"]
    assert first["secure_aggregation"]["bytes_vector"] == pytest.approx(
        2 * json.loads((tmp_path / "run" / "summary.json").read_text())["parameters_trained"], abs=1
    )


def test_the_ledger_holds_what_was_charged_what_left_and_for_which_set(tmp_path: Path) -> None:
    played(tmp_path)
    intents = [entry.fields for entry in entries_of(tmp_path, "north") if entry.kind == "intent"]
    purposes = [fields["purpose"] for fields in intents]
    assert purposes == ["update", "secagg-shares"] * 2
    update, shares = intents[0], intents[1]
    assert update["event"]["kind"] == "dp-sgd-round"
    context = records_of(tmp_path / "run")[0]["secure_aggregation"]["context"]
    assert update["evidence"]["secagg_context"] == context
    assert update["evidence"]["secagg_cohort"] == 4
    assert update["evidence"]["secagg_threshold"] == 3
    assert shares["event"] == {"kind": "data-independent-release"}
    told = {key: value for key, value in shares["evidence"].items() if key != "salt"}
    assert told == {"uploaded": 4, "dropped": 0, "names_dropped": ""}


def test_one_that_drops_before_its_upload_is_left_out(tmp_path: Path) -> None:
    first, second = played(tmp_path, *OFF, faults={"east": {"drop_rounds": [1]}})
    play(four(tmp_path, *OFF, faults={"east": {"drop_rounds": [1]}}), folder=tmp_path / "bare")
    assert first["secure_aggregation"]["dropped"] == ["east"]
    assert first["updates"] == sorted(NAMES)
    assert second["secure_aggregation"]["dropped"] == []
    assert np.abs(adapter_of(tmp_path / "bare") - adapter_of(tmp_path / "run")).max() <= 1e-6
    shares = [e.fields for e in entries_of(tmp_path, "north") if e.fields.get("purpose") == "secagg-shares"]
    assert shares[0]["evidence"]["names_dropped"] == "east"


def test_one_that_uploads_and_is_gone_stays_in_the_sum(tmp_path: Path) -> None:
    first, _ = played(tmp_path, *OFF, faults={"east": {"silent_rounds": [1]}})
    play(four(tmp_path, *OFF), folder=tmp_path / "bare")
    assert first["secure_aggregation"]["silent"] == ["east"]
    assert first["updates"] == sorted(FOUR)
    assert np.abs(adapter_of(tmp_path / "bare") - adapter_of(tmp_path / "run")).max() <= 1e-6


def test_too_few_uploads_abandon_the_round_and_nothing_is_revealed(tmp_path: Path) -> None:
    faults: Faults = {"east": {"drop_rounds": [1]}, "west": {"drop_rounds": [1]}}
    first, second = played(tmp_path, faults=faults)
    assert (first["quorum"], first["secure_aggregation"]["abandoned"]) == (False, "quorum-not-reached")
    assert second["quorum"]
    assert not [
        entry for entry in entries_of(tmp_path, "north")
        if entry.fields.get("round") == 1 and entry.fields.get("purpose") == "secagg-shares"
    ]  # fmt: skip


def test_too_few_answers_abandon_the_round_cleanly_and_it_stays_paid(tmp_path: Path) -> None:
    faults: Faults = {"east": {"silent_rounds": [1]}, "west": {"silent_rounds": [1]}}
    first, second = played(tmp_path, faults=faults)
    assert (first["quorum"], first["secure_aggregation"]["abandoned"]) == (False, "quorum-not-reached")
    assert second["quorum"]
    with Ledger.open(tmp_path / "run" / "institutions" / "north" / "ledger.sqlite", read_only=True) as ledger:
        charged = [event for event in ledger.events("north") if isinstance(event, DpSgdRound)]
    assert len(charged) == 2


def test_one_that_sends_something_else_is_a_drop_out(tmp_path: Path) -> None:
    first, _ = played(tmp_path, *OFF, faults={"east": {"corrupt_rounds": [1]}})
    assert first["refused"] == {"east": "update"}
    assert first["secure_aggregation"]["dropped"] == ["east"]
    assert first["quorum"]


def test_one_whose_budget_is_spent_is_a_drop_out(tmp_path: Path) -> None:
    body = four(tmp_path, MASKED, "federation.rounds=3").model_dump(mode="json")
    body["institutions"][3]["epsilon"] = 5.5
    config = parse_config(body, folder=tmp_path)
    play(config, folder=tmp_path / "run")
    last = records_of(tmp_path / "run")[-1]
    assert last["refused"] == {"east": "budget-exhausted"}
    assert last["secure_aggregation"]["dropped"] == ["east"]
    assert last["quorum"]


def test_fewer_than_three_are_no_sum_to_hide_in(tmp_path: Path) -> None:
    body = federation_body(tmp_path)
    body["institutions"] = body["institutions"][:2]
    with pytest.raises(ConfigError, match="cohort of 3 to 4096 for secure aggregation, found 2"):
        play(parse_config(body, folder=tmp_path, overrides=(MASKED,)), folder=tmp_path / "run")


def test_too_high_a_threshold_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"secure_aggregation\.threshold from 3 to 4 for this cohort, found 5"):
        played(tmp_path, "secure_aggregation.threshold=5")
    assert not (tmp_path / "run" / "secagg.json").exists()


def test_gradients_that_nothing_clips_need_a_range(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"secure_aggregation\.range"):
        four(tmp_path, MASKED, "training.optimizer=sgd", *OFF)
    assert played(tmp_path, "training.optimizer=sgd", "secure_aggregation.range=0.5", *OFF)[0]["quorum"]


def test_values_beyond_the_range_are_cut_off_and_the_institution_notes_how_many(tmp_path: Path) -> None:
    played(tmp_path, "secure_aggregation.range=1e-4", *OFF)
    notes = (tmp_path / "run" / "institutions" / "north" / "log.txt").read_text()
    cut = [int(line.split("cut off ")[1].split()[0]) for line in notes.splitlines() if "cut off" in line]
    assert len(cut) == 2
    assert min(cut) > 0


class Interrupted(Exception):
    pass


class EndAfter(Observer):
    """Ends the process's work after so many rounds, as an interruption does."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def round_finished(self, record: Any) -> None:
        if record["round"] == self._rounds:
            raise Interrupted


def test_a_folder_whose_setup_is_damaged_is_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        played(tmp_path, observer=EndAfter(1))
    (tmp_path / "run" / "secagg.json").write_text('{"setup": 7}')
    with pytest.raises(StorageError, match=r"secagg\.json"):
        played(tmp_path, resume=True)


def test_three_lost_rounds_in_a_row_end_the_run(tmp_path: Path) -> None:
    faults: Faults = {name: {"silent_rounds": [1, 2, 3]} for name in ("east", "west")}
    with pytest.raises(QuorumNotReached):
        played(tmp_path, "federation.rounds=4", faults=faults)
