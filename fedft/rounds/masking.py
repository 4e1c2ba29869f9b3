"""Secure aggregation over a run, as coordinator and institutions agree on it. docs/SPEC.md, "Secure aggregation"."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedft.errors import ConfigError
from fedft.privacy.distributed import DistributedPlan, plan_distributed
from fedft.secagg.context import RoundContext
from fedft.secagg.encoding import FixedPoint, Integers
from fedft.secagg.graph import LEAST_COHORT, Shape, colluders, shape_for

MOST_FRACTION_BITS = 40
"""More would be finer than what a plain sum keeps (update/encoding.py)."""


@dataclass(frozen=True)
class UpdateCode:
    """Of updates: their mean by public weights."""

    scale: FixedPoint

    def mean(self, total: Integers, uploaded: Collection[str]) -> npt.NDArray[np.float64]:
        """The update, (d,), that the coordinator's step takes."""
        decoded = self.scale.decode(total)
        decoded /= sum(self.scale.weights[name] for name in uploaded)
        return decoded


@dataclass(frozen=True)
class GradientCode:
    """Of clipped sums of gradients, each with its share of the noise: one step against their mean.

    batch_size: expected units of a full data set, the public divisor of each institution's sum.
    """

    scale: DistributedPlan
    batch_size: int

    def mean(self, total: Integers, uploaded: Collection[str]) -> npt.NDArray[np.float64]:
        """As UpdateCode's."""
        gradient = np.ldexp(total.astype(np.float64), -self.scale.fraction_bits)
        gradient /= -self.batch_size * len(uploaded)
        return gradient


SumCode = UpdateCode | GradientCode
"""How a cohort's vectors become integers, and what their sum means.

scale: ring_bits, fraction_bits, and limits, the largest |integer| of each member.
"""


@dataclass(frozen=True)
class SharedNoise:
    """privacy.mode = "distributed": a round is one step of DP-SGD over all institutions, its noise added in shares.

    noise_multiplier: of the sum, whoever drops out or colludes. max_units: the most privacy units any institution has;
    batch_size over it is everyone's sampling rate. colluding: institutions that may be on the coordinator's side; None:
    as many as secure aggregation holds against.
    """

    noise_multiplier: float
    clip_norm: float
    batch_size: int
    max_units: int
    colluding: int | None = None

    @property
    def sampling_rate(self) -> float:
        return self.batch_size / self.max_units

    def plan(self, names: Iterable[str], *, size: int, ring_bits: int, shape: Shape) -> DistributedPlan:
        """Raises ConfigError as least_honest and plan_distributed."""
        return plan_distributed(
            noise_multiplier=self.noise_multiplier,
            sampling_rate=self.sampling_rate,
            units=dict.fromkeys(names, self.max_units),
            least_honest=least_honest(shape, self.colluding),
            clip_norm=self.clip_norm,
            size=size,
            ring_bits=ring_bits,
        )


@dataclass(frozen=True)
class MaskingTerms:
    """ring_bits: width of what travels of a value. bound: an update's values are cut off beyond it, before encoding.

    threshold: how many uploads a round needs; None: the least that the proof allows for the cohort, ⌊2n/3⌋ + 1.
    noise: where what travels are gradients with their share of noise, which nothing cuts off.
    """

    ring_bits: int
    bound: float
    threshold: int | None = None
    noise: SharedNoise | None = None

    @property
    def least_cohort(self) -> int:
        """With fewer there is nothing to begin."""
        return max(LEAST_COHORT, self.threshold or 0)

    def shape(self, members: int) -> Shape:
        """Raises ConfigError for a cohort that is too small or too large, and for a threshold out of its range."""
        return shape_for(members, self.threshold)

    def code(self, weights: Mapping[str, float], *, size: int) -> SumCode:
        """The finest for a cohort of these weights. Raises ConfigError for a ring that does not hold its sum."""
        if self.noise is not None:
            shape = self.shape(len(weights))
            plan = self.noise.plan(weights, size=size, ring_bits=self.ring_bits, shape=shape)
            return GradientCode(plan, self.noise.batch_size)
        widest = FixedPoint.widest(self.ring_bits, self.bound, weights)
        return UpdateCode(replace(widest, fraction_bits=min(widest.fraction_bits, MOST_FRACTION_BITS)))

    def code_of(self, context: RoundContext, weights: Mapping[str, float]) -> SumCode:
        """A round's, as its context has it. weights: of members that are known; an institution knows its own.

        Raises ConfigError for a context with another scale than its cohort and these terms come to.
        """
        if self.noise is None:
            return UpdateCode(FixedPoint(context.ring_bits, context.fraction_bits, self.bound, weights))
        plan = self.noise.plan(context.cohort, size=context.size, ring_bits=context.ring_bits, shape=context.shape)
        if plan.fraction_bits != context.fraction_bits:
            raise ConfigError(
                f"expected the scale that [privacy] and the cohort come to, {plan.fraction_bits} fraction bits, found "
                f"{context.fraction_bits}: use the coordinator's version of fedft"
            )
        return GradientCode(plan, self.noise.batch_size)


def least_honest(shape: Shape, colluding: int | None = None) -> int:
    """Over how many honest institutions any sum goes that the coordinator learns with so many on its side.

    Raises ConfigError for more than secure aggregation holds against, and for a cohort above 32, whose sparse graph
    holds but for a chance that delta has no term for.
    """
    if not shape.complete:
        raise ConfigError(
            f'expected at most 32 institutions with privacy.mode = "distributed", found {shape.members}: form several '
            'federations, or set it to "dp-sgd"'
        )
    most = colluders(shape)
    found = most if colluding is None else colluding
    if not 0 <= found <= most:
        raise ConfigError(
            f"expected privacy.colluding of at most {most} for {shape.members} institutions of which "
            f"{shape.threshold} are needed, found {found}: lower it, or raise secure_aggregation.threshold"
        )
    return shape.least_honest_sum(found, found)


def run_of(setup: str) -> str:
    """A setup is named RUN/NONCE: the run, and what tells this setup from the run's others."""
    return setup.rpartition("/")[0]
