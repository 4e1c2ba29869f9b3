"""The live display at widths of real terminals, drawn from observer events."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from fedft.display.live import LiveDisplay
from tests.display.driver import NAMES, first_round, record, rest_of_first_round

Draw = Callable[..., list[str]]


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def draw(clock: Clock) -> Draw:
    """What the display looks like after some events, as lines without trailing blanks."""

    def drawn(events: Callable[[LiveDisplay], None], width: int = 80) -> list[str]:
        display = LiveDisplay(Console(file=io.StringIO()), clock)
        events(display)
        console = Console(width=width, height=40, record=True, file=io.StringIO(), force_terminal=True)
        console.print(display)
        return [line.rstrip() for line in console.export_text().splitlines()]

    return drawn


def test_the_state_of_every_institution_is_in_words(draw: Draw) -> None:
    lines = draw(first_round)
    assert any("north" in line and "answered" in line and "1/1" in line for line in lines)
    assert any("south" in line and "training ━" in line and "2/5" in line for line in lines)
    assert any("university-hospit…" in line and "waiting" in line for line in lines)
    assert any("round 1 of 4" in line for line in lines)


def test_a_refusal_names_its_reason_and_an_absence_itself(draw: Draw) -> None:
    def events(display: LiveDisplay) -> None:
        first_round(display)
        rest_of_first_round(display)

    lines = draw(events)
    assert any("refused: budget-exhausted" in line for line in lines)
    assert any("university" in line and "missing" in line and "0/1" in line for line in lines)
    assert any("south" in line and "2.00 of 2" in line and "━" in line for line in lines)
    assert any(
        line.startswith("accuracy") and "0.250" in line and "0.500" in line and "+0.250" in line for line in lines
    )
    assert any(line.startswith("loss") and "-0.500" in line and "█▁" in line for line in lines)
    assert any("3.0 kB up, 6.0 kB down, best so far: round 1" in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_or_cut_short(draw: Draw, width: int) -> None:
    def events(display: LiveDisplay) -> None:
        first_round(display)
        rest_of_first_round(display)
        display.round_started(2, 4, NAMES)

    lines = draw(events, width)
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert [line for line in lines if "…" in line] == [line for line in lines if line.startswith("university")]


def test_the_remaining_time_follows_the_pace_so_far(draw: Draw, clock: Clock) -> None:
    def events(display: LiveDisplay) -> None:
        first_round(display)
        clock.now += 30
        rest_of_first_round(display)

    assert "0:30 elapsed, about 1:30 left" in draw(events)[0]


def test_a_resumed_run_counts_its_own_rounds_alone(draw: Draw, clock: Clock) -> None:
    def events(display: LiveDisplay) -> None:
        display.run_started("hospitals", 10, NAMES)
        display.round_started(9, 10, NAMES)
        clock.now += 20
        display.round_finished(record(9, evaluation={"accuracy": 0.7}))

    lines = draw(events)
    assert "0:20 elapsed, about 0:20 left" in lines[0]
    assert any(line.startswith("accuracy") and "0.700" in line for line in lines)


def test_tasks_and_the_reference_have_lines_of_their_own(draw: Draw) -> None:
    def events(display: LiveDisplay) -> None:
        first_round(display)
        both = {"a": {"accuracy": 0.6}, "b": {"accuracy": 0.3}}
        display.round_finished(record(1, task="a", tasks={"a": {"accuracy": 0.5}}, reference={"accuracy": 0.9}))
        display.round_finished(record(2, task="b", tasks=both, reference={"accuracy": 0.8}))

    lines = [line.split() for line in draw(events)]
    assert ["accuracy,", "a", "0.250", "0.600", "+0.350"] in [line[:5] for line in lines]
    assert ["accuracy,", "b", "0.300", "0.300", "+0.000"] in [line[:5] for line in lines]
    assert ["accuracy,", "reference", "0.900", "0.800", "-0.100"] in [line[:5] for line in lines]


def test_the_next_variant_starts_afresh(draw: Draw) -> None:
    def events(display: LiveDisplay) -> None:
        first_round(display)
        rest_of_first_round(display)
        display.run_started("hospitals: second", 4, NAMES)

    lines = draw(events)
    assert lines[0].startswith("hospitals: second")
    assert any("no evaluation on public data yet" in line for line in lines)
    assert not any("2.00 of" in line for line in lines)


def test_many_institutions_fit_the_screen(draw: Draw) -> None:
    names = tuple(f"site-{number}" for number in range(300))

    def events(display: LiveDisplay) -> None:
        first_round(display, names=names)
        display.answered(names[1], "update")
        display.step(names[200], 1, 5)

    lines = draw(events)
    assert len(lines) <= 40
    assert any(line.startswith("site-200") and "training" in line for line in lines)
    assert any("and 272 more; of all 297 waiting, 1 training, 2 answered" in line for line in lines)


def test_without_privacy_there_is_no_account(draw: Draw) -> None:
    def events(display: LiveDisplay) -> None:
        first_round(display)
        for name in NAMES:
            display.spent(name, None, None)

    assert not any("epsilon" in line for line in draw(events))


def test_it_vanishes_at_a_normal_end_and_stays_after_an_error() -> None:
    for error, stays in ((None, False), (RuntimeError, True)):
        output = io.StringIO()
        console = Console(file=output, width=80, height=30, force_terminal=True, _environ={"TERM": "xterm"})
        display = LiveDisplay(console)
        display.__enter__()
        first_round(display)
        display.__exit__(error, None, None)
        erased = output.getvalue().rstrip().endswith("\x1b[2K")
        assert erased is not stays
