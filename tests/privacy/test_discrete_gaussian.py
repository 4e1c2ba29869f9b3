"""Integer noise: the exact probabilities, whatever way a deviation is built, and its stated distance from them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from fedft.errors import PrivacyError
from fedft.privacy.discrete_gaussian import (
    _ladder,
    _table,
    join_distance,
    sample_discrete_gaussian,
    statistical_distance,
)
from fedft.randomness import SecureStream

STREAM = SecureStream()


def probabilities(deviation: float, values: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    reach = np.arange(-math.ceil(40 * deviation) - 1, math.ceil(40 * deviation) + 2)
    total = np.exp(-(reach**2) / (2 * deviation**2)).sum()
    return np.asarray(np.exp(-(values.astype(np.float64) ** 2) / (2 * deviation**2)) / total)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 3.5, 40.0, 256.0, 256.5, 1000.0, 20_000.0])
def test_draws_have_the_exact_probabilities(deviation: float) -> None:
    """Chi-square over sixty cells of about equal probability; a seeded test it is not, so the level is 1e-6."""
    n = 300_000
    drawn = sample_discrete_gaussian(STREAM, n, deviation)
    reach = math.ceil(6 * deviation)
    values = np.arange(-reach, reach + 1)
    cumulative = np.cumsum(probabilities(deviation, values))
    cells = np.minimum((cumulative * 60).astype(int), 59)
    expected = np.bincount(cells, weights=probabilities(deviation, values), minlength=60) * n
    inside = np.abs(drawn) <= reach
    found = np.bincount(cells[drawn[inside] + reach], minlength=60)
    used = expected >= 20
    assert n - inside.sum() <= 20
    assert stats.chi2.sf(((found - expected)[used] ** 2 / expected[used]).sum(), used.sum() - 1) > 1e-6


def test_the_table_is_the_exact_distribution_to_its_stated_distance() -> None:
    """In rational numbers: the thresholds' differences are the probabilities."""
    for deviation in (0.5, 2.0, 30.0):
        table = _table(deviation)
        edges = [0, *table.thresholds, 2**128]
        masses = np.array([float(b - a) for a, b in pairwise(edges)]) / 2.0**128
        expected = probabilities(deviation, np.arange(-table.reach, len(masses) - table.reach))
        assert np.abs(masses - expected).max() <= 1e-15
        assert 0 < statistical_distance(deviation) < 2.0**-100


def test_a_ladder_has_at_least_the_deviation_it_is_asked_for_and_hardly_more() -> None:
    for deviation in (257.0, 2.0**40):
        ladder = _ladder(deviation)
        built = math.sqrt(sum(ladder.factor ** (2 * level) for level in range(ladder.levels))) * ladder.table_deviation
        assert built == pytest.approx(deviation, rel=1e-14)
        assert statistical_distance(deviation) < 2.0**-100


def test_sums_of_shares_join_to_one_discrete_gaussian() -> None:
    """The distance of D(a) + D(b) from D(√(a²+b²)), computed, is within the bound."""
    for a, b in ((1.0, 1.0), (0.8, 1.5), (1.2, 1.2)):
        values = np.arange(-60, 61)
        joined = np.convolve(probabilities(a, values), probabilities(b, values))
        exact = probabilities(math.hypot(a, b), np.arange(-120, 121))
        assert np.abs(joined - exact).sum() / 2 <= join_distance(a * b / math.hypot(a, b)) + 1e-15
    assert join_distance(0.1) == 1.0


@pytest.mark.parametrize("deviation", [0.0, -1.0, math.nan, math.inf, 2.0**41])
def test_a_deviation_out_of_range_is_refused(deviation: float) -> None:
    with pytest.raises(PrivacyError, match=r"up to 2\^40"):
        sample_discrete_gaussian(STREAM, 1, deviation)


def test_nothing_is_drawn_twice() -> None:
    first, second = (sample_discrete_gaussian(STREAM, 1000, 1e6) for _ in range(2))
    assert not np.array_equal(first, second)
    assert sample_discrete_gaussian(STREAM, 0, 3.0).shape == (0,)
