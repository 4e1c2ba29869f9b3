"""What comes twice, late, or from a coordinator that forgot: nothing counts twice, nothing is paid twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from fedft.errors import QuorumNotReached
from fedft.flower.local_grid import LocalGrid
from fedft.rounds.run_folder import RunFolder
from tests.deployment.deployed import Deployed
from tests.federation import NAMES, OFF, adapter_of, federation, records_of

ROUNDS = 4


@pytest.fixture
def backups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where a copy of the run folder stays as it was after each round."""
    commit = RunFolder.commit

    def copying(self: RunFolder, round: int, **state: Any) -> None:
        commit(self, round, **state)
        shutil.copytree(self.path, tmp_path / "backups" / str(round), dirs_exist_ok=True)

    monkeypatch.setattr(RunFolder, "commit", copying)
    return tmp_path / "backups"


def test_a_coordinator_from_yesterdays_backup_gets_stored_bytes_or_a_refusal(
    short: Path, tmp_path: Path, backups: Path
) -> None:
    members = Deployed(short / "all", federation(short / "data", f"federation.rounds={ROUNDS}"))
    members.play(tmp_path / "run")
    members.close()
    assert [len(members.charges(name)) for name in NAMES] == [ROUNDS] * 3
    charged = {name: members.charges(name) for name in NAMES}

    for name in NAMES:
        members.start_again(name)
    members.play(backups / "2")  # round 3 again: its bytes are kept; round 4 follows from another entry of round 3
    assert np.array_equal(adapter_of(backups / "2", 3), adapter_of(tmp_path / "run", 3))
    assert records_of(backups / "2")[2]["updates"] == sorted(NAMES)
    assert records_of(backups / "2")[3]["refused"] == dict.fromkeys(NAMES, "identity")

    with pytest.raises(QuorumNotReached, match="identity"):
        members.play(backups / "1")  # round 2's are not kept, and what follows is another history
    refused = [record["refused"] for record in records_of(backups / "1")]
    assert refused == [{}, dict.fromkeys(NAMES, "ledger"), *[dict.fromkeys(NAMES, "identity")] * 2]
    members.close()
    assert {name: members.charges(name) for name in NAMES} == charged


@pytest.fixture(scope="module")
def undisturbed(short_for_all: Path) -> Path:
    """A run without privacy that nothing disturbs."""
    members = Deployed(short_for_all / "all", federation(short_for_all / "data", *OFF))
    members.play(short_for_all / "run")
    members.close()
    return short_for_all / "run"


class Twice(LocalGrid):
    """Everything arrives two times."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for reply in super().pull_messages(message_ids):
            yield reply
            yield reply


def test_an_answer_that_comes_twice_counts_once(short: Path, tmp_path: Path, undisturbed: Path) -> None:
    members = Deployed(short / "all", federation(short / "data", *OFF))
    members.play(tmp_path / "run", grid=Twice)
    members.close()
    records = records_of(tmp_path / "run")
    assert [(record["updates"], record["refused"]) for record in records] == [(sorted(NAMES), {})] * 2
    assert np.array_equal(adapter_of(tmp_path / "run"), adapter_of(undisturbed))
    assert [len(members.charges(name)) for name in NAMES] == [2] * 3


class Late(LocalGrid):
    """Node 3's first answer comes after its deadline: with its second, and before it."""

    held: Message | None = None

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        for reply in super().pull_messages(message_ids):
            third = reply.metadata.src_node_id == 3 and reply.metadata.message_type == "train"
            if third and self.held is None:
                self.held = reply
                continue
            if third and self.held is not None:
                yield self.held
            yield reply


def test_an_answer_after_its_deadline_is_left_out_and_the_next_one_counts(short: Path, tmp_path: Path) -> None:
    config = federation(short / "data", *OFF, "federation.round_timeout_s=3", "federation.min_institutions=2")
    members = Deployed(short / "all", config)
    members.play(tmp_path / "run", grid=Late)
    members.close()
    first, second = records_of(tmp_path / "run")
    assert (first["updates"], first["missing"], first["quorum"]) == (["north", "south"], ["west"], True)
    assert (second["updates"], second["refused"]) == (sorted(NAMES), {})
    assert [len(members.charges(name)) for name in NAMES] == [2] * 3
    assert np.isfinite(adapter_of(tmp_path / "run")).all()
