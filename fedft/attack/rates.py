"""How well scores tell members from others: TPR at a low FPR, and AUROC, with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm, rankdata

from fedft.errors import ConfigError

Scores = npt.NDArray[np.float64]
Coins = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A figure and its two-sided confidence interval."""

    value: float
    low: float
    high: float


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """A proportion with its exact interval: Clopper & Pearson 1934."""
    if not 0 <= successes <= trials or trials < 1:
        raise ConfigError(f"expected 0 <= successes <= trials and a trial, found {successes} of {trials}: correct it")
    tail, failures = (1 - confidence) / 2, trials - successes
    low = float(beta.ppf(tail, successes, failures + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, failures)) if failures else 1.0
    return Estimate(successes / trials, low, high)


def tpr_at_fpr(scores: Scores, coins: Coins, fpr: float, confidence: float = 0.95) -> Estimate:
    """Share of members above the lowest threshold that at most ``fpr`` of the others pass.

    The interval is for that threshold: it is chosen on the same others, as is usual. With fewer than 1/fpr others,
    none of them passes.
    """
    inside, outside = _halves(scores, coins)
    allowed = int(np.floor(fpr * len(outside)))
    threshold = np.sort(outside)[::-1][allowed] if allowed < len(outside) else -np.inf
    return clopper_pearson(int((inside > threshold).sum()), len(inside), confidence)


def auroc(scores: Scores, coins: Coins, confidence: float = 0.95) -> Estimate:
    """The probability that a member scores above another, ties half: with the normal interval of DeLong et al. 1988.

    The variance is that of the placements of members among others and the reverse (Sun & Xu 2014, algorithm 2).
    """
    inside, outside = _halves(scores, coins)
    together = rankdata(np.concatenate([inside, outside]))
    above = (together[: len(inside)] - rankdata(inside)) / len(outside)
    below = 1 - (together[len(inside) :] - rankdata(outside)) / len(inside)
    area = float(above.mean())
    variance = sum(float(np.var(side, ddof=1)) / len(side) if len(side) > 1 else 0.25 for side in (above, below))
    reach = float(norm.ppf((1 + confidence) / 2)) * variance**0.5
    return Estimate(area, max(0.0, area - reach), min(1.0, area + reach))


def _halves(scores: Scores, coins: Coins) -> tuple[Scores, Scores]:
    inside, outside = scores[coins], scores[~coins]
    if not len(inside) or not len(outside):
        raise ConfigError("expected canaries inside and outside, found one kind alone: use more canaries")
    return inside, outside
