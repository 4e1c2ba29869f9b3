"""After an institution has withdrawn nothing that depends on a row leaves it; an agent's process, at its socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedft.deployment import rehearse
from fedft.deployment.withdrawal import withdraw
from fedft.ledger.store import Ledger
from fedft.update.release import Refusal
from tests.deployment.deployed import Provisioned
from tests.deployment.fake_agent import home
from tests.faults.agent_process import agent_process
from tests.federation import federation


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provisioned]:
    monkeypatch.setattr(rehearse, "_may_choose_users", lambda: False)
    with home() as folder:  # short, for the socket
        yield Provisioned(folder / "all", federation(folder / "data"))


def test_a_running_agent_sends_nothing_more_not_even_what_it_had_stored(private: Provisioned, tmp_path: Path) -> None:
    """No restart. Round 1 was answered and is asked for again: the stored update would be a release after leaving."""
    private.begin(tmp_path / "run")
    request, terms = private.request(tmp_path / "run")
    body, policy = private.signed(request, terms), private.policy("north")
    refused = Refusal("north", request.plan.run, 1, "withdrawn")
    with agent_process(private.policy_file("north")) as agent:
        assert private.opened("north", agent.ask(body)) == private.stored("north", request)
        _, recorded = withdraw(policy)
        assert not recorded
        assert private.opened("north", agent.ask(body)) == refused
    with agent_process(private.policy_file("north")) as agent:
        assert private.opened("north", agent.ask(body)) == refused
    assert len(private.charges("north")) == 1
    with Ledger.open(policy.agent.ledger, read_only=True) as ledger:
        assert [entry.kind for entry in ledger.entries()][-2:] == ["withdrawal", "refusal"]


def test_what_it_says_afterwards_it_says_without_having_rows_or_a_model(private: Provisioned, tmp_path: Path) -> None:
    """The strongest form of "does not depend": the files are gone, and the answer is the same."""
    private.begin(tmp_path / "run")
    request, terms = private.request(tmp_path / "run")
    body, policy = private.signed(request, terms), private.policy("north")
    with agent_process(private.policy_file("north")) as agent:
        withdraw(policy)
        policy.datasets[0].path.unlink()
        (policy.models[0].path / "model.safetensors").unlink()
        told = private.opened("north", agent.ask(body))
    assert told == Refusal("north", request.plan.run, 1, "withdrawn")
    assert private.refusals("north") == [(1, "withdrawn")]
    assert private.charges("north") == ()
