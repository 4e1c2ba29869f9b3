"""Fixed-point encoding: range, rounding, refusal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import NonFiniteUpdate, UpdateTooLarge
from fedft.update.encoding import FRACTION_BITS, LARGEST, MAX_UPDATES, add_encoded, decode, encode


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, 0), (1.0, 2**40), (-1.0, -(2**40)), (2.0**-40, 1), (2.0**-41, 0), (3 * 2.0**-41, 2), (4096.0, 2**52)],
)
def test_known_values(value: float, expected: int) -> None:
    assert encode(np.array([value]), 1.0).tolist() == [expected]


@given(st.floats(2.0**-17, LARGEST, width=32) | st.floats(-LARGEST, -(2.0**-17), width=32))
def test_a_float32_of_at_least_2_to_the_minus_17_is_exact(value: float) -> None:
    assert int(encode(np.array([value], np.float32), 1.0)[0]) == value * 2**FRACTION_BITS


def test_the_largest_sum_fits_63_bits() -> None:
    limit = int(encode(np.array([LARGEST]), 1.0)[0])
    assert MAX_UPDATES * limit < 2**63 <= (MAX_UPDATES + 1) * limit


@pytest.mark.parametrize("value", [4096.001, -4096.001, 3e38], ids=str)
def test_values_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(UpdateTooLarge, match="4096"):
        encode(np.array([0.0, value]), 1.0)


def test_the_weight_counts_towards_the_range() -> None:
    with pytest.raises(UpdateTooLarge):
        encode(np.array([1.0]), 5000.0)
    assert encode(np.array([5000.0]), 0.5).tolist() == [2500 * 2**40]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_non_finite_values_are_refused(value: float) -> None:
    with pytest.raises(NonFiniteUpdate):
        encode(np.array([1.0, value, 2.0]), 1.0)


def test_an_empty_vector_is_a_vector() -> None:
    assert decode(encode(np.empty(0, np.float32), 1.0), 1.0).shape == (0,)


def test_adding_in_blocks_is_adding() -> None:
    vector = np.random.default_rng(0).normal(size=1000)
    total = np.zeros(1000, np.int64)
    add_encoded(total, vector, 0.3, block=7)
    assert np.array_equal(total, encode(vector, 0.3))


def test_a_refused_vector_adds_nothing() -> None:
    total = np.zeros(100, np.int64)
    with pytest.raises(UpdateTooLarge):
        add_encoded(total, np.r_[np.ones(99), 1e9], 1.0, block=7)
    assert not total.any()
