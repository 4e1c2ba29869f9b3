"""Clocks an hour apart. An agent reads none to decide anything; Flower's SuperNode has a window, which is Flower's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

from fedft.deployment.certificates import read_certificate
from fedft.ledger.store import Ledger
from tests.deployment.deployed import Provisioned
from tests.faults.agent_process import agent_process
from tests.federation import federation

HOUR = 3600.0
DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"


@pytest.fixture(scope="module")
def private(short_for_all: Path) -> Provisioned:
    return Provisioned(short_for_all / "all", federation(short_for_all / "data", "federation.rounds=8"))


def test_an_agent_whose_clock_is_an_hour_off_answers_and_its_ledger_holds(private: Provisioned, tmp_path: Path) -> None:
    """Ahead first, then behind: the ledger's times go back by two hours, and nothing depends on them."""
    for number, clock_s in enumerate((HOUR, -HOUR), start=1):
        private.begin(tmp_path / str(number))
        request, terms = private.request(tmp_path / str(number))
        with agent_process(private.policy_file("north"), clock_s=clock_s) as agent:
            answer = agent.ask(private.signed(request, terms))
        assert private.opened("north", answer) == private.stored("north", request)
        assert len(private.charges("north")) == number
    with Ledger.open(private.policy("north").agent.ledger, read_only=True) as ledger:
        times = [entry.time_utc for entry in ledger.entries()]
    assert times[-1] < times[0], "the clock of the process was not what this test says"


def test_a_certificate_made_now_is_valid_where_it_is_an_hour_ago(private: Provisioned) -> None:
    for part in ("forwarder/client.crt", "forwarder/ca.crt"):
        certificate = read_certificate(private.homes["north"].folder / part)
        assert certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(hours=1)


def test_the_window_of_flowers_node_signatures_is_the_documented_one() -> None:
    """A SuperNode's clock may be 5 s ahead of the SuperLink's and 305 s behind."""
    assert (SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE) == (5, 300)
    assert "5 s ahead" in DOCUMENT.read_text(encoding="utf-8")
    assert "305 s behind" in DOCUMENT.read_text(encoding="utf-8")
