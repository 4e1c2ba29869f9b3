"""Draws told from made-up targets whose parts are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedft.attack.draws import tell
from fedft.attack.rates import auroc

Floats = npt.NDArray[np.float64]
CANARIES, OWN, RATE = 200, 100, 0.3


def alike(rng: np.random.Generator, size: int = 2000) -> npt.NDArray[np.float32]:
    """Directions that share one large part, and differ in length."""
    found = 3 * rng.normal(size=size) + rng.normal(size=(CANARIES + OWN, size))
    return (found * rng.uniform(0.02, 0.2, size=(CANARIES + OWN, 1))).astype(np.float32)


def drawn(rng: np.random.Generator, steps: int) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Coins, and who takes part in which step, (n, steps)."""
    coins = rng.random(CANARIES) < 0.5
    inside = np.concatenate([coins, np.ones(OWN, dtype=bool)])
    return coins, ((rng.random((CANARIES + OWN, steps)) < RATE) & inside[:, None]).astype(np.float64)


def told(directions: npt.NDArray[Any], target: Floats, steps: int, **options: Any) -> Floats:
    found = tell(directions, target, canaries=CANARIES, steps=steps, sampling_rate=RATE, **options)
    return found.log_odds(steps, RATE)


def test_without_noise_one_step_is_told_exactly() -> None:
    rng = np.random.default_rng(1)
    directions, (_, took_part) = alike(rng), drawn(rng, 1)
    target = took_part[:, 0] @ directions.astype(np.float64)
    draws = tell(directions[None], target, canaries=CANARIES, steps=1, sampling_rate=RATE)
    assert np.allclose(draws.mean, took_part[:CANARIES, 0], atol=1e-4)
    assert draws.variance.max() < 1e-4
    found, was_drawn = told(directions[None], target, 1), took_part[:CANARIES, 0] == 1
    assert found[was_drawn].min() > 100
    assert np.allclose(found[~was_drawn], np.log(1 - RATE), atol=1e-3), "in and not drawn: all that can be said"


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.99), (0.3, 0.9), (3.0, 0.55)])
def test_members_are_told_under_noise_that_nobody_promised(noise: float, least: float) -> None:
    rng = np.random.default_rng(2)
    directions, (coins, took_part) = alike(rng), drawn(rng, 20)
    target = took_part.sum(axis=1) @ directions.astype(np.float64) + noise * rng.normal(size=2000)
    found = auroc(told(directions[None], target, 20), coins)
    assert found.value >= least
    assert found.value > auroc(directions[:CANARIES].astype(np.float64) @ target, coins).value


def test_gradients_at_both_ends_tell_more_of_several_steps_than_those_in_between() -> None:
    """They turn by as much as they are long; when a unit was drawn is not known."""
    rng = np.random.default_rng(3)
    first, steps = alike(rng), 6
    last = (first + alike(rng)).astype(np.float32)
    _, took_part = drawn(rng, steps)
    places = np.linspace(0, 1, steps)
    target = (took_part @ (1 - places)) @ first.astype(np.float64) + (took_part @ places) @ last.astype(np.float64)

    def worst(directions: npt.NDArray[Any]) -> float:
        draws = tell(directions, target, canaries=CANARIES, steps=steps, sampling_rate=RATE)
        return float(np.abs(draws.mean - took_part[:CANARIES].sum(axis=1)).max())

    assert worst(np.stack([first, last])) < 0.01
    assert worst(((first + last) / 2)[None]) > 0.5


def test_a_few_of_many_own_units_stand_for_all() -> None:
    rng = np.random.default_rng(4)
    directions, (coins, took_part) = alike(rng), drawn(rng, 6)
    target = took_part.sum(axis=1) @ directions.astype(np.float64)
    some = directions[None, : CANARIES + OWN // 4]
    together = auroc(told(some, target, 6, stands_for=4.0), coins).value
    assert together > auroc(told(some, target, 6), coins).value
    assert together > 0.8


def test_a_canary_without_a_gradient_tells_nothing() -> None:
    rng = np.random.default_rng(5)
    directions, (_, took_part) = alike(rng), drawn(rng, 1)
    directions[0] = 0.0
    target = took_part[:, 0] @ directions.astype(np.float64) + rng.normal(size=2000)
    found = told(directions[None], target, 1)
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(told(np.zeros_like(directions)[None], np.zeros(2000), 1)).all()
