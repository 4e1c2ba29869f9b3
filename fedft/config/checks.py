"""What must fit together across the sections of a federation file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from fedft.config.sections import FederationConfig
from fedft.errors import ConfigError


def require_consistent(config: FederationConfig) -> None:
    """Raise ConfigError for the first of the rules below that the file breaks."""
    for rule in (
        _names,
        _sources,
        _privacy,
        _task,
        _continual,
        _aggregation,
        _secure_aggregation,
        _distributed,
        _announced,
    ):
        for problem in rule(config):
            raise ConfigError(problem)


def _names(config: FederationConfig) -> Iterator[str]:
    names = [institution.name for institution in config.institutions]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f'expected institutions with different names, found "{name}" {names.count(name)} times: rename one'
    datasets = [institution.dataset or institution.name for institution in config.institutions]
    for name in sorted({name for name in datasets if datasets.count(name) > 1}):
        yield (
            f'expected a data set of its own for each institution, found "{name}" {datasets.count(name)} times: '
            "each has its own ledger, and the budget would count twice; correct institutions.*.dataset"
        )
    partition = config.data.partition
    players = partition.institutions if partition is not None else None
    if partition is None or partition.method != "natural":  # natural: the data name more than the file lists
        players = len(names) or players
    if players is not None and config.federation.min_institutions > players:
        yield (
            f"expected federation.min_institutions to be at most the {players} institutions, "
            f"found {config.federation.min_institutions}: lower it"
        )


def _sources(config: FederationConfig) -> Iterator[str]:
    data, own = config.data, [institution.name for institution in config.institutions if institution.data is not None]
    if (data.train is None) != (data.partition is None):
        missing, present = ("partition", "train") if data.partition is None else ("train", "partition")
        yield f"expected data.train and data.partition together, found data.{present} alone: add data.{missing}"
    if data.train is not None and own:
        yield (
            f"expected either data.train or the institutions' own data, found data.train and "
            f"institutions.{own[0]}.data: remove one"
        )
    dealt = data.partition.institutions if data.partition is not None else None
    if dealt is not None and config.institutions and dealt != len(config.institutions):
        listed = len(config.institutions)
        yield f"expected data.partition.institutions to be the {listed} listed, found {dealt}: correct it"
    if data.max_rows_per_unit is not None and data.unit is None:
        yield "expected data.unit with data.max_rows_per_unit, found none: name the column of the privacy unit"


def _privacy(config: FederationConfig) -> Iterator[str]:
    private = config.privacy.is_private
    capped = [institution.name for institution in config.institutions if institution.epsilon is not None]
    if not private and capped:
        yield (
            f'expected no cap with privacy.mode = "off", found institutions.{capped[0]}.epsilon: '
            "a release without a guarantee exceeds any cap; remove the cap or switch privacy on"
        )
    if private and config.training.max_gradient_norm is not None:
        yield (
            f'expected no training.max_gradient_norm with privacy.mode = "{config.privacy.mode}", found one: '
            "privacy.clip_norm clips each unit already; remove it"
        )
    if not private and config.continual.method == "ewc" and config.continual.fisher == "private-dp":
        yield (
            'expected continual.fisher = "public" with privacy.mode = "off", found "private-dp": '
            "its release needs a budget; set it to public, or switch privacy on"
        )


def _task(config: FederationConfig) -> Iterator[str]:
    if config.task.kind != "instruction":
        return
    if config.adapter.method == "head":
        yield 'expected adapter.method = "lora" with task.kind = "instruction", found "head": there is no head to train'
    if config.evaluation.metric in ("accuracy", "macro_f1"):
        yield (
            f'expected evaluation.metric "auto" or "loss" with task.kind = "instruction", '
            f'found "{config.evaluation.metric}": answers have no classes; correct it'
        )
    if config.task.labels is not None:
        yield 'expected no task.labels with task.kind = "instruction", found some: remove them'
    if config.task.head_start != "zeros":
        yield 'expected no task.head_start with task.kind = "instruction", found one: there is no head; remove it'


def _continual(config: FederationConfig) -> Iterator[str]:
    continual, data = config.continual, config.data
    if continual.method == "ewc" and continual.fisher == "public" and data.reference is None:
        yield (
            'expected data.reference with continual.fisher = "public", found none: '
            'name public rows, or set continual.fisher = "private-dp"'
        )
    if continual.warm_start_steps and data.reference is None:
        yield "expected data.reference with continual.warm_start_steps, found none: name public rows"
    if continual.tasks and data.task_column is None:
        yield "expected data.task_column with continual.tasks, found none: name the column that holds the task"
    if len(set(continual.tasks)) != len(continual.tasks):
        yield "expected continual.tasks to be different, found one twice: rename it"
    if continual.tasks and sum(continual.rounds_per_task) > config.federation.rounds:
        yield (
            f"expected continual.rounds_per_task to sum to at most federation.rounds = {config.federation.rounds}, "
            f"found {sum(continual.rounds_per_task)}: raise the rounds, or give tasks fewer"
        )


def _aggregation(config: FederationConfig) -> Iterator[str]:
    aggregation = config.aggregation
    turned = aggregation.method == "fed_svd" and config.adapter.method == "lora"
    if turned and aggregation.server_optimizer == "adam":
        yield (
            'expected aggregation.server_optimizer "plain" or "momentum" with method "fed_svd", found "adam": '
            "a second moment per coordinate cannot be turned; choose one of them, or another method"
        )
    if aggregation.weights is None or not config.institutions:
        return
    names = [institution.name for institution in config.institutions]
    for name in aggregation.weights:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
            yield f'found unknown institution in "aggregation.weights.{name}": the nearest known one is "{near}"'
    for name in names:
        if name not in aggregation.weights:
            yield f"expected a weight for every institution, found none for {name}: add aggregation.weights.{name}"


def _secure_aggregation(config: FederationConfig) -> Iterator[str]:
    secure, training = config.secure_aggregation, config.training
    if not secure.enabled:
        return
    bounded = config.privacy.clip_norm is not None or training.max_gradient_norm is not None
    if secure.range is None and training.optimizer == "sgd" and not bounded:
        yield (
            'expected secure_aggregation.range with training.optimizer = "sgd" and gradients that nothing clips, found '
            "none: say how large a value of an update may be, or set training.max_gradient_norm"
        )


def _distributed(config: FederationConfig) -> Iterator[str]:
    """What one step over all institutions, with its noise in shares, needs and leaves out."""
    privacy, training = config.privacy, config.training
    if privacy.mode != "distributed":
        return
    mode = 'privacy.mode = "distributed"'
    if not config.secure_aggregation.enabled:
        yield f"expected secure_aggregation.enabled with {mode}, found it off: a share of noise alone is too little"
    if privacy.max_units is not None and training.batch_size > privacy.max_units:
        yield (
            f"expected training.batch_size of at most privacy.max_units = {privacy.max_units}, found "
            f"{training.batch_size}: one over the other is the sampling rate; correct either"
        )
    own = [institution.name for institution in config.institutions if institution.batch_size is not None]
    steps = training.local_steps
    for found, words in (
        (steps != 1, f"training.local_steps = 1 with {mode}, found {steps}: each round is one step; raise the rounds"),
        (
            training.optimizer != "sgd",
            f'training.optimizer = "sgd" with {mode}, found another: the step is aggregation.server_optimizer\'s',
        ),
        (training.weight_decay > 0, f"training.weight_decay = 0 with {mode}, found {training.weight_decay:g}"),
        (config.continual.method != "none", f'continual.method = "none" with {mode}, found "ewc": set it to none'),
        (config.aggregation.weights is not None, f"no aggregation.weights with {mode}, found some: remove them"),
        (config.secure_aggregation.range is not None, f"no secure_aggregation.range with {mode}, found one: remove it"),
        (bool(own), f"one batch_size for all with {mode}, found institutions.{(own or [''])[0]}.batch_size: remove it"),
    ):
        if found:
            yield f"expected {words}"


def _announced(config: FederationConfig) -> Iterator[str]:
    if not config.variants:
        return
    for check in config.outcome.checks:
        for figure in (check.figure, check.of):
            if figure is not None and figure.partition(".")[0] not in config.variants:
                yield (
                    f'expected outcome.checks to name a figure as VARIANT.path, found "{figure}": '
                    f"begin with one of {', '.join(config.variants)}"
                )
