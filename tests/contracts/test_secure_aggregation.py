"""Promise: under secure aggregation a round has one masked update and one set of revealed shares, and costs no privacy.

Across restarts of the coordinator and under whatever setup. Between the machines themselves: tests/secagg/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedft.ledger.store import Ledger
from fedft.privacy.events import DataIndependentRelease, UnprotectedRelease
from fedft.rounds.masked_sum import MaskedSum
from fedft.secagg.messages import UPLOAD_MAGIC
from fedft.simulation.run import play
from tests.federation import OFF, adapter_of, records_of
from tests.simulation.test_masked_runs import FOUR, MASKED, entries_of, four, played


def test_masks_cost_no_privacy(tmp_path: Path) -> None:
    play(four(tmp_path), folder=tmp_path / "bare")
    played(tmp_path)
    bare, masked = records_of(tmp_path / "bare"), records_of(tmp_path / "run")
    assert [record["epsilon"] for record in bare] == [record["epsilon"] for record in masked]


def test_what_left_is_a_masked_vector_and_never_an_update(tmp_path: Path) -> None:
    """The ledger keeps the very bytes: an upload behind its context, in which no value of the update stands."""
    played(tmp_path, *OFF)
    path = tmp_path / "run" / "institutions" / "north" / "ledger.sqlite"
    with Ledger.open(path, read_only=True) as ledger:
        run = ledger.entries()[1].fields["run"]
        payload = ledger.stored_release(run, 2, "update")
        events = ledger.events("north")
    assert payload is not None
    assert UPLOAD_MAGIC in payload
    assert b"FEDFTUPD" not in payload
    assert events == (UnprotectedRelease(), DataIndependentRelease()) * 2


@pytest.mark.parametrize("moment", ["questions", "answer", "mean"])
def test_a_run_that_dies_between_the_exchanges_goes_on_to_the_same_bits(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed, it asks for the same round in the same setup, and gets the stored bytes."""
    whole = tmp_path / "whole"
    whole.mkdir()
    play(four(tmp_path, MASKED, *OFF), folder=whole / "run")

    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(MaskedSum, moment, kill)
        with pytest.raises(Killed):
            played(tmp_path, *OFF)
    before = [entry.hash for entry in entries_of(tmp_path, "north")]
    records = played(tmp_path, *OFF, resume=True)
    assert all(record["quorum"] for record in records)
    assert [entry.hash for entry in entries_of(tmp_path, "north")][: len(before)] == before
    charged = [e for e in entries_of(tmp_path, "north") if e.kind == "intent" and e.fields["purpose"] == "update"]
    assert len(charged) == 2
    assert adapter_of(tmp_path / "run").tobytes() == adapter_of(whole / "run").tobytes()


def test_a_lost_setup_makes_a_round_that_was_begun_a_loss_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under other keys the vector is not masked a second time: two sets would give the difference away."""

    class Killed(BaseException):
        pass

    def kill(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(MaskedSum, "questions", kill)
        with pytest.raises(Killed):
            played(tmp_path)
    (tmp_path / "run" / "secagg.json").unlink()
    first, second = played(tmp_path, resume=True)
    assert first["refused"] == dict.fromkeys(FOUR, "stale-round")
    assert not first["quorum"]
    assert second["quorum"]
