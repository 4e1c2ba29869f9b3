"""The gradient score against made-up updates whose parts are known."""

from __future__ import annotations

import numpy as np
import pytest

from fedft.attack.rates import auroc
from fedft.attack.scores import explained


@pytest.mark.parametrize(("noise", "least"), [(0.0, 1.0), (0.3, 0.95), (3.0, 0.6)])
def test_members_are_told_by_what_they_explain_also_among_directions_that_are_alike(noise: float, least: float) -> None:
    """Directions share one large part; the noise is not known and found from what is left unexplained."""
    rng = np.random.default_rng(1)
    directions = (3 * rng.normal(size=2000) + rng.normal(size=(300, 2000))).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    coins = rng.random(200) < 0.5
    weights = np.concatenate([coins * rng.poisson(6, size=200), rng.poisson(6, size=100)])
    target = weights @ directions.astype(np.float64) + noise * rng.normal(size=2000)
    found = auroc(explained(directions, target)[:200], coins)
    assert found.value >= least
    assert found.value > auroc(directions[:200].astype(np.float64) @ target, coins).value


def test_without_noise_the_coefficients_themselves_come_out() -> None:
    rng = np.random.default_rng(2)
    directions = rng.normal(size=(20, 500)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    weights = rng.normal(size=20)
    assert np.allclose(explained(directions, weights @ directions.astype(np.float64)), weights, atol=5e-3)
