"""What training would cost an institution in epsilon, for many settings at once: before there is a federation to plan.

A price is that of the steps alone, for adding or removing one unit, together with what its ledger holds already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedft.errors import ConfigError, UnreachableEpsilon
from fedft.privacy.accountant import calibrate, epsilon_of, require_delta
from fedft.privacy.events import DpSgdRound, PrivacyEvent

LABEL = "fedft/v1/audit-plan"
MOST_PRICES = 1000
NOISES = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
ROUNDS = (10, 25, 50, 100)


@dataclass(frozen=True)
class Setting:
    """Units of a data set and how many a step takes on average; or their ratio alone, the sampling rate."""

    rate: float
    units: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Priced:
    """One setting. epsilons[i][j]: at noises[i] after rounds[j] rounds. least_noise: by rounds, for the wanted epsilon;
    None where none is enough. refusal: why there are no prices."""

    setting: Setting
    epsilons: tuple[tuple[float, ...], ...] = ()
    least_noise: tuple[float | None, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True)
class PriceList:
    noises: tuple[float, ...]
    rounds: tuple[int, ...]
    local_steps: int
    delta: float
    wanted: float | None
    spent: float
    priced: tuple[Priced, ...]

    def as_json(self) -> dict[str, Any]:
        return {"label": LABEL, "relation": "add or remove one unit", **asdict(self)}


def settings_of(units: Sequence[int], batch_sizes: Sequence[int], rates: Sequence[float]) -> list[Setting]:
    """Every pair of size and batch, and every rate. Raises ConfigError when there is neither."""
    pairs = [Setting(batch / size, size, batch) for size in units for batch in batch_sizes]
    found = [*pairs, *map(Setting, rates)]
    if not found:
        raise ConfigError(
            "expected sizes and batch sizes, or sampling rates, found neither: give --units, --batch-size"
        )
    return found


def price_list(
    settings: Sequence[Setting],
    *,
    noises: Sequence[float],
    rounds: Sequence[int],
    local_steps: int,
    delta: float,
    wanted: float | None = None,
    past: Sequence[PrivacyEvent] = (),
) -> PriceList:
    """Epsilon of each setting, noise multiplier and number of rounds.

    Parameters
    ----------
    wanted
        An epsilon for which the least noise is sought too.
    past
        What is in the data set's ledger already: it counts in every price.

    Raises
    ------
    ConfigError
        More than 1,000 prices, or a number out of its range.
    """
    count = len(settings) * len(noises) * len(rounds)
    if count > MOST_PRICES:
        raise ConfigError(f"expected at most {MOST_PRICES:,} prices, found {count:,}: give fewer values")
    spent = epsilon_of(past, delta)
    priced = tuple(_priced(one, noises, rounds, local_steps, delta, wanted, past) for one in settings)
    return PriceList(tuple(noises), tuple(rounds), local_steps, delta, wanted, spent, priced)


def _priced(
    setting: Setting,
    noises: Sequence[float],
    rounds: Sequence[int],
    local_steps: int,
    delta: float,
    wanted: float | None,
    past: Sequence[PrivacyEvent],
) -> Priced:
    if not 0 < setting.rate <= 1:
        return Priced(setting, refusal="a step takes more units than there are")
    if setting.units is not None:
        try:
            require_delta(delta, setting.units)
        except ConfigError:
            return Priced(setting, refusal=f"delta has to be below 1/{setting.units:,}")
    epsilons = tuple(
        tuple(epsilon_of([DpSgdRound(noise, setting.rate, done * local_steps), *past], delta) for done in rounds)
        for noise in noises
    )
    least = (
        ()
        if wanted is None
        else tuple(_least(setting.rate, done * local_steps, delta, wanted, past) for done in rounds)
    )
    return Priced(setting, epsilons, least)


def _least(rate: float, steps: int, delta: float, wanted: float, past: Sequence[PrivacyEvent]) -> float | None:
    try:
        return calibrate(epsilon=wanted, delta=delta, sampling_rate=rate, steps=steps, other=past)
    except UnreachableEpsilon:
        return None


def title(setting: Setting) -> str:
    if setting.units is None:
        return f"sampling rate {setting.rate:g}"
    return f"{setting.units:,} units, {setting.batch_size:,} in a step on average (sampling rate {setting.rate:.4g})"


def finite_points(
    found: PriceList, priced: Priced, highest: float
) -> Iterator[tuple[str, tuple[tuple[float, float], ...]]]:
    """Lines to draw: noise, and (rounds, epsilon) up to ``highest``."""
    for noise, row in zip(found.noises, priced.epsilons, strict=True):
        points = zip(found.rounds, row, strict=True)
        yield f"noise {noise:g}", tuple((float(x), y) for x, y in points if math.isfinite(y) and y <= highest)
