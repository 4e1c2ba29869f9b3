"""The guarantee of privacy/noise.py, sentence by sentence. A bound gives a false alarm about once in a million runs."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from fedft.errors import PrivacyError
from fedft.privacy import noise
from fedft.privacy.noise import gaussian
from fedft.randomness import SecureStream

MANY = 1_000_000


class GivenWords(SecureStream):
    """A stream whose words are known, for what depends on them alone."""

    __slots__ = ("_given", "drawn")

    def __init__(self, given: npt.NDArray[np.uint64]) -> None:
        super().__init__()
        self._given, self.drawn = given, 0

    def fill(self, target: npt.NDArray[np.uint64]) -> None:
        target[:] = self._given[self.drawn : self.drawn + len(target)]
        self.drawn += len(target)


@pytest.fixture(scope="module")
def standard() -> npt.NDArray[np.float64]:
    return gaussian(SecureStream(), MANY, 1.0)


def test_the_values_are_standard_gaussians_times_the_deviation(standard: npt.NDArray[np.float64]) -> None:
    assert standard.dtype == np.float64
    assert stats.kstest(standard, "norm").pvalue > 1e-6
    scaled = gaussian(SecureStream(), MANY, 0.37)
    assert stats.kstest(scaled / 0.37, "norm").pvalue > 1e-6


@pytest.mark.parametrize("deviation", [1e-9, 0.37, 1.0, 4e6])
def test_the_variance_is_the_stated_one(deviation: float) -> None:
    values = gaussian(SecureStream(), MANY, deviation)
    statistic = float(np.square(values / deviation).sum())
    assert 1e-7 < stats.chi2.cdf(statistic, MANY) < 1 - 1e-7
    assert abs(values.mean()) < 6 * deviation / math.sqrt(MANY)


def test_the_tails_are_as_heavy_as_a_gaussians(standard: npt.NDArray[np.float64]) -> None:
    """Noise that is cut or thinned out in its tails has the right variance and a wrong delta."""
    for threshold in (2.0, 3.0, 4.0):
        for beyond in (int((standard > threshold).sum()), int((standard < -threshold).sum())):
            assert stats.binomtest(beyond, MANY, stats.norm.sf(threshold)).pvalue > 1e-7


def test_values_are_independent_of_their_neighbours_and_across_chunks(standard: npt.NDArray[np.float64]) -> None:
    for lag in (1, 2, noise._CHUNK - 1, noise._CHUNK, noise._CHUNK + 1, 2 * noise._CHUNK):
        assert abs(float(np.mean(standard[lag:] * standard[:-lag]))) < 6 / math.sqrt(MANY)
        squares = np.square(standard) - 1
        assert abs(float(np.mean(squares[lag:] * squares[:-lag]))) < 12 / math.sqrt(MANY)


def test_no_value_comes_twice(standard: npt.NDArray[np.float64]) -> None:
    assert len(np.unique(standard[:100_000])) == 100_000


def test_numpys_global_seed_does_not_repeat_the_noise() -> None:
    drawn = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        drawn.append(gaussian(SecureStream(), 100, 1.0))
    assert not np.intersect1d(drawn[0], drawn[1]).size


@pytest.mark.parametrize("n", [1, 5, noise._CHUNK, noise._CHUNK + 3])
def test_four_words_make_one_value_by_two_box_muller_draws(n: int) -> None:
    """A second implementation, value by value, in Python's own arithmetic."""
    words = SecureStream().words(4 * n)
    stream = GivenWords(words)
    values = gaussian(stream, n, 2.0)
    assert stream.drawn == 4 * n
    at = 0
    for start in range(0, n, noise._CHUNK):
        size = min(noise._CHUNK, n - start)
        radii, angles = words[at : at + 2 * size].tolist(), words[at + 2 * size : at + 4 * size].view(np.int64).tolist()
        draws = [
            math.sqrt(-2 * math.log((u + 0.5) * 2.0**-64)) * math.cos(angle * math.pi * 2.0**-63)
            for u, angle in zip(radii, angles, strict=True)
        ]
        expected = [2.0 * (draws[i] + draws[size + i]) / math.sqrt(2) for i in range(size)]
        np.testing.assert_allclose(values[start : start + size], expected, rtol=1e-12, atol=1e-14)
        at += 4 * size


@pytest.mark.parametrize("extreme", [0, 1, 2**63, 2**64 - 1])
def test_the_extreme_words_give_finite_values_within_the_stated_bound(extreme: int) -> None:
    for angle in (0, 2**63, 2**64 - 1):
        words = np.array([extreme, extreme, angle, angle], dtype=np.uint64)
        value = float(gaussian(GivenWords(words), 1, 1.0)[0])
        assert math.isfinite(value)
        assert abs(value) <= 13.5


def test_the_empty_draw_and_deviation_zero() -> None:
    assert gaussian(SecureStream(), 0, 1.0).shape == (0,)
    assert not gaussian(SecureStream(), 10, 0.0).any()


@pytest.mark.parametrize("deviation", [-1.0, math.inf, math.nan])
def test_a_deviation_that_is_none_is_refused(deviation: float) -> None:
    with pytest.raises(PrivacyError, match="expected a finite noise deviation"):
        gaussian(SecureStream(), 10, deviation)
