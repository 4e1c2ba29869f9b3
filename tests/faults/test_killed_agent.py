"""kill -9 of an agent at each step of an answer: the next one on its folder answers, and the round is paid once."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from fedft.deployment.agent import Agent
from fedft.errors import LedgerLocked
from fedft.privacy.events import DpSgdRound
from tests.deployment.deployed import Provisioned
from tests.dying import KILLED
from tests.faults.agent_process import POINTS, agent_process
from tests.federation import federation

UNPAID = {"before the intent"}


@pytest.fixture(scope="module")
def private(short_for_all: Path) -> Provisioned:
    """Room for a round of each test."""
    return Provisioned(short_for_all / "all", federation(short_for_all / "data", "federation.rounds=8"))


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_the_next_agent_answers_and_the_round_is_paid_once(
    private: Provisioned, point: str, tmp_path: Path
) -> None:
    private.begin(tmp_path / "run")
    request, terms = private.request(tmp_path / "run")
    body, policy = private.signed(request, terms), private.policy_file("north")
    before = len(private.charges("north")) if private.policy("north").agent.ledger.exists() else 0
    with agent_process(policy, point=point) as agent:
        with pytest.raises(httpx.TransportError):
            agent.ask(body)
        assert agent.ended() == KILLED
    assert len(private.charges("north")) == before + (point not in UNPAID)
    released = private.stored("north", request)
    with agent_process(policy) as agent:
        first, again = agent.ask(body), agent.ask(body)
    charges = private.charges("north")
    assert len(charges) == before + 1
    assert isinstance(charges[-1], DpSgdRound)
    assert first == again
    assert private.opened("north", first) == private.stored("north", request)
    assert released in (None, private.stored("north", request))


def test_of_two_agents_on_one_ledger_the_second_is_refused(private: Provisioned) -> None:
    with agent_process(private.policy_file("north")), pytest.raises(LedgerLocked, match="wait until it ends, or give"):
        Agent(private.policy("north"))
