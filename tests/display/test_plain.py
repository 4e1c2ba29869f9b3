"""Plain lines: one per round, one per evaluation, never wrapped; and who gets them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fedft.display.live import LiveDisplay
from fedft.display.make import make_display
from fedft.display.plain import PlainDisplay
from tests.display.driver import first_round, record, rest_of_first_round


def lines_of_a_run() -> list[str]:
    output = io.StringIO()
    with PlainDisplay(Console(file=output, width=40), clock=iter(range(100)).__next__) as display:
        first_round(display)
        rest_of_first_round(display)
        display.round_finished(record(2))
    return output.getvalue().splitlines()


def test_one_line_per_round_and_per_evaluation() -> None:
    start, before, first, evaluated, second = lines_of_a_run()
    assert start.startswith("hospitals: 4 rounds with 3 institutions: north, south, ")
    assert before == "round 0 of 4: on public data accuracy 0.250, loss 1.500"
    assert first.startswith("round 1 of 4: 1 of 3 updates; refused: south (budget-exhausted); missing: university")
    assert "; epsilon 2.00 of 2 at south, the most spent; 3.0 kB up; 2.5 s; about " in first
    assert evaluated == (
        "round 1 of 4: on public data accuracy 0.500 (+0.250 since round 0), loss 1.000 (-0.500 since round 0)"
    )
    assert second.startswith("round 2 of 4: 3 of 3 updates; ")


def test_there_is_no_escape_sequence_in_them() -> None:
    assert not any("\x1b" in line for line in lines_of_a_run())


@pytest.mark.parametrize(
    ("terminal", "environment", "plain", "expected"),
    [
        (True, {"TERM": "xterm"}, False, LiveDisplay),
        (True, {"TERM": "xterm"}, True, PlainDisplay),
        (True, {"TERM": "dumb"}, False, PlainDisplay),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False, PlainDisplay),
        (False, {"TERM": "xterm"}, False, PlainDisplay),
    ],
)
def test_who_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], plain: bool, expected: type
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    console = Console(file=io.StringIO(), force_terminal=terminal)
    assert type(make_display(console, plain=plain)) is expected
