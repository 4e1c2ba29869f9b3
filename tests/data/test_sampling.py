"""Poisson draws over units and their packing into physical batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedft.data.sampling import PoissonUnitSampler, pack_units
from fedft.errors import ConfigError, DataError
from fedft.randomness import SecureStream

sizes = st.lists(st.integers(1, 12), max_size=60)


@given(sizes, st.integers(1, 10))
def test_every_unit_is_in_exactly_one_batch_in_the_given_order(rows: list[int], limit: int) -> None:
    batches = pack_units(rows, limit)
    assert list(itertools.chain.from_iterable(batches)) == list(range(len(rows)))
    assert all(batches)


@given(sizes, st.integers(1, 10))
def test_no_batch_is_above_the_limit_unless_one_unit_alone_is(rows: list[int], limit: int) -> None:
    for batch in pack_units(rows, limit):
        assert sum(rows[position] for position in batch) <= limit or len(batch) == 1


@given(sizes, st.integers(1, 10))
def test_a_batch_is_closed_only_when_the_next_unit_does_not_fit(rows: list[int], limit: int) -> None:
    for batch, following in itertools.pairwise(pack_units(rows, limit)):
        assert sum(rows[position] for position in batch) + rows[following[0]] > limit


@pytest.mark.parametrize("limit", [0, -1])
def test_a_batch_of_no_rows_is_refused(limit: int) -> None:
    with pytest.raises(ConfigError, match="physical_batch_size"):
        pack_units([1], limit)


def test_draws_follow_the_coin_flips_and_nothing_else() -> None:
    flips = np.array([0.1, 0.3, 0.29999, 0.0, 0.99])
    sampler = PoissonUnitSampler(5, 0.3, lambda n: flips[:n])
    assert sampler.draw().tolist() == [0, 2, 3]


def test_a_draw_may_be_empty_and_a_rate_of_one_draws_everyone() -> None:
    assert PoissonUnitSampler(3, 1e-9, np.ones).draw().tolist() == []
    assert PoissonUnitSampler(50, 1.0, SecureStream().uniform).draw().tolist() == list(range(50))


@pytest.mark.parametrize("rate", [0.05, 0.4])
def test_units_are_drawn_independently_at_the_sampling_rate(rate: float) -> None:
    """The size of a draw is binomial (a fixed size is not), and a pair of units meets as often as chance says."""
    units, draws = 40, 4000
    sampler = PoissonUnitSampler(units, rate, SecureStream().uniform)
    drawn = np.zeros((draws, units), dtype=bool)
    for row in drawn:
        row[sampler.draw()] = True
    total = int(drawn.sum())
    assert stats.binomtest(total, units * draws, rate).pvalue > 1e-6
    together = int((drawn[:, 0] & drawn[:, 1]).sum())
    assert stats.binomtest(together, draws, rate**2).pvalue > 1e-6
    expected_variance = units * rate * (1 - rate)
    statistic = draws * drawn.sum(axis=1).var() / expected_variance
    assert 1e-6 < stats.chi2.cdf(statistic, draws - 1) < 1 - 1e-6


def test_no_unit_or_a_rate_outside_its_range_is_refused() -> None:
    with pytest.raises(DataError, match="at least one privacy unit"):
        PoissonUnitSampler(0, 0.5, np.ones)
    for rate in (0.0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="sampling rate"):
            PoissonUnitSampler(3, rate, np.ones)
