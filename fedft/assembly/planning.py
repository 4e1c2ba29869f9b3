"""What a run will cost one institution before anything is trained: noise, steps, sampling rate, epsilon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from fedft.assembly.masking import masking_terms
from fedft.assembly.rows import InstitutionData
from fedft.config import FederationConfig
from fedft.data.quality import require_batch
from fedft.errors import ConfigError, DataError, UnreachableEpsilon
from fedft.privacy.accountant import calibrate, epsilon_of, require_delta
from fedft.privacy.distributed import largest_gap, local_epsilon
from fedft.privacy.events import DistributedStep, DpSgdRound, GaussianRelease, PrivacyEvent
from fedft.rounds.masking import least_honest
from fedft.rounds.plan import DEFAULT_TASK, task_of_round
from fedft.rounds.terms import Guarantee
from fedft.update.release import reason_for


@dataclass(frozen=True)
class InstitutionPlan:
    """One institution's part. Without privacy everything but rows, units, batch_size, sampling_rate and steps is None.

    For a coordinator of other organisations (``promised_plan``) None is also what only the institution knows.
    local_epsilon: with noise in shares, what planned_epsilon would be if secure aggregation failed. cap: what the owner
    allows for the data set. planned_epsilon: of the whole run, at ``delta``; it may exceed the cap,
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
    local_epsilon: float | None = None


def institution_plan(config: FederationConfig, data: InstitutionData, *, members: int | None = None) -> InstitutionPlan:
    """Noise for privacy.epsilon over all planned rounds; with several tasks at the largest of their sampling rates.

    members: of the cohort, where it is known. Raises ConfigError for more units than privacy.max_units.
    """
    batch = data.section.batch_size or config.training.batch_size
    units = {task: encoded.unit_count for task, encoded in data.encoded.items()}
    steps = config.federation.rounds * config.training.local_steps
    rate = batch / (config.privacy.max_units or min(units.values()))
    plain = InstitutionPlan(len(data.rows.examples), data.units, batch, rate, steps)
    planned, charges = _with_noise(config, plain, units, members)
    if planned.epsilon is None or planned.delta is None:
        return planned
    cap = data.section.epsilon or planned.epsilon
    return replace(planned, cap=cap, affordable_rounds=_affordable(charges, cap, planned.delta))


@dataclass(frozen=True)
class AssumedPlan:
    """What a data set of ``units`` privacy units would mean, whosever it were.

    plan: None where every round would be refused: in the word ``refusal``, for the reason ``because``. epsilon_after:
    pairs of rounds done and epsilon spent by then, of this run alone.
    """

    units: int
    plan: InstitutionPlan | None = None
    epsilon_after: tuple[tuple[int, float], ...] = ()
    refusal: str | None = None
    because: str | None = None


def assumed_plan(config: FederationConfig, units: int) -> AssumedPlan:
    """The plan of an institution with so many units, in each task where there are several; nobody's rows are read.

    Guarantee: noise and sampling rate are those of ``institution_plan`` for rows of as many units.
    """
    tasks = dict.fromkeys(config.continual.tasks or (DEFAULT_TASK,), units)
    promised = replace(promised_plan(config), units=units)
    try:
        if config.privacy.max_units is None:
            require_batch(units, promised.batch_size, name="rows")
        plain = replace(promised, sampling_rate=promised.batch_size / (config.privacy.max_units or units))
        planned, charges = _with_noise(config, plain, tasks, len(config.institutions) or None)
    except DataError as error:
        return AssumedPlan(units, refusal=reason_for(error), because=f"a step takes {promised.batch_size:,} on average")
    except UnreachableEpsilon as error:
        return AssumedPlan(units, refusal=reason_for(error), because=str(error))
    except ConfigError as error:
        return AssumedPlan(units, refusal=reason_for(error), because=_too_many(config, units))
    if planned.delta is None:
        return AssumedPlan(units, planned)
    spent = [(done, epsilon_of(_flat(charges[:done]), planned.delta)) for done in quarters(config)]
    return AssumedPlan(units, planned, tuple(spent))


def _too_many(config: FederationConfig, units: int) -> str:
    most = config.privacy.max_units
    return (
        f"privacy.max_units is {most:,}" if most is not None and units > most else f"delta has to be below 1/{units:,}"
    )


def quarters(config: FederationConfig) -> tuple[int, ...]:
    """How many rounds are done after each quarter of them, rounded up; fewer than four numbers for fewer rounds."""
    return tuple(sorted({math.ceil(config.federation.rounds * part / 4) for part in range(1, 5)}))


def likely_units(config: FederationConfig, count: int = 5) -> tuple[int, ...]:
    """Sizes to look at where none are given: ``count`` of 1, 2, 5, 10, 20, 50, ... from twice the batch size on."""
    least, found = 2 * config.training.batch_size, []
    for power in range(len(str(least)) + count):
        found += [size * 10**power for size in (1, 2, 5) if size * 10**power >= least]
    return tuple(found[:count])


def promised_plan(config: FederationConfig) -> InstitutionPlan:
    """What a coordinator knows of an institution elsewhere: what the federation file asks it to keep."""
    training, privacy = config.training, config.privacy
    return InstitutionPlan(
        rows=None,
        units=None,
        batch_size=training.batch_size,
        sampling_rate=None if privacy.max_units is None else training.batch_size / privacy.max_units,
        steps=config.federation.rounds * training.local_steps,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        clip_norm=privacy.clip_norm,
    )


def guarantee_of(plan: InstitutionPlan) -> Guarantee | None:
    if plan.cap is None or plan.delta is None or plan.clip_norm is None or plan.noise_multiplier is None:
        return None
    return Guarantee(plan.cap, plan.delta, plan.clip_norm, plan.noise_multiplier)


def _with_noise(
    config: FederationConfig, plain: InstitutionPlan, units: Mapping[str, int], members: int | None
) -> tuple[InstitutionPlan, list[tuple[PrivacyEvent, ...]]]:
    """The plan with its noise, and what each round will be charged; without privacy ``plain``, and no charges.

    units: privacy units of each task that there are rows of.
    """
    privacy = config.privacy
    if privacy.mode == "off" or privacy.epsilon is None or privacy.delta is None:
        return plain, []
    for count in units.values():
        require_delta(privacy.delta, count)
    if privacy.mode == "distributed":
        return _with_shared_noise(config, plain, units, members)
    fisher = [event for index in range(len(config.continual.tasks)) for event in _fisher_events(config, units, index)]
    noise = calibrate(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        sampling_rate=plain.batch_size / min(units.values()),
        steps=plain.steps,
        other=tuple(fisher),
    )
    charges = _charges(config, units, plain.batch_size, noise)
    planned = replace(
        plain,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        clip_norm=privacy.clip_norm,
        noise_multiplier=noise,
        planned_epsilon=epsilon_of(_flat(charges), privacy.delta),
    )
    return planned, charges


def _with_shared_noise(
    config: FederationConfig, plain: InstitutionPlan, units: Mapping[str, int], members: int | None
) -> tuple[InstitutionPlan, list[tuple[PrivacyEvent, ...]]]:
    """As _with_noise, of rounds whose gap is the largest that the noise was calibrated for."""
    privacy, terms = config.privacy, masking_terms(config)
    noise = terms.noise
    if noise is None or privacy.epsilon is None or privacy.delta is None:
        return plain, []
    if max(units.values()) > noise.max_units:
        raise ConfigError(
            f"expected privacy.max_units of at least the {max(units.values()):,} units of a data set, found "
            f"{noise.max_units:,}: raise it"
        )
    honest = 1 if members is None else least_honest(terms.shape(members), noise.colluding)
    gap = largest_gap(epsilon=privacy.epsilon, delta=privacy.delta, steps=plain.steps)
    step = DistributedStep(noise.noise_multiplier, noise.sampling_rate, 1, honest, gap)
    charges: list[tuple[PrivacyEvent, ...]] = [
        (step,)
        for number in range(1, config.federation.rounds + 1)
        if task_of_round(number, config.continual.tasks, config.continual.rounds_per_task)[0] in units
    ]
    planned = replace(
        plain,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        clip_norm=noise.clip_norm,
        noise_multiplier=noise.noise_multiplier,
        planned_epsilon=epsilon_of(_flat(charges), privacy.delta),
        local_epsilon=None if members is None else local_epsilon(_flat(charges), privacy.delta),
    )
    return planned, charges


def _fisher_events(config: FederationConfig, units: Mapping[str, int], index: int) -> list[PrivacyEvent]:
    """What looking back from task ``index`` costs, once: nothing where there are no rows to train or to look at."""
    continual = config.continual
    if continual.method == "none" or continual.fisher == "public" or index == 0:
        return []
    both = continual.tasks[index - 1] in units and continual.tasks[index] in units
    return [GaussianRelease(continual.fisher_noise_multiplier)] if both else []


def _charges(
    config: FederationConfig, units: Mapping[str, int], batch: int, noise: float
) -> list[tuple[PrivacyEvent, ...]]:
    """Of each round that the institution has rows for, as rounds.institution charges them."""
    charges: list[tuple[PrivacyEvent, ...]] = []
    before = -1
    for number in range(1, config.federation.rounds + 1):
        task, index = task_of_round(number, config.continual.tasks, config.continual.rounds_per_task)
        if task in units:
            fisher = _fisher_events(config, units, index) if index != before else []
            charges.append((*fisher, DpSgdRound(noise, batch / units[task], config.training.local_steps)))
        before = index
    return charges


def _affordable(charges: Sequence[Sequence[PrivacyEvent]], cap: float, delta: float) -> int:
    """The largest number of rounds whose events fit the cap, by bisection: epsilon grows with every event."""
    low, high = 0, len(charges)
    middle = high  # most often all of them, and that epsilon is known already
    while low < high:
        if epsilon_of(_flat(charges[:middle]), delta) <= cap:
            low = middle
        else:
            high = middle - 1
        middle = (low + high + 1) // 2
    return low


def _flat(charges: Sequence[Sequence[PrivacyEvent]]) -> list[PrivacyEvent]:
    return list(chain.from_iterable(charges))
