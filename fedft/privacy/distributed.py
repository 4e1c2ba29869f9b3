"""One gradient step over all institutions, noise in shares: what the masked sum guarantees to each unit, and the plan.

In a step each institution draws its units by Poisson with rate q, sums their clipped gradients to x (d,), and masks

    v + Z,   v = ⌈2^f x - u⌉ with u uniform in [0, 1)^d,   Z: d draws of the discrete Gaussian D(τ) over the integers,

modulo 2^k. **Guarantee**: towards a coordinator that lies, and colluders, who learn of one institution's upload only a
sum with those of h honest institutions or more (itself among them; secagg's least_honest_sum), T steps are as private
for one unit, added or removed, as T Poisson-subsampled Gaussian mechanisms of noise multiplier z = √(h(τ² - 9))/Δ, up
to total variation T·gap. Δ is ``sensitivity``, gap ``step_gap``; epsilon_of(DistributedStep) adds (1 + e^ε)·T·gap to
delta.

**Proof.** (1) *Sensitivity.* A drawn unit moves 2^f x by a, ‖a‖₂ <= S = 2^f·C(1 + 2^-16): sums taken in float64 are
within 2^-17·C of exact ones up to 2^18 units. With the same u before and after, v moves by e, e_j one of ⌊a_j⌋ and
⌈a_j⌉, the latter with probability a_j - ⌊a_j⌋, independently. So ‖e‖₂ < S + √d. Also E‖e‖² <= S² + d/4, and e_j² takes
two values at most 2|a_j| + 1 apart, so by Hoeffding, except with probability β,

    ‖e‖² <= S² + d/4 + √(2 ln 1/β)·(S + √d/2)                    (Kairouz, Liu & Steinke 2021, proposition 22)

u is independent of the data, so this costs total variation β a step. Δ is the lesser bound, at β = 2^-100. (u has 53
bits: the mean moves by up to 2^-52(S + √d)², which is added.)
(2) *Noise.* The sum over B, B the honest institutions in it, holds the Z of h of them; what more there are is added
independently, which is post-processing. Each Z_j has statistical_distance(τ) from D(τ); sums of these join to D(σ), σ =
τ√h, at h-1 times join_distance(τ/√2) (privacy/discrete_gaussian.py).
(3) *From the continuous Gaussian.* Take V, the sum of v over B; draw y from N(V, σ² - 9), then an integer i with
probability proportional to exp(-(i - y)²/18). Its denominator is 3√2π(1 + θ), |θ| <= η(3), for every y, so i has
the probability of the density of N(V, σ²) at i, and hence of V + D(σ), up to a factor in [(1-η)/(1+η), (1+η)/(1-η)]:
distance join_distance(3) a coordinate. So V + Z is post-processing of a Gaussian mechanism on the vector V, whatever d.
(4) *Subsampling.* Given all else (the other units drawn, every u, the other institutions), the outcome of (3) is
N(V, s²I) without the unit, and (1-q)N(V, s²I) + q·N(V + e, s²I) with it, s² = σ² - 9 >= h(τ² - 9). Along e this is
one-dimensional; a shorter e is post-processing of a longer one (shrink and add noise). Hockey-stick divergences are
jointly convex, so
(N(0,1), (1-q)N(0,1) + q·N(1/z,1)), either way round, dominates each step, and their products the T adaptive steps
(Zhu, Dong & Wang 2022): what the accountant composes.
(5) *The rest* is post-processing of V + Z: the modulus, so a wrap costs accuracy and no privacy; what the coordinator
computes; who drops out, chosen before anything is unmasked. An upload beyond ``limits`` is refused, visibly: its
probability, by draws (Chernoff) or noise (D(τ) is τ²-subgaussian), is in the gap. Nothing is clamped: that would
depend on Z.

**Not in it**: AES-CTR in place of uniform words, and masks, hold against bounded adversaries; a unit's gradient counts
as a function of the unit and the adapter alone, though kernels may round it differently in another batch.

Skellam noise, and rounding each institution's continuous noise, compared: docs/decisions/0017-distributed-noise.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedft.errors import ConfigError, NonFiniteUpdate, UpdateTooLarge
from fedft.privacy.accountant import calibrate, epsilon_of
from fedft.privacy.discrete_gaussian import join_distance, sample_discrete_gaussian, statistical_distance
from fedft.privacy.events import DistributedStep, PrivacyEvent
from fedft.randomness import SecureStream

FAILURE = 2.0**-100
"""Chance in a step of each of: a rounded difference beyond ``sensitivity``, more draws or noise than limits hold."""

SUM_ROOM = 2.0**-16
"""Of the clip norm: how far the float64 sums before and after a unit may together be from exact ones."""

LARGEST_LOSS = 0.05
"""Noise that rounding may cost: a plan in which Δ is more than this above the scaled clip norm is refused."""

SMOOTHING = 3.0
RESERVE = 2.0**-20
"""Part of delta that a plan keeps for gaps."""

_BLOCK = 1 << 16


@dataclass(frozen=True)
class DistributedPlan:
    """Numbers that all institutions of a run share. Deviations and limits in integer units, 2^-fraction_bits each.

    noise_multiplier: as guaranteed, of ``least_honest`` shares over Δ. share_deviation: τ, of each institution. limits:
    the largest |v + Z| by member, whose sum is at most 2^(ring_bits-1) - 1. gap: of one step.
    """

    noise_multiplier: float
    sampling_rate: float
    least_honest: int
    clip_norm: float
    size: int
    ring_bits: int
    fraction_bits: int
    share_deviation: float
    limits: Mapping[str, int]
    gap: float

    def event(self, steps: int = 1) -> DistributedStep:
        return DistributedStep(self.noise_multiplier, self.sampling_rate, steps, self.least_honest, self.gap)

    def deviation(self, uploads: int) -> float:
        """Standard deviation of the noise in the decoded sum of so many uploads, in units of the gradient."""
        return math.ldexp(self.share_deviation * math.sqrt(uploads), -self.fraction_bits)


def calibrate_distributed(
    *, epsilon: float, delta: float, sampling_rate: float, steps: int, other: Sequence[PrivacyEvent] = ()
) -> float:
    """As ``calibrate``, with part of delta kept for gaps.

    Guarantee: the result z has ``epsilon_of([DistributedStep(z, sampling_rate, steps, h, gap), *other], delta) <=
    epsilon`` for each gap up to ``largest_gap``, also when the steps are then played and accounted one by one.
    """
    left = delta * (1 - RESERVE)
    return calibrate(epsilon=epsilon, delta=left, sampling_rate=sampling_rate, steps=steps, other=other)


def largest_gap(*, epsilon: float, delta: float, steps: int) -> float:
    """Of one of ``steps`` steps: what RESERVE of delta pays for."""
    return delta * RESERVE / (steps * (1 + math.exp(min(epsilon, 700.0))))


def plan_distributed(
    *,
    noise_multiplier: float,
    sampling_rate: float,
    units: Mapping[str, int],
    least_honest: int,
    clip_norm: float,
    size: int,
    ring_bits: int,
) -> DistributedPlan:
    """Each institution's share of the noise, at the finest scale that fits the ring.

    Parameters
    ----------
    noise_multiplier
        z, what ``least_honest`` shares come to: as ``calibrate_distributed`` finds it.
    units
        The most units that each member of the cohort has, public: it bounds how many a step draws there.
    least_honest
        h: over how many honest institutions any sum goes that the coordinator learns.
    size
        d, the values in one vector.

    Guarantee: except with a probability that is in ``plan.gap`` no institution refuses its own vector and no sum wraps.

    Raises
    ------
    ConfigError
        A number out of its range, or a ring too small: no scale fits, or rounding costs more than 5 % in noise.
    """
    _require_numbers(units, least_honest, clip_norm, size, ring_bits)
    draws = {name: most_draws(count, sampling_rate, FAILURE / len(units)) for name, count in units.items()}
    for fraction_bits in range(64, -64, -1):
        scaled = math.ldexp(clip_norm, fraction_bits) * (1 + SUM_ROOM)
        share = share_deviation(noise_multiplier, scaled, size, least_honest)
        noise_limit = math.ceil(share * math.sqrt(2 * math.log(2 * size * len(units) / FAILURE))) + 1
        limits = {name: math.ceil(scaled * count) + noise_limit for name, count in draws.items()}
        if sum(limits.values()) <= 2 ** (ring_bits - 1) - 1:
            break
    else:
        raise _ring_too_small(ring_bits, "none")
    loss = sensitivity(scaled, size) / scaled - 1
    if loss > LARGEST_LOSS:
        raise _ring_too_small(ring_bits, f"{fraction_bits} fraction bits and {100 * loss:.3g} %")
    return DistributedPlan(
        noise_multiplier,
        sampling_rate,
        least_honest,
        clip_norm,
        size,
        ring_bits,
        fraction_bits,
        share,
        limits,
        step_gap(share, least_honest, size),
    )


def noisy_share(
    plan: DistributedPlan, clipped_sum: npt.NDArray[np.float64], stream: SecureStream
) -> npt.NDArray[np.int64]:
    """v + Z, shape (d,): what an institution masks. Its limit is checked where it enters the ring, and never clamped.

    clipped_sum: (d,) float64, the sum of the drawn units' gradients, each clipped to the clip norm, taken in float64.
    Raises ConfigError for another shape or type, NonFiniteUpdate, UpdateTooLarge beyond what float64 holds exactly.
    """
    if clipped_sum.shape != (plan.size,) or clipped_sum.dtype != np.float64:
        raise ConfigError(
            f"expected a float64 vector of {plan.size} values, found {clipped_sum.dtype} {clipped_sum.shape}: add unit "
            "gradients up in float64, in the layout of the plan"
        )
    values = sample_discrete_gaussian(stream, plan.size, plan.share_deviation)
    for start in range(0, plan.size, _BLOCK):
        values[start : start + _BLOCK] += _rounded(clipped_sum[start : start + _BLOCK], plan.fraction_bits, stream)
    return values


def local_epsilon(events: Sequence[PrivacyEvent], delta: float) -> float:
    """What ``events`` would come to had secure aggregation failed: of each upload its own share of noise alone."""
    return epsilon_of([event.alone() if isinstance(event, DistributedStep) else event for event in events], delta)


def sensitivity(scaled_clip: float, size: int) -> float:
    """Δ, the L2 norm by which one unit moves v, except with probability FAILURE; scaled_clip: S. Link (1)."""
    root = math.sqrt(size)
    likely = scaled_clip**2 + size / 4 + math.sqrt(-2 * math.log(FAILURE)) * (scaled_clip + root / 2)
    return min(scaled_clip + root, math.sqrt(likely + 2.0**-52 * (scaled_clip + root) ** 2))


def share_deviation(noise_multiplier: float, scaled_clip: float, size: int, least_honest: int) -> float:
    """τ with √(h(τ² - 9)) >= z·Δ."""
    central = noise_multiplier * sensitivity(scaled_clip, size)
    return math.sqrt(central**2 / least_honest + SMOOTHING**2) * (1 + 2.0**-40)


def step_gap(share: float, least_honest: int, size: int) -> float:
    """Total variation distance of one step from its Gaussian mechanism, links (1) to (3) and (5)."""
    joins = (least_honest - 1) * join_distance(share / math.sqrt(2)) + join_distance(SMOOTHING)
    return 3 * FAILURE + size * (least_honest * statistical_distance(share) + joins)


def most_draws(units: int, sampling_rate: float, failure: float) -> int:
    """The least m with a Chernoff bound of ``failure`` on drawing more than m, of one unit more than ``units``."""
    total = units + 1
    within, beyond = math.floor(total * sampling_rate), total
    while beyond - within > 1:
        middle = (within + beyond) // 2
        if _log_more_than(middle, total, sampling_rate) <= math.log(failure):
            beyond = middle
        else:
            within = middle
    return beyond


def _log_more_than(draws: int, total: int, rate: float) -> float:
    """ln of a bound on P[Bin(total, rate) > draws]: -total·KL(a ‖ rate), a = (draws + 1)/total."""
    share = (draws + 1) / total
    if share <= rate:
        return 0.0
    rest = (1 - share) * math.log((1 - share) / (1 - rate)) if share < 1 else 0.0
    return -total * (share * math.log(share / rate) + rest)


def _rounded(part: npt.NDArray[np.float64], fraction_bits: int, stream: SecureStream) -> npt.NDArray[np.int64]:
    """⌈2^f x - u⌉: one more than ⌊2^f x⌋ where u is below the fraction."""
    scaled = np.ldexp(part, fraction_bits)
    largest = float(np.abs(scaled).max())
    if not math.isfinite(largest):
        raise NonFiniteUpdate("expected finite values, found NaN or infinity: lower the learning rate")
    if largest > 2.0**52:
        raise UpdateTooLarge(
            "expected values within 2^52 units, found a larger one: clip unit gradients before the sum"
        )
    below = np.floor(scaled)
    scaled -= below
    below += stream.uniform(part.size) < scaled
    return below.astype(np.int64)


def _require_numbers(units: Mapping[str, int], least_honest: int, clip_norm: float, size: int, ring_bits: int) -> None:
    integers: list[tuple[str, Any, int, int]] = [
        ("an honest sum's members", least_honest, 1, len(units)),
        ("values in a vector", size, 1, 2**31 - 1),
        ("ring_bits", ring_bits, 16, 32),
        *((f'units of "{name}"', count, 1, 2**53) for name, count in units.items()),
    ]
    for what, found, least, most in integers:
        if type(found) is not int or not least <= found <= most:
            raise ConfigError(f"expected {what} from {least} to {most}, found {found!r}: correct the plan")
    if not 0 < clip_norm < math.inf:
        raise ConfigError(f"expected a clip norm above 0, found {clip_norm!r}: correct privacy.clip_norm")


def _ring_too_small(ring_bits: int, found: str) -> ConfigError:
    return ConfigError(
        f"expected a scale that fits {ring_bits} bits and costs at most {100 * LARGEST_LOSS:g} % in noise, found "
        f"{found}: raise secure_aggregation.ring_bits, or lower the sampling rate"
    )
