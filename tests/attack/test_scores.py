"""The gradient score against rounds of a real model, whose draws are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedft.assembly.coordinator import PublicParts
from fedft.attack import scores
from fedft.attack.canaries import CanarySetup, as_data_set, make_canaries, toss
from fedft.attack.rates import auroc
from fedft.attack.scores import LocalSteps, gradient_score, units_that_fit
from fedft.config import parse_config
from fedft.randomness import reproducible_rng
from fedft.training.local import LocalPlan, Mechanism, sum_gradients, train_locally
from tests.attack.test_pipeline import LEAKY
from tests.federation import UNITS, federation_body

BATCH, CANARIES = 30, 60


@dataclass(frozen=True)
class Round:
    """One institution's round with canaries. drawn: (steps, units), its own units first, then canaries that are in."""

    setup: CanarySetup
    coins: npt.NDArray[np.bool_]
    steps: LocalSteps
    update: npt.NDArray[np.float32]
    drawn: npt.NDArray[np.bool_]

    def score(self, **changes: Any) -> npt.NDArray[np.float64]:
        own = self.setup.encode(self.setup.own_rows)
        canaries = self.setup.encode(as_data_set(_canaries(self.setup)))
        model, roles = self.setup.model, self.setup.aggregation.trains
        given: dict[str, Any] = {"adapter": model.start_vector(), "update": self.update, "roles": roles}
        given |= {"steps": self.steps, **changes}
        return gradient_score(model, canaries, own, **given)

    @property
    def took_part(self) -> npt.NDArray[np.bool_]:
        """Which canaries were drawn."""
        found = np.zeros(CANARIES, dtype=bool)
        found[self.coins] = self.drawn[:, -int(self.coins.sum()) :].any(axis=0)
        return found


def _canaries(setup: Any) -> Sequence[Any]:
    return make_canaries(setup, kind="random", count=CANARIES, seed=5)


def play_round(
    folder: Path, *, steps: int, optimizer: str = "sgd", rate: float = 0.1, clip_norm: float | None = None
) -> Round:
    """Without noise. clip_norm: of one step, the clipped sum."""
    config = parse_config(federation_body(folder), folder=folder, overrides=LEAKY)
    coins = toss(5, "round", CANARIES)
    setup = CanarySetup(config, institution=None, canaries=_canaries(PublicParts(config)), coins=coins)
    data = next(iter(setup.institution("north").encoded.values()))
    rng = reproducible_rng(1, "round")
    flips: list[npt.NDArray[np.float64]] = []

    def uniform(count: int) -> npt.NDArray[np.float64]:
        flips.append(rng.random(count))
        return flips[-1]

    mechanism = None if clip_norm is None else Mechanism(clip_norm, 1.0)
    rates = (rate,) * steps
    plan = LocalPlan(rates, BATCH, BATCH / data.unit_count, mechanism, optimizer)
    model, roles = setup.model, setup.aggregation.trains
    if mechanism is None:
        update = train_locally(model, data, model.start_vector(), plan, roles=roles, uniform=uniform).delta
    else:
        total = sum_gradients(model, data, model.start_vector(), plan, roles=roles, uniform=uniform).total
        update = (-rate / BATCH * total).astype(np.float32)
    public = LocalSteps(rates, BATCH, BATCH / (UNITS + CANARIES / 2), clip_norm, optimizer)
    return Round(setup, coins, public, update, np.stack(flips) < plan.sampling_rate)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_one_step_without_noise_is_told_exactly(clip_norm: float | None, tmp_path: Path) -> None:
    """Units have several rows, and more of the gradients are longer than the clip norm than not."""
    played = play_round(tmp_path, steps=1, rate=2.0, clip_norm=clip_norm)
    found = played.score()
    assert found[played.took_part].min() > 1e5
    assert np.allclose(found[~played.took_part], np.log(1 - played.steps.sampling_rate), atol=1e-2), "in, not drawn"


def test_several_steps_are_told_by_gradients_at_both_ends(tmp_path: Path) -> None:
    played = play_round(tmp_path, steps=6, rate=0.05)
    found = played.score()
    assert found[played.took_part].min() > 100 > 0 > found[~played.took_part].max()


def test_steps_of_adam_are_told_by_gradients_that_are_divided_as_it_divides(tmp_path: Path) -> None:
    played = play_round(tmp_path, steps=6, optimizer="adamw", rate=0.003)
    told = played.score()
    found = auroc(told, played.coins).value
    assert found > 0.85
    assert found > auroc(played.score(steps=replace(played.steps, optimizer="sgd")), played.coins).value + 0.05
    assert np.allclose(played.score(steps=replace(played.steps, noise=100.0)), told, rtol=1e-3), "it was left out"


def test_a_round_whose_rate_is_zero_tells_nothing(tmp_path: Path) -> None:
    played = play_round(tmp_path, steps=1)
    still = replace(played.steps, learning_rates=(0.0,))
    assert not played.score(update=np.zeros_like(played.update), steps=still).any()


def test_units_are_bounded_by_memory_and_not_by_a_round_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert units_that_fit(2500, 400, ends=1, size=29_645) == 2500
    assert units_that_fit(100_000, 400, ends=1, size=29_645) == 3600
    assert units_that_fit(100_000, 400, ends=2, size=29_645) == 1600
    fitting = units_that_fit(100_000, 400, ends=2, size=2_000_000)
    assert 4 * 2 * 2_000_000 * fitting <= 2**31 < 4 * 2 * 2_000_000 * (fitting + 1)
    assert units_that_fit(10, 9000, ends=1, size=8) == 0
    played = play_round(tmp_path, steps=1)
    monkeypatch.setattr(scores, "MOST_BYTES", 4 * len(played.update) * 20)
    part = played.score()
    assert np.isfinite(part).all()
    assert auroc(part, played.took_part).value > 0.7
