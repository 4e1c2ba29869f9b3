"""Numbers as a person reads them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.display.words import bar, change, duration, epsilon_text, figure, is_improvement, size, sparkline


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0.000"), (0.5, "0.500"), (0.98765, "0.988"), (1.5, "1.500"), (12.345, "12.35"), (999.4, "999.4"),
        (1234.5, "1,234"), (1e-5, "1.00e-05"), (-0.25, "-0.250"), (math.inf, "inf"), (math.nan, "nan"),
    ],
)  # fmt: skip
def test_figures(value: float, expected: str) -> None:
    assert figure(value) == expected


def test_a_change_has_its_sign() -> None:
    assert [change(0.25, 0.5), change(0.5, 0.25), change(1, 1)] == ["+0.250", "-0.250", "+0.000"]


def test_lower_is_better_for_losses() -> None:
    assert is_improvement("accuracy", 0.1, 0.2)
    assert is_improvement("loss", 0.2, 0.1)
    assert is_improvement("perplexity", 20, 10)
    assert not is_improvement("accuracy", 0.2, 0.2)


@given(st.floats(min_value=0, max_value=1e4))
def test_epsilon_is_never_shown_below_what_was_spent(epsilon: float) -> None:
    shown = float(epsilon_text(epsilon))
    assert epsilon - 1e-8 <= shown <= epsilon + 0.01


def test_epsilon_without_a_number() -> None:
    assert [epsilon_text(None), epsilon_text(math.inf), epsilon_text(8.0)] == ["-", "no guarantee", "8.00"]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (11261, "3:07:41"), (-3, "0:00")]
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 bytes"), (999, "999 bytes"), (1200, "1.2 kB"), (132_000, "132 kB"), (2.5e6, "2.5 MB"), (5e12, "5000 GB")],
)
def test_sizes(count: float, expected: str) -> None:
    assert size(count) == expected


@given(st.floats(allow_nan=False), st.integers(min_value=0, max_value=60))
def test_a_bar_has_its_width_and_is_full_only_at_the_end(fraction: float, width: int) -> None:
    full, rest = bar(fraction, width)
    assert len(full) + len(rest) == width
    if fraction < 0.999 and width:
        assert rest


def test_an_ascii_bar() -> None:
    assert bar(0.5, 4, ascii_only=True) == ("##", "--")


def test_a_sparkline_shows_the_last_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([9, 0, 7], 2) == "▁█"
    assert sparkline([1, 1], 8) == "▁▁"
    assert sparkline([0, math.nan, 7], 8) == "▁ █"
    assert sparkline([math.inf], 8) == sparkline([], 8) == ""
