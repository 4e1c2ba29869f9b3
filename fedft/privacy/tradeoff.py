"""What (epsilon, delta) means for whoever guesses whether one unit's rows were trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fedft.errors import ConfigError


def largest_tpr(curve: Iterable[tuple[float, float]], fpr: float) -> float:
    """The true positive rate that no test with a false positive rate of at most ``fpr`` exceeds.

    Guarantee: for a mechanism that is (epsilon, delta)-DP at every pair of ``curve``, whatever the attacker knows
    besides: TPR <= exp(epsilon)·FPR + delta and 1 - TPR >= exp(-epsilon)·(1 - delta - FPR), the smaller of both over
    all pairs. Kairouz, Oh & Viswanath 2015, "The composition theorem for differential privacy", theorem 2.1.

    Parameters
    ----------
    curve : pairs (epsilon, delta); an infinite epsilon says nothing
    """
    if not 0 <= fpr <= 1:
        raise ConfigError(f"expected a false positive rate from 0 to 1, found {fpr}: correct it")
    bounds = [1.0]
    for epsilon, delta in curve:
        if math.isfinite(epsilon):
            bounds.append(1 - math.exp(-epsilon) * max(0.0, 1 - delta - fpr))
            bounds.append(math.exp(min(epsilon, 700.0)) * fpr + delta)
    return min(bounds)
