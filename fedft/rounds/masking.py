"""Secure aggregation over a run, as coordinator and institutions agree on it. docs/SPEC.md, "Secure aggregation"."""

from __future__ import annotations

from dataclasses import dataclass

from fedft.secagg.graph import LEAST_COHORT, Shape, shape_for


@dataclass(frozen=True)
class MaskingTerms:
    """ring_bits: width of what travels of a value. bound: an update's values are cut off beyond it, before encoding.

    threshold: how many uploads a round needs; None: the least that the proof allows for the cohort, ⌊2n/3⌋ + 1.
    """

    ring_bits: int
    bound: float
    threshold: int | None = None

    @property
    def least_cohort(self) -> int:
        """With fewer there is nothing to begin."""
        return max(LEAST_COHORT, self.threshold or 0)

    def shape(self, members: int) -> Shape:
        """Raises ConfigError for a cohort that is too small or too large, and for a threshold out of its range."""
        return shape_for(members, self.threshold)


def run_of(setup: str) -> str:
    """A setup is named RUN/NONCE: the run, and what tells this setup from the run's others."""
    return setup.rpartition("/")[0]
