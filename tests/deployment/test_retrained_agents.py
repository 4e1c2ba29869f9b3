"""Agents go on within a task: of a run that is trained anew, with what they consolidated in the one before it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fedft.audit.findings import HOLDS
from fedft.audit.recompute import recompute
from fedft.audit.verify import verify_run
from fedft.deployment import rehearse
from fedft.deployment.coordinate import begin_without
from fedft.deployment.terms import parent_of
from fedft.errors import ConfigError
from fedft.ledger.store import Ledger
from fedft.rounds.run_folder import RunFolder
from tests.deployment.deployed import Deployed
from tests.federation import federation, records_of
from tests.simulation.test_retrained_tasks import PRIVATE

LATE = 3
"""Rounds without west: the run is trained anew from within the second task, which begins in round 3."""


@pytest.fixture(autouse=True)
def one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearse, "_may_choose_users", lambda: False)


def late_west(members: Deployed, run: Path) -> None:
    west, asked = members.agents["west"], []

    def answer(body: bytes) -> bytes:
        asked.append(body)
        return west.busy("answer", body) if len(asked) <= LATE else west.answer(body)

    members.answering["west"] = answer
    members.play(run)


def consolidations(members: Deployed, name: str, run: Path) -> dict[str, str]:
    known = hashlib.sha256(str(RunFolder(run).config()["run"]).encode()).hexdigest()[:32]
    home = members.policy(name).agent.state / "runs" / known
    files = (path for path in sorted(home.glob("consolidation-*/*")) if path.is_file())
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_look_at_private_rows_is_paid_once_and_serves_the_run_that_is_trained_anew(tmp_path: Path) -> None:
    members = Deployed(tmp_path / "all", federation(tmp_path / "data", *PRIVATE))
    for name in members.homes:
        file = members.policy_file(name)
        text = file.read_text()
        assert text.count("epsilon = 3.0") == 1
        file.write_text(text.replace("epsilon = 3.0", "epsilon = 9.0"))
        members.start_again(name)
    run, anew = tmp_path / "run", tmp_path / "anew"
    late_west(members, run)
    assert ["west" in record["updates"] for record in records_of(run)] == [False, False, False, True, True]
    made = begin_without(["west"], parent=run, folder=anew, coordinator=members.coordinator)
    assert made.round == LATE
    members.play(anew)
    members.close()
    assert [record["updates"] for record in records_of(anew)] == [["north", "south"]] * 2
    ledgers = [members.policy(name).agent.ledger for name in ("north", "south")]
    for name, ledger in zip(("north", "south"), ledgers, strict=True):
        kept = consolidations(members, name, run)
        assert consolidations(members, name, anew) == kept
        assert any(path.startswith("consolidation-1/") for path in kept)
        with Ledger.open(ledger, read_only=True) as opened:
            looks = [e.kind for e in opened.entries() if str(e.fields.get("purpose", "")).startswith("fisher")]
        assert looks == ["intent", "release"]
    assert verify_run(anew, ledgers=ledgers).finding is None
    computed = recompute(anew, list(zip(("north", "south"), ledgers, strict=True)))
    assert computed.exit_code == HOLDS, computed.findings


@pytest.mark.parametrize(
    "parent",
    ["run", {"run": "run"}, {"run": 1, "round": 2}, {"run": "run", "round": -1}, {"run": "run", "round": False},
     {"run": "run", "round": 1, "path": "/etc"}, [], {}],
)  # fmt: skip
def test_a_parent_of_another_form_is_refused(parent: object) -> None:
    with pytest.raises(ConfigError, match=r"expected of \[parent\]"):
        parent_of({"parent": parent})


def test_a_parent_is_a_run_and_a_round() -> None:
    assert parent_of({"parent": {"run": "tiny/1", "round": 3}}) == ("tiny/1", 3)
    assert parent_of({}) is None
