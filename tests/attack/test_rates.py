"""Rates and areas against definitions, and their intervals against repeated draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from fedft.attack.rates import auroc, clopper_pearson, tpr_at_fpr
from fedft.attack.references import lira, rmia
from fedft.errors import ConfigError


def test_clopper_pearson_is_the_interval_whose_ends_have_the_tails() -> None:
    found = clopper_pearson(7, 50)
    assert binom.sf(6, 50, found.low) == pytest.approx(0.025)
    assert binom.cdf(7, 50, found.high) == pytest.approx(0.025)
    assert (clopper_pearson(0, 9).low, clopper_pearson(9, 9).high) == (0.0, 1.0)
    with pytest.raises(ConfigError, match="successes"):
        clopper_pearson(3, 2)


def test_tpr_is_of_the_members_above_the_others_that_may_pass() -> None:
    coins = np.array([True] * 4 + [False] * 100)
    scores = np.concatenate([[200.0, 99.5, 98.5, 50.0], np.arange(100.0)])
    assert tpr_at_fpr(scores, coins, 0.01).value == 0.75, "one of a hundred may pass: 99; 98.5 is above 98"
    assert tpr_at_fpr(scores, coins, 0.001).value == 0.5, "none may pass"
    assert tpr_at_fpr(scores, coins, 1.0).value == 1.0


def test_auroc_counts_pairs_and_ties_half() -> None:
    coins = np.array([True, True, False, False, False])
    scores = np.array([2.0, 1.0, 1.0, 0.0, 3.0])
    assert auroc(scores, coins).value == pytest.approx((2 + 1.5) / 6)


def test_the_interval_of_auroc_holds_the_truth_as_often_as_it_says() -> None:
    rng, inside = np.random.default_rng(1), 0
    truth = 0.7602499  # of a shift by one deviation: Φ(1/√2)
    for _ in range(500):
        coins = rng.random(200) < 0.5
        found = auroc(rng.normal(size=200) + coins, coins)
        inside += found.low <= truth <= found.high
    assert 0.92 < inside / 500 < 0.98


def test_one_kind_of_canary_alone_says_nothing() -> None:
    with pytest.raises(ConfigError, match="one kind alone"):
        auroc(np.arange(3.0), np.array([True, True, True]))


def models(rng: np.random.Generator, coins: np.ndarray, hard: np.ndarray, gain: float) -> np.ndarray:
    """Confidences of models: a canary's own hardness, more where it was trained on, and noise."""
    logits = hard + gain * coins + rng.normal(scale=0.5, size=coins.shape)
    return 1 / (1 + np.exp(-logits))


def test_reference_models_take_a_canarys_own_hardness_away() -> None:
    """Hardness of a large spread hides membership from the confidence alone, and not from the two comparisons."""
    rng = np.random.default_rng(2)
    hard = rng.normal(scale=3.0, size=600)
    coins = rng.random(600) < 0.5
    others = rng.random((4, 600)) < 0.5
    target, references = models(rng, coins, hard, 1.0), models(rng, others, hard, 1.0)
    public = rng.normal(scale=3.0, size=300)
    none = np.zeros(300, dtype=bool)
    population = models(rng, none, public, 1.0)
    population_references = models(rng, np.zeros((4, 300), dtype=bool), public, 1.0)
    alone = auroc(target, coins).value
    by_ratio = auroc(lira(target, references, others), coins).value
    by_rank = auroc(rmia(target, references, population, population_references), coins).value
    assert alone < 0.65
    assert by_ratio > 0.8
    assert by_rank > 0.7


def test_lira_takes_canaries_that_were_always_in_or_always_out() -> None:
    rng = np.random.default_rng(3)
    coins, others = rng.random(400) < 0.5, rng.random((1, 400)) < 0.5
    hard = rng.normal(scale=2.0, size=400)
    found = lira(models(rng, coins, hard, 2.0), models(rng, others, hard, 2.0), others)
    assert np.isfinite(found).all()


def test_lira_is_the_log_likelihood_ratio_of_two_normals() -> None:
    references = 1 / (1 + np.exp(-np.array([[1.0], [3.0], [-1.0], [-1.4]])))
    inside = np.array([[True], [True], [False], [False]])
    variance = (1 + 1 + 0.04 + 0.04) / 2
    target = 1 / (1 + np.exp(-0.5))
    expected = ((0.5 + 1.2) ** 2 - (0.5 - 2.0) ** 2) / (2 * variance)
    assert lira(np.array([target]), references, inside)[0] == pytest.approx(expected)


def test_rmia_is_the_share_of_the_population_that_is_dominated() -> None:
    found = rmia(np.array([0.9, 0.1]), np.array([[0.5, 0.5]]), np.array([0.4, 0.8]), np.array([[0.4, 0.4]]))
    assert list(found) == [0.5, 0.0]


def test_references_of_other_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="score the same rows"):
        lira(np.array([0.5]), np.array([[0.5, 0.5]]), np.array([[True, False]]))
