"""Part 6 of the report: what evidence of an attack says, whether its settings were this run's; no verdict is hidden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedft.attack.evidence import CLAIM, CONTROL, complete, play_of, write_evidence
from fedft.errors import ConfigError
from fedft.report.document import page_of, report_of
from tests.report.page import Page

RUN = Path(__file__).resolve().parents[1] / "vectors" / "run-v1"
CONFIG = json.loads((RUN / "config.json").read_text())
CANARIES = 400


def evidence(file: Path, *, leak: float, control_leak: float, **terms: Any) -> Path:
    """leak: by how much a canary that was trained on scores higher, in standard deviations."""
    rng = np.random.default_rng(7)
    coins = rng.integers(0, 2, CANARIES).astype(bool)

    def play(name: str, shift: float, epsilon: float) -> dict[str, Any]:
        scores = {"gradient": rng.normal(size=CANARIES) + shift * coins}
        curve = [(epsilon, 1e-5), (2 * epsilon, 1e-9)]
        return play_of(name, coins=coins, scores=scores, epsilon=epsilon, delta=1e-5, curve=curve)

    sections = ("adapter", "training", "privacy", "continual", "federation", "aggregation")
    asked = {name: CONFIG[name] for name in sections} | terms
    about = {"time_utc": "2026-12-01T00:00:00Z", "fedft_version": "0.1.0", "terms": asked, "uploads": None,
             "canaries": {"kind": "random", "count": CANARIES, "seed": "00"}}  # fmt: skip
    plays = [play(CLAIM, leak, 1.0), play(CONTROL, control_leak, float("inf"))]
    write_evidence(complete(about, plays, least=3.0), file)
    return file


@pytest.mark.parametrize(
    ("leak", "control_leak", "verdict", "words"),
    [
        (0.1, 8.0, "stands", "The claim stands: the control leaked"),
        (8.0, 8.0, "falsified", "The claim is contradicted"),
        (0.1, 0.1, "no-power", "No verdict: the control did not leak enough"),
    ],
)
def test_the_verdict_and_its_figures(
    tmp_path: Path, leak: float, control_leak: float, verdict: str, words: str
) -> None:
    document = report_of(RUN, attacks=[evidence(tmp_path / "e.json", leak=leak, control_leak=control_leak)])
    (attack,) = document["parts"]["attacks"]
    assert (attack["verdict"], attack["canaries"], attack["same_terms"]) == (verdict, CANARIES, True)
    claim, control = attack["plays"]
    assert (claim["play"], claim["claimed_epsilon"], control["claimed_epsilon"]) == ("claim", 1.0, None)
    assert (claim["epsilon_lower_bound"] > 1.0) == (verdict == "falsified")
    page = Page(page_of(document))
    assert words in page.text
    assert "was not set as this run" not in page.text
    assert f"{CANARIES} canaries (random)" in page.text


def test_an_attack_on_other_settings_is_no_test_of_this_run(tmp_path: Path) -> None:
    file = evidence(tmp_path / "e.json", leak=0.1, control_leak=8.0, privacy={**CONFIG["privacy"], "epsilon": 99.0})
    document = report_of(RUN, attacks=[file])
    assert not document["parts"]["attacks"][0]["same_terms"]
    assert "The attacked federation was not set as this run" in Page(page_of(document)).text


def test_evidence_whose_figures_were_made_prettier_is_refused(tmp_path: Path) -> None:
    file = evidence(tmp_path / "e.json", leak=8.0, control_leak=8.0)
    body = json.loads(file.read_text())
    body["verdict"] = "stands"
    file.write_text(json.dumps(body))
    with pytest.raises(ConfigError, match="it was altered"):
        report_of(RUN, attacks=[file])
