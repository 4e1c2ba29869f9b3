"""What happened to a data set, as facts. Epsilon is never stored: it is derived from these."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedft.errors import LedgerCorrupt, PrivacyError


@dataclass(frozen=True)
class DpSgdRound:
    """``steps`` Poisson-subsampled Gaussian releases of a sum of clipped per-unit gradients.

    noise_multiplier: standard deviation of the noise over the clip norm. sampling_rate: probability of each unit in
    each step. Neighbouring relation: add or remove one unit. Source: Abadi et al. 2016, section 3.1.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int

    def __post_init__(self) -> None:
        _require_noise(self.noise_multiplier)
        _require_sampled_steps(self.sampling_rate, self.steps)


@dataclass(frozen=True)
class DistributedStep:
    """``steps`` Poisson-subsampled sums of clipped per-unit gradients that left masked, each with a share of noise.

    What it costs holds towards a coordinator, and colluding institutions, that learn of this institution's upload only
    the sum with those of others, ``least_honest`` honest institutions at least, itself among them. noise_multiplier:
    what that many shares come to, over the sensitivity after rounding to integers. gap: total variation distance of one
    step's outcome from the Gaussian mechanism's. Neighbouring relation: add or remove one unit.
    Source: privacy/distributed.py; Kairouz, Liu & Steinke 2021.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    least_honest: int
    gap: float

    def __post_init__(self) -> None:
        _require_noise(self.noise_multiplier)
        _require_sampled_steps(self.sampling_rate, self.steps)
        if type(self.least_honest) is not int or self.least_honest < 1:
            raise PrivacyError(
                f"expected a sum over 1 honest institution or more, found {self.least_honest!r}: correct the plan"
            )
        if not (_is_number(self.gap) and 0 <= self.gap < 1):
            raise PrivacyError(f"expected a distance in [0, 1), found {self.gap!r}: correct the plan")

    def alone(self) -> DistributedStep:
        """The same upload if its masks did not hold: one share of noise, 1/√least_honest of what the sum has."""
        return replace(self, noise_multiplier=self.noise_multiplier / math.sqrt(self.least_honest), least_honest=1)


@dataclass(frozen=True)
class GaussianRelease:
    """One Gaussian release of a sum over all units: noise_multiplier = standard deviation over L2 sensitivity."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        _require_noise(self.noise_multiplier)


@dataclass(frozen=True)
class UnprotectedRelease:
    """Something left without a guarantee, named so by the institution's policy: epsilon is infinite from here on."""


@dataclass(frozen=True)
class DataIndependentRelease:
    """Something left in which no row had a part, as shares of masks: it costs nothing, and is on record."""


PrivacyEvent = DpSgdRound | DistributedStep | GaussianRelease | UnprotectedRelease | DataIndependentRelease

_KINDS: dict[str, type[PrivacyEvent]] = {
    "dp-sgd-round": DpSgdRound,
    "distributed-step": DistributedStep,
    "gaussian-release": GaussianRelease,
    "unprotected-release": UnprotectedRelease,
    "data-independent-release": DataIndependentRelease,
}


def event_as_json(event: PrivacyEvent) -> dict[str, Any]:
    kind = next(name for name, cls in _KINDS.items() if isinstance(event, cls))
    return {"kind": kind, **asdict(event)}


def event_from_json(body: Mapping[str, Any]) -> PrivacyEvent:
    """Inverse of event_as_json. Raises LedgerCorrupt on anything else, values out of range included."""
    fields = dict(body)
    try:
        return _KINDS[fields.pop("kind")](**fields)
    except (KeyError, TypeError, PrivacyError) as error:
        raise LedgerCorrupt(
            f"expected a privacy event of kind {' or '.join(_KINDS)}, found fields {sorted(map(str, body))}: "
            "the ledger was written by another version or altered; restore it from a backup"
        ) from error


def _require_noise(noise_multiplier: float) -> None:
    if not (_is_number(noise_multiplier) and 0 < noise_multiplier < math.inf):
        raise PrivacyError(
            f"expected a finite noise multiplier above 0, found {noise_multiplier!r}: a release without noise is an "
            "UnprotectedRelease"
        )


def _require_sampled_steps(sampling_rate: float, steps: int) -> None:
    if not (_is_number(sampling_rate) and 0 < sampling_rate <= 1):
        raise PrivacyError(f"expected a sampling rate in (0, 1], found {sampling_rate!r}: lower the batch size")
    if type(steps) is not int or steps < 1:
        raise PrivacyError(f"expected a whole number of steps, 1 or more, found {steps!r}: correct the plan")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
