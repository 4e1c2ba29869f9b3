"""On what terms an institution trains: its guarantee, its local steps, its part in secure aggregation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedft.rounds.masking import MaskingTerms
from fedft.rounds.member import Member


@dataclass(frozen=True)
class Guarantee:
    """(epsilon, delta) differential privacy for each unit of the data set, adding or removing one unit.

    epsilon is the cap on the data set, over all runs in the ledger; the noise belongs to this run.
    """

    epsilon: float
    delta: float
    clip_norm: float
    noise_multiplier: float


@dataclass(frozen=True)
class TrainingTerms:
    """How local steps are taken; the round's plan says how many. batch_size: expected units per step, public."""

    batch_size: int
    learning_rate: float
    physical_batch_size: int = 64
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    scheduler: str = "constant"
    warmup_steps: int = 0
    scheduler_options: Mapping[str, float | int | str] = field(default_factory=dict)
    max_gradient_norm: float | None = None
    max_rows_per_unit: int | None = None
    precision: str = "auto"


@dataclass(frozen=True)
class Masking:
    """The institution's part in secure aggregation, what was agreed on it, and its public weight in the sum."""

    member: Member
    terms: MaskingTerms
    weight: float = 1.0
