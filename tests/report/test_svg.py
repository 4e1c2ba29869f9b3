"""Plots: ticks that enclose the data, names that do not overlap, points where they belong."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.report.axes import nice_ticks, spread
from fedft.report.page import as_bytes, as_duration, as_epsilon, as_text
from fedft.report.svg import Level, Series, bar_plot, line_plot, row_plot

finite = st.floats(-1e9, 1e9, allow_nan=False)


@given(finite, finite)
def test_ticks_enclose_the_data_in_few_equal_steps(one: float, other: float) -> None:
    low, high = sorted((one, other))
    ticks = nice_ticks(low, high, 5)
    slack = 1e-6 * max(abs(low), abs(high), 1e-6)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 12
    steps = [b - a for a, b in pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


def test_ticks_by_hand() -> None:
    assert nice_ticks(0.0, 1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert nice_ticks(0.0, 8.0, 5) == [0, 2, 4, 6, 8]
    assert nice_ticks(1, 4, 12, whole=True) == [1, 2, 3, 4]


@given(st.lists(st.floats(0, 200), max_size=10))
def test_names_are_kept_apart_and_inside(positions: list[float]) -> None:
    moved = spread(positions, 13.0, 0.0, 200.0)
    ordered = sorted(moved)
    assert all(b - a >= 13.0 - 1e-9 for a, b in pairwise(ordered))
    assert all(-1e-9 <= value <= 200 + 1e-9 for value in moved)


def test_names_with_room_stay_where_they_are() -> None:
    assert spread([100.0, 10.0, 50.0], 13.0, 0.0, 200.0) == [100.0, 10.0, 50.0]


def test_a_line_goes_through_its_points() -> None:
    html = line_plot([Series("a", ((0, 0.0), (1, 5.0), (2, 10.0)))], title="t", format_y=str)
    path = re.search(r'polyline class="line" points="([^"]+)"', html)
    assert path is not None
    points = [tuple(map(float, pair.split(","))) for pair in path[1].split()]
    xs, ys = zip(*points, strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)
    assert ys[0] > ys[2], "up is more"
    assert html.count("<circle") == 3


def test_a_staircase_holds_its_value_until_the_next() -> None:
    html = line_plot([Series("a", ((1, 0.0), (2, 4.0)), is_step=True)], title="t", format_y=str)
    path = re.search(r'polyline class="line" points="([^"]+)"', html)
    assert path is not None
    first, corner, last = [tuple(map(float, pair.split(","))) for pair in path[1].split()]
    assert corner == (last[0], first[1])


def test_a_level_above_the_data_is_in_the_picture() -> None:
    html = line_plot([Series("a", ((1, 1.0), (2, 2.0)))], title="t", format_y=str, levels=[Level(8.0, "cap")])
    level = re.search(r'class="level"[^>]* y1="([0-9.]+)"', html)
    assert level is not None
    assert 0 < float(level[1]) < 250
    assert ">cap<" in html


def test_bars_are_as_high_as_their_values() -> None:
    html = bar_plot([("a", [1.0, 2.0]), ("b", [3.0, 0.0])], categories=[1, 2], title="t", format_y=str)
    heights = [float(found) for found in re.findall(r'<rect[^>]* height="([0-9.]+)"', html)]
    first, second, third, fourth = heights[0], heights[2], heights[1], heights[3]
    assert second == pytest.approx(2 * first, abs=0.3)
    assert third == pytest.approx(3 * first, abs=0.3)
    assert fourth == 0


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_equal_values_and_single_points_do_not_divide_by_zero(value: float) -> None:
    assert "<svg" in line_plot([Series("a", ((1, value), (2, value)))], title="t", format_y=str)
    assert "<svg" in line_plot([Series("a", ((1, value),))], title="t", format_y=str)
    assert "<svg" in row_plot([("a", value)], title="t", format_x=str)
    assert "<svg" in bar_plot([("a", [abs(value)])], categories=[1], title="t", format_y=str)


def test_nothing_to_draw_is_said() -> None:
    for html in (
        line_plot([Series("a", ())], title="t", format_y=str),
        row_plot([], title="t", format_x=str),
        bar_plot([], categories=[], title="t", format_y=str),
    ):
        assert "No figures recorded." in html


def test_numbers_in_words() -> None:
    plain = str.maketrans({"\N{NO-BREAK SPACE}": " ", "\N{NARROW NO-BREAK SPACE}": " "})
    assert as_epsilon(7.99991) == "8"
    assert as_epsilon(7.2) == "7.2"
    assert as_epsilon(1.2341) == "1.235"
    assert as_bytes(24_610).translate(plain) == "24.6 kB"
    assert as_bytes(999).translate(plain) == "999 B"
    assert as_bytes(5e12).translate(plain) == "5000 GB"
    assert as_duration(59.94).translate(plain) == "59.9 s"
    assert as_duration(3_725).translate(plain) == "1 h 2 min"
    assert as_duration(125).translate(plain) == "2 min 5 s"
    assert [as_text(v).translate(plain) for v in (None, True, 12_305, 0.00012345)] == [
        "–",
        "yes",
        "12 305",
        "0.0001234",
    ]
