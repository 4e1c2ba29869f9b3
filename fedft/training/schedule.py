"""Learning rates by transformers' scheduler names, at global steps: a round's rates do not depend on earlier rounds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import get_scheduler

from fedft.errors import ConfigError


def learning_rates(
    scheduler: str,
    base: float,
    *,
    start: int,
    steps: int,
    total: int,
    warmup: int = 0,
    options: Mapping[str, float | int | str] | None = None,
) -> tuple[float, ...]:
    """Rates of the logical steps start .. start+steps-1 of ``total``. Raises ConfigError for unknown options."""
    anchor = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base)
    try:
        schedule = get_scheduler(
            scheduler,
            anchor,
            num_warmup_steps=warmup,
            num_training_steps=total,
            scheduler_specific_kwargs=dict(options or {}),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f'expected options that training.scheduler = "{scheduler}" takes, found {sorted(options or {})}: '
            "see transformers' get_scheduler"
        ) from error
    factor = schedule.lr_lambdas[0]
    return tuple(base * float(factor(step)) for step in range(start, start + steps))
