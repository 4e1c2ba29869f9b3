"""What a report says of secure aggregation: what was hidden, from whom, and nothing more than the records bear out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.report.fake_run import NAMES, config, records, summary, write_run
from tests.report.test_report import report

MASKED = {
    "cohort": list(NAMES), "threshold": 3, "uploaded": list(NAMES[1:]), "dropped": [NAMES[0]], "silent": ["west"],
    "lied": [], "abandoned": None, "seconds": 0.25, "bytes_shares": 5200,
}  # fmt: skip


def masked(tmp_path: Path, *found: Any) -> str:
    """The text of a run's report, the newest rounds with these records of secure aggregation."""
    made = records(3)
    for record, one in zip(made[-len(found) :], found, strict=True):
        record["secure_aggregation"] = one
    return str(report(write_run(tmp_path / "run", config(), made, summary(made))).text)


def test_a_masked_run_says_what_the_coordinator_saw_and_who_was_lost(tmp_path: Path) -> None:
    lost = {**MASKED, "abandoned": "quorum-not-reached", "uploaded": ["west"]}
    text = masked(tmp_path, MASKED, lost, MASKED)
    assert "the coordinator sees the sum of the updates of a round's institutions and no single one" in text
    assert "no more than 1 of the others tell it what they know" in text
    assert "there is no secure aggregation in this run" not in text
    for word in ("Secure aggregation", "none: quorum-not-reached", NAMES[0], "5.2 kB"):
        assert word in text


def test_nothing_is_said_to_be_hidden_where_one_round_was_not_masked(tmp_path: Path) -> None:
    text = masked(tmp_path, MASKED, MASKED)
    assert "there is no secure aggregation in this run" in text
    assert "the coordinator sees each institution's noised update" in text


def distributed(tmp_path: Path, *found: Any, colluding: int | None = None) -> str:
    made, privacy = records(3), {**config()["privacy"], "mode": "distributed", "max_units": 900, "colluding": colluding}
    for record, one in zip(made, found, strict=True):
        record["secure_aggregation"] = one
    told = {**summary(made), "privacy_mode": "distributed"}
    for body in told["institutions"].values():
        body["local_epsilon"] = 19.5
    return str(report(write_run(tmp_path / "run", config(privacy=privacy), made, told)).text)


def test_noise_in_shares_is_said_to_rest_on_the_masks(tmp_path: Path) -> None:
    text = distributed(tmp_path, MASKED, MASKED, MASKED)
    assert "holds even where that fails" not in text
    assert "The noise of this run was added in shares, one from each institution, and each alone is too little" in text
    assert "a coordinator that has at most 1 of the institutions on its side" in text
    assert "ε if masks fail" in text
    assert "19.5" in text
    assert "at most 0 of the institutions" in distributed(tmp_path / "b", MASKED, MASKED, MASKED, colluding=0)


def test_noise_in_shares_promises_nothing_where_a_round_was_bare(tmp_path: Path) -> None:
    text = distributed(tmp_path, MASKED, None, MASKED)
    assert "Trust model: none that can be stated" in text
    assert "sees the sum" not in text


@pytest.mark.parametrize("odd", [{"cohort": 7}, {"cohort": ["a"], "threshold": "x", "seconds": "y"}, {"dropped": [1]}])
def test_odd_records_of_masks_promise_nothing(odd: dict[str, Any], tmp_path: Path) -> None:
    assert "no more than 0 of the others" in masked(tmp_path, odd, odd, odd)
