"""What a run's configuration asks of an institution, read again and apart from the code that planned the run."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from fedft.audit.accounts import TOLERANCE
from fedft.audit.folder import Run, dataset_of, number, part, pick, sections
from fedft.errors import StorageError, UnreachableEpsilon
from fedft.privacy.accountant import calibrate, epsilon_of, is_more_noise_than_calibrated
from fedft.privacy.distributed import calibrate_distributed
from fedft.privacy.events import DpSgdRound, GaussianRelease, PrivacyEvent

ONE_TASK = "default"


@dataclass(frozen=True)
class Asked:
    """Of one institution in one run. ``dataset``, ``cap`` None: its own matter, as across organisations, or not known.

    max_units: with noise in shares, over which batch_size is everybody's sampling rate. fisher_noise: of a private
    Fisher, None where there is none.
    """

    run: str
    mode: str
    rounds: int
    local_steps: int
    batch_size: int
    unit: str
    epsilon: float | None
    delta: float | None
    clip_norm: float | None
    dataset: str | None
    cap: float | None
    masked: bool
    max_units: int | None
    fisher_noise: float | None
    tasks: tuple[str, ...]
    task_ends: tuple[int, ...]

    @property
    def is_private(self) -> bool:
        return self.mode != "off"

    def task(self, round: int) -> str:
        """What a round trains; the last task goes on past its own rounds."""
        if not self.tasks:
            return ONE_TASK
        return self.tasks[min(bisect_left(self.task_ends, round), len(self.tasks) - 1)]

    def fishers(self, units: Mapping[str, int]) -> list[PrivacyEvent]:
        """Looks back at private rows that the plan holds, for an institution with rows of these tasks."""
        if self.fisher_noise is None:
            return []
        pairs = zip(self.tasks, self.tasks[1:], strict=False)
        return [GaussianRelease(self.fisher_noise) for before, after in pairs if {before, after} <= units.keys()]


def asked_of(run: Run, name: str) -> Asked:
    """Raises StorageError when the configuration lacks what every run's has."""
    config = run.config
    section = sections(config).get(name, {})
    mode = pick(config, "privacy.mode")
    if mode not in ("off", "dp-sgd", "distributed"):
        raise StorageError(
            'expected privacy.mode "dp-sgd", "distributed" or "off" in config.json, found another: it was altered, or '
            "a newer version wrote it"
        )
    epsilon = number(pick(config, "privacy.epsilon"))
    elsewhere = run.is_elsewhere or not run.summary  # without a summary it is not known
    private_fisher = pick(config, "continual.method") != "none" and pick(config, "continual.fisher") == "private-dp"
    tasks, lengths = _task_lengths(config)
    return Asked(
        run=_text(config, "run"),
        mode=mode,
        rounds=_whole(config, "federation.rounds"),
        local_steps=_whole(config, "training.local_steps"),
        batch_size=_whole_or(section.get("batch_size")) or _whole(config, "training.batch_size"),
        unit=str(pick(config, "data.unit") or ""),
        epsilon=epsilon,
        delta=number(pick(config, "privacy.delta")),
        clip_norm=number(pick(config, "privacy.clip_norm")),
        dataset=None if elsewhere else dataset_of(config, name),
        cap=None if elsewhere else number(section.get("epsilon")) or epsilon,
        masked=pick(config, "secure_aggregation.enabled") is True,
        max_units=_whole_or(pick(config, "privacy.max_units")),
        fisher_noise=number(pick(config, "continual.fisher_noise_multiplier")) if private_fisher else None,
        tasks=tasks,
        task_ends=tuple(accumulate(lengths)),
    )


def noise_problem(asked: Asked, noise: float, units: Mapping[str, int], *, complete: bool) -> str | None:
    """Why ``noise`` is not what the plan comes to for a data set of so many units by task; None where it is.

    complete: there are rows of no further task, so that more noise than needed has no reason either.
    """
    if asked.epsilon is None or asked.delta is None:
        return None
    rate, steps, fishers = (
        asked.batch_size / min(units.values()),
        asked.rounds * asked.local_steps,
        asked.fishers(units),
    )
    if not 0 < rate <= 1:
        return None  # its own finding
    plan: dict[str, Any] = {
        "epsilon": asked.epsilon, "delta": asked.delta, "sampling_rate": rate, "steps": steps, "other": fishers,
    }  # fmt: skip
    spent = epsilon_of([DpSgdRound(noise, rate, steps), *fishers], asked.delta)
    # Another processor's floating point may land a hair above what calibrate allowed.
    if spent <= asked.epsilon + TOLERANCE and not (complete and is_more_noise_than_calibrated(noise, **plan)):
        return None
    try:
        expected = f"{calibrate(**plan):g}"
    except UnreachableEpsilon:
        expected = "none that is enough"
    return (
        f"expected noise multiplier {expected} for epsilon {asked.epsilon:g} at delta {asked.delta:g} over {steps} "
        f"steps at sampling rate {rate:.6g}, found {noise:g}, with which they come to {spent:.4g}"
    )


def shared_noise_problem(asked: Asked, noise: float) -> str | None:
    """The same where noise is added in shares: everybody's is the same, whatever the size of the data set."""
    if asked.epsilon is None or asked.delta is None or asked.max_units is None:
        return None
    plan: dict[str, Any] = {
        "epsilon": asked.epsilon,
        "delta": asked.delta,
        "sampling_rate": asked.batch_size / asked.max_units,
        "steps": asked.rounds,
    }
    try:
        expected = calibrate_distributed(**plan)
    except UnreachableEpsilon:
        expected = math.inf
    if noise == expected:
        return None
    return (
        f"expected noise multiplier {expected:g} in the sum for epsilon {asked.epsilon:g} at delta {asked.delta:g} "
        f"over {asked.rounds} steps at sampling rate {plan['sampling_rate']:.6g}, found {noise:g}"
    )


def _task_lengths(config: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    tasks, lengths = (part(config, "continual").get(key) or [] for key in ("tasks", "rounds_per_task"))
    if not (isinstance(tasks, list) and isinstance(lengths, list) and len(tasks) == len(lengths)):
        raise StorageError("expected continual.tasks and rounds_per_task of equal length in config.json, found others")
    if not all(isinstance(task, str) for task in tasks) or not all(map(_whole_or, lengths)):
        raise StorageError("expected names in continual.tasks and whole numbers in rounds_per_task, found others")
    return tuple(tasks), tuple(lengths)


def _text(config: Mapping[str, Any], key: str) -> str:
    value = pick(config, key)
    if not isinstance(value, str) or not value:
        raise StorageError(f'expected "{key}" in config.json, found none: the folder is half written, or was altered')
    return value


def _whole(config: Mapping[str, Any], key: str) -> int:
    value = _whole_or(pick(config, key))
    if value is None:
        raise StorageError(
            f'expected "{key}" as a whole number from 1 in config.json, found none: the folder is half written, or was '
            "altered"
        )
    return value


def _whole_or(value: object) -> int | None:
    return value if type(value) is int and value >= 1 else None
