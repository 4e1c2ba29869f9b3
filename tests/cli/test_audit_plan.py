"""fedft audit plan: epsilon of many settings, as figures, as a page, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from fedft.privacy.accountant import calibrate, epsilon_of
from fedft.privacy.events import DpSgdRound
from tests.audit.audited import charges_of, write_ledger
from tests.cli.commands import federation_file, fedft
from tests.report.page import Page

SMALL = ("--units", "400,2000", "--batch-size", "40", "--local-steps", "2", "--delta", "1e-4")
FEW = ("--rounds", "3,6", "--noise", "1,2.5")


def planned(*options: str | Path) -> dict[str, Any]:
    result = fedft("audit", "plan", *options, "--json")
    assert result.exit_code == 0, result.output
    body: dict[str, Any] = json.loads(result.stdout)
    return body


def test_every_price_is_the_accountants() -> None:
    body = planned(*SMALL, *FEW, "--epsilon", "2")
    assert (body["noises"], body["rounds"], body["spent"]) == ([1.0, 2.5], [3, 6], 0.0)
    for priced, units in zip(body["priced"], (400, 2000), strict=True):
        rate = 40 / units
        assert priced["setting"] == {"rate": rate, "units": units, "batch_size": 40}
        assert priced["epsilons"] == [
            [epsilon_of([DpSgdRound(noise, rate, 2 * done)], 1e-4) for done in (3, 6)] for noise in (1.0, 2.5)
        ]
        assert priced["least_noise"] == [
            calibrate(epsilon=2, delta=1e-4, sampling_rate=rate, steps=2 * done) for done in (3, 6)
        ]


def test_without_sampling_a_price_has_the_gaussians_closed_form() -> None:
    body = planned("--sampling-rate", "1", "--local-steps", "1", "--delta", "1e-5", "--noise", "4,8", "--rounds", "1,9")
    for noise, row in zip((4, 8), body["priced"][0]["epsilons"], strict=True):
        for done, found in zip((1, 9), row, strict=True):
            sigma = noise / math.sqrt(done)

            def excess(epsilon: float, sigma: float = sigma) -> float:  # Balle & Wang 2018, theorem 8
                inner = 1 / (2 * sigma)
                tail = math.exp(epsilon + log_ndtr(-inner - epsilon * sigma))
                return float(ndtr(inner - epsilon * sigma) - tail) - 1e-5

            exact = brentq(excess, 0, 100, xtol=1e-10)
            assert exact - 1e-7 <= found <= exact + 1e-3


def test_more_noise_costs_less_and_more_rounds_more() -> None:
    rows = planned(*SMALL, "--noise", "0.8,1,1.6,3", "--rounds", "1,2,8,20")["priced"][0]["epsilons"]
    assert all(left < right for row in rows for left, right in pairwise(row))
    assert all(above > below for column in zip(*rows, strict=True) for above, below in pairwise(column))


def test_what_a_ledger_holds_counts_in_every_price(tmp_path: Path) -> None:
    ledger = write_ledger(tmp_path / "north.sqlite", charges_of("north"))
    past = [charge.event for charge in charges_of("north")]
    body = planned(*SMALL, *FEW, "--ledger", ledger)
    assert body["spent"] == epsilon_of(past, 1e-4)
    assert body["priced"][0]["epsilons"][0][0] == epsilon_of([DpSgdRound(1.0, 0.1, 6), *past], 1e-4)
    empty = write_ledger(tmp_path / "empty.sqlite", [])
    result = fedft("audit", "plan", *SMALL, *FEW, "--ledger", empty)
    assert (result.exit_code, "expected one data set" in " ".join(result.stderr.split())) == (1, True)


def test_a_federation_file_gives_what_is_not_said(tmp_path: Path) -> None:
    file = federation_file(tmp_path)
    body = planned("--federation", file, "--set", "federation.rounds=5", "--units", "100", "--noise", "2")
    assert (body["rounds"], body["local_steps"], body["delta"]) == ([5], 2, 1e-3)
    assert body["priced"][0]["setting"] == {"rate": 0.08, "units": 100, "batch_size": 8}
    assert planned("--federation", file, "--units", "100", "--noise", "2", "--rounds", "1,7")["rounds"] == [1, 7]


def test_what_cannot_be_is_refused_by_setting() -> None:
    body = planned("--units", "20,50000,100", "--batch-size", "40", "--local-steps", "1", "--delta", "1e-4", *FEW)
    refusals = [priced["refusal"] for priced in body["priced"]]
    assert refusals == ["a step takes more units than there are", "delta has to be below 1/50,000", None]
    shown = fedft("audit", "plan", "--units", "20", "--batch-size", "40", "--local-steps", "1", "--delta", "1e-4", *FEW)
    assert "refused: a step takes more units" in shown.stdout


def test_the_table_rounds_up_and_the_page_holds_the_same_figures_and_loads_nothing(tmp_path: Path) -> None:
    file = tmp_path / "prices.html"
    result = fedft("audit", "plan", *SMALL, *FEW, "--epsilon", "3", "--html", file)
    assert result.exit_code == 0, result.output
    body = planned(*SMALL, *FEW)
    html = file.read_text()
    page = Page(html)
    for priced in body["priced"]:
        for value in (value for row in priced["epsilons"] for value in row):
            assert f"{math.ceil(value * 100) / 100:.2f}" in result.stdout
            assert f"{math.ceil(value * 1000) / 1000:g}" in page.text
    assert page.tags.count("svg") == 2
    assert "least noise for epsilon 3" in page.text
    assert not any(word in html for word in ("http:", "https:", "<script", "url(", "@import"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--units", "400", "--batch-size", "4"), "--local-steps"),
        (("--local-steps", "2", "--delta", "1e-4"), "--units"),
        ((*SMALL, "--delta", "1"), "--delta"),
        ((*SMALL, "--noise", "0"), "--noise"),
        ((*SMALL, "--noise", "nan"), "--noise"),
        ((*SMALL, "--rounds", "1.5"), "--rounds"),
        ((*SMALL, "--rounds", "9999999999"), "--rounds"),
        ((*SMALL, "--sampling-rate", "1.2"), "--sampling-rate"),
        ((*SMALL, "--epsilon", "0"), "--epsilon"),
        ((*SMALL, "--set", "federation.rounds=2"), "--federation"),
        ((*SMALL, "--rounds", ",".join(map(str, range(1, 90)))), "1,000"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(options: tuple[str, ...], word: str) -> None:
    result = fedft("audit", "plan", *options)
    assert result.exit_code in (1, 2)
    assert word in result.stderr
    assert "Traceback" not in result.output


def test_it_needs_no_deep_learning_stack(tmp_path: Path) -> None:
    options = ["audit", "plan", "--federation", str(federation_file(tmp_path)), "--units", "100", "--noise", "2"]
    check = (
        "import sys; from fedft.cli import app\n"
        f"try: app({[*options, '--html', str(tmp_path / 'page.html')]!r})\n"
        "except SystemExit as end: print('ended', end.code)\n"
        "print(sorted({'torch', 'flwr', 'transformers', 'peft', 'opacus', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == ["ended 0", "[]"]
