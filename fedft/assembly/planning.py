"""What a run will cost one institution before anything is trained: noise, steps, sampling rate, epsilon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from fedft.assembly.rows import InstitutionData
from fedft.config import FederationConfig
from fedft.privacy.accountant import calibrate, epsilon_of, require_delta
from fedft.privacy.events import DpSgdRound, GaussianRelease, PrivacyEvent
from fedft.rounds.institution import Guarantee
from fedft.rounds.plan import task_of_round


@dataclass(frozen=True)
class InstitutionPlan:
    """One institution's part. Without privacy everything but rows, units, batch_size, sampling_rate and steps is None.

    For a coordinator of other organisations (``promised_plan``) None is also what only the institution knows.
    cap: what the owner allows for the data set. planned_epsilon: of the whole run, at ``delta``; it may exceed the cap,
    and then affordable_rounds says after how many the institution will refuse, if nothing was spent before.
    """

    rows: int | None
    units: int | None
    batch_size: int
    sampling_rate: float | None
    steps: int
    epsilon: float | None = None
    delta: float | None = None
    cap: float | None = None
    clip_norm: float | None = None
    noise_multiplier: float | None = None
    planned_epsilon: float | None = None
    affordable_rounds: int | None = None


def institution_plan(config: FederationConfig, data: InstitutionData) -> InstitutionPlan:
    """Noise for privacy.epsilon over all planned rounds; with several tasks at the largest of their sampling rates."""
    batch = data.section.batch_size or config.training.batch_size
    rate = batch / min(encoded.unit_count for encoded in data.encoded.values())
    steps = config.federation.rounds * config.training.local_steps
    plain = InstitutionPlan(len(data.rows.examples), data.units, batch, rate, steps)
    privacy = config.privacy
    if privacy.mode == "off" or privacy.epsilon is None or privacy.delta is None:
        return plain
    for encoded in data.encoded.values():
        require_delta(privacy.delta, encoded.unit_count)
    tasks = range(len(config.continual.tasks))
    fisher = [event for index in tasks for event in _fisher_events(config, data, index)]
    noise = calibrate(
        epsilon=privacy.epsilon, delta=privacy.delta, sampling_rate=rate, steps=steps, other=tuple(fisher)
    )
    charges = _charges(config, data, batch, noise)
    cap = data.section.epsilon or privacy.epsilon
    return InstitutionPlan(
        plain.rows,
        plain.units,
        batch,
        rate,
        steps,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        cap=cap,
        clip_norm=privacy.clip_norm,
        noise_multiplier=noise,
        planned_epsilon=epsilon_of(list(chain.from_iterable(charges)), privacy.delta),
        affordable_rounds=_affordable(charges, cap, privacy.delta),
    )


def promised_plan(config: FederationConfig) -> InstitutionPlan:
    """What a coordinator knows of an institution elsewhere: what the federation file asks it to keep."""
    training, privacy = config.training, config.privacy
    return InstitutionPlan(
        rows=None,
        units=None,
        batch_size=training.batch_size,
        sampling_rate=None,
        steps=config.federation.rounds * training.local_steps,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        clip_norm=privacy.clip_norm,
    )


def guarantee_of(plan: InstitutionPlan) -> Guarantee | None:
    if plan.cap is None or plan.delta is None or plan.clip_norm is None or plan.noise_multiplier is None:
        return None
    return Guarantee(plan.cap, plan.delta, plan.clip_norm, plan.noise_multiplier)


def _fisher_events(config: FederationConfig, data: InstitutionData, index: int) -> list[PrivacyEvent]:
    """What looking back from task ``index`` costs, once: nothing where there are no rows to train or to look at."""
    continual = config.continual
    if continual.method == "none" or continual.fisher == "public" or index == 0:
        return []
    both = continual.tasks[index - 1] in data.encoded and continual.tasks[index] in data.encoded
    return [GaussianRelease(continual.fisher_noise_multiplier)] if both else []


def _charges(
    config: FederationConfig, data: InstitutionData, batch: int, noise: float
) -> list[tuple[PrivacyEvent, ...]]:
    """Of each round that the institution has rows for, as rounds.institution charges them."""
    charges: list[tuple[PrivacyEvent, ...]] = []
    before = -1
    for number in range(1, config.federation.rounds + 1):
        task, index = task_of_round(number, config.continual.tasks, config.continual.rounds_per_task)
        if task in data.encoded:
            fisher = _fisher_events(config, data, index) if index != before else []
            rate = batch / data.encoded[task].unit_count
            charges.append((*fisher, DpSgdRound(noise, rate, config.training.local_steps)))
        before = index
    return charges


def _affordable(charges: Sequence[Sequence[PrivacyEvent]], cap: float, delta: float) -> int:
    """The largest number of rounds whose events fit the cap, by bisection: epsilon grows with every event."""
    low, high = 0, len(charges)
    middle = high  # most often all of them, and that epsilon is known already
    while low < high:
        if epsilon_of(list(chain.from_iterable(charges[:middle])), delta) <= cap:
            low = middle
        else:
            high = middle - 1
        middle = (low + high + 1) // 2
    return low
