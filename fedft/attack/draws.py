"""How often each canary was drawn in a round, told from the round's update by Bayesian linear regression.

An update is a sum of gradients, each as often as its unit was drawn, and whatever else: noise, and what training does
beyond that sum. Units are drawn in each step by a coin with the sampling rate, which is public, so that a canary that
is in has a binomial number of draws, and one that is out has none. A canary that was never drawn leaves nothing to
find.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.special import logsumexp
from scipy.stats import binom

Floats = npt.NDArray[np.float64]
Directions = npt.NDArray[np.float32]

LEAST_RIDGE = 1e-8
"""Of the largest eigenvalue: gradients in float32 are no more exact than that."""

RIDGES = np.exp(np.arange(math.log(LEAST_RIDGE), 8.0, 0.25))
LEAST_VARIANCE = 1e-9
_COLUMNS = 2048
_ROWS = 256


@dataclass(frozen=True)
class Told:
    """What a target says of each canary's number of draws by itself, and how likely the target was.

    mean, variance: (canaries,). log_likelihood: of the target, up to a constant of its size.
    """

    mean: Floats
    variance: Floats
    log_likelihood: float

    def log_odds(self, steps: int, sampling_rate: float) -> Floats:
        """Log likelihood ratio of in against out, (canaries,)."""
        draws = np.arange(steps + 1)
        fits = -((draws - self.mean[:, None]) ** 2) / (2 * self.variance[:, None])
        return np.asarray(logsumexp(fits + binom.logpmf(draws, steps, sampling_rate), axis=1) - fits[:, 0])


def tell(
    directions: Directions, target: Floats, *, canaries: int, steps: int, sampling_rate: float, stands_for: float = 1.0
) -> Told:
    """Each canary's number of draws in the target.

    All other units' draws, and with two directions when they fell, are normal around what the sampling rate lets
    expect, and what is left of the target is noise. How much noise there is, and how far draws stray, is where the
    target is most likely, whatever noise was promised.

    Parameters
    ----------
    directions : (1, n, d), the units' gradients, canaries first, then units that are in; or (2, n, d), at the first
        and at the last of the steps, between which they are taken to change evenly
    target : (d,), the sum of the gradients that were drawn
    stands_for : of how many units that are in each given one is an example
    """
    number, size = directions.shape[1:]
    chance = np.where(np.arange(number) < canaries, 0.5, 1.0)
    expected = chance * steps * sampling_rate
    variances = expected * (1 - sampling_rate) + (1 - chance) * expected * steps * sampling_rate
    expected[canaries:] *= stands_for
    flat = directions.reshape(-1, size)
    gram, along = _gram(flat), _along(flat, target)
    if len(directions) == 2:
        gram, along = _turned(gram, along)
        places = np.linspace(-0.5, 0.5, steps)  # of the steps, from one end to the other
        variances = np.concatenate([variances, chance * sampling_rate * float(places @ places)])
        expected = np.concatenate([expected, np.zeros(number)])
    spread = np.sqrt(variances)
    square = float(target @ target - 2 * expected @ along + expected @ gram @ expected)
    spectrum, basis = eigh(gram * spread * spread[:, None])
    spectrum = spectrum.clip(min=0.0)
    projected = basis.T @ (spread * (along - gram @ expected))
    ridge, scale, log_likelihood = _most_likely(spectrum, projected, square, size)
    own = basis[:canaries]
    known = np.maximum(own**2 @ (spectrum / (spectrum + ridge)), 1e-300)  # share of a draw's variance that shows
    found = own @ (projected / (spectrum + ridge))
    mean = expected[:canaries] + spread[:canaries] * found / known
    variance = scale * variances[:canaries] * (1 / known - 1)
    return Told(mean, np.maximum(variance, LEAST_VARIANCE), log_likelihood)


def _most_likely(spectrum: Floats, projected: Floats, square: float, size: int) -> tuple[float, float, float]:
    """The ridge under which a target of this square is most likely, the scale of all variances beside it, and how."""

    def scale_of(ridge: float) -> float:
        return max((square - float((projected**2 / (spectrum + ridge)).sum())) / ridge / size, 1e-300)

    def log_likelihood(ridge: float) -> float:
        spread = (size - len(spectrum)) * math.log(ridge) + float(np.log(spectrum + ridge).sum())
        return -(size * math.log(scale_of(ridge)) + spread) / 2

    top = max(float(spectrum[-1]), 1e-300)
    ridge = max((top * float(one) for one in RIDGES), key=log_likelihood)
    return ridge, scale_of(ridge), log_likelihood(ridge)


def _turned(gram: Floats, along: Floats) -> tuple[Floats, Floats]:
    """From directions at both ends to their means and, behind them, their differences."""
    turn, number = np.array([[0.5, 0.5], [-1.0, 1.0]]), len(along) // 2
    blocks = np.einsum("ai,inkm,bk->anbm", turn, gram.reshape(2, number, 2, number), turn, optimize=True)
    return blocks.reshape(gram.shape), (turn @ along.reshape(2, number)).ravel()


def _gram(rows: Directions) -> Floats:
    """Inner products in float64, piece by piece: in float32 they would be no more exact than the noise to be told."""
    found = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], _COLUMNS):
        piece = rows[:, start : start + _COLUMNS].astype(np.float64)
        found += piece @ piece.T
    return found


def _along(rows: Directions, target: Floats) -> Floats:
    pieces = [rows[start : start + _ROWS].astype(np.float64) @ target for start in range(0, len(rows), _ROWS)]
    return np.concatenate(pieces)
