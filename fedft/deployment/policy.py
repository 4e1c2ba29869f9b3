"""The policy over any plan: what an institution does not allow is refused before a row, model or ledger is opened.

Guarantee: require_allowed returns only if everything that terms and plan ask for lies within the policy, and they ask
for nothing that this version does not know; otherwise it raises PolicyError, which names the policy's line. Values of
another type than they should have lie outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedft.aggregation.base import aggregation_by_name
from fedft.config import InstitutionPolicy
from fedft.config.policy import PolicyDataset, PolicyModel
from fedft.config.problems import shown
from fedft.errors import PolicyError
from fedft.rounds.plan import RoundPlan
from fedft.secagg.context import RoundContext
from fedft.secagg.graph import colluders

SECTIONS = frozenset(
    {
        "label",
        "federation",
        "model",
        "adapter",
        "task",
        "data",
        "training",
        "privacy",
        "continual",
        "aggregation",
        "secure_aggregation",
        "parent",
    }
)
"""What terms may speak of. Metrics, losses and counts are asked for by no known key."""


def require_allowed(policy: InstitutionPolicy, terms: Mapping[str, Any], plan: RoundPlan) -> None:
    """Return if the policy allows what the terms and the round's plan ask for. Raises PolicyError."""
    asked = _Asked(terms)
    asked.only(SECTIONS)
    for rule in (_names, _training, _aggregation, _privacy, _fisher):
        for problem in rule(policy, asked, plan):
            raise PolicyError(f"{problem}: ask the institution, or plan within its policy")


def require_noise(policy: InstitutionPolicy, noise_multiplier: float | None) -> None:
    """Return if the noise that a plan's epsilon comes to is enough. None: no privacy, for require_allowed to judge.

    Raises PolicyError.
    """
    least = policy.allow.min_noise_multiplier
    if noise_multiplier is not None and not noise_multiplier >= least:
        raise PolicyError(
            f"expected a noise multiplier of at least allow.min_noise_multiplier = {least:g}, found "
            f"{noise_multiplier:g} for the plan's epsilon: ask for a lower epsilon"
        )


def dataset_for(policy: InstitutionPolicy) -> PolicyDataset:
    """The data set that the institution's federation may train on. Raises PolicyError when there is none."""
    federation = policy.institution.federation
    for dataset in policy.datasets:
        if dataset.federation == federation:
            return dataset
    raise PolicyError(f'expected a data set with datasets.federation = "{federation}", found none: add one')


def model_for(policy: InstitutionPolicy, terms: Mapping[str, Any]) -> PolicyModel:
    """The allowed base model that the terms name by its digest. Raises PolicyError when it is none."""
    sha256 = _Asked(terms).value("model", "sha256")
    for model in policy.models:
        if model.sha256 == sha256:
            return model
    raise PolicyError(
        f"expected a base model of the policy's [[models]], found the digest {shown(sha256)}: "
        "add it there if it may be used, or plan with another"
    )


class _Asked:
    """Terms read with suspicion: what is not there, or in no table, is None, and None lies outside of any limit."""

    def __init__(self, terms: Mapping[str, Any]) -> None:
        self._terms = terms

    def value(self, section: str, key: str) -> Any:
        table = self._terms.get(section)
        return table.get(key) if isinstance(table, Mapping) else None

    def only(self, known: frozenset[str]) -> None:
        for name in sorted(set(self._terms) - known):
            raise PolicyError(
                f"expected nothing beyond {', '.join(sorted(known - {'label'}))} in the terms, found {shown(name)}: "
                "[release] lets nothing else leave; ask for updates alone"
            )


def _names(policy: InstitutionPolicy, asked: _Asked, plan: RoundPlan) -> Iterator[str]:
    name, federation = asked.value("federation", "name"), policy.institution.federation
    if name != federation:
        yield f'expected a plan of institution.federation = "{federation}", found {shown(name)}'
    model_for(policy, asked._terms)
    yield from _choice("allow.tasks", policy.allow.tasks, asked.value("task", "kind"))
    yield from _choice("allow.adapters", policy.allow.adapters, asked.value("adapter", "method"))
    yield from _choice("allow.aggregations", policy.allow.aggregations, asked.value("aggregation", "method"))


def _training(policy: InstitutionPolicy, asked: _Asked, plan: RoundPlan) -> Iterator[str]:
    rounds, steps = asked.value("federation", "rounds"), asked.value("training", "local_steps")
    yield from _same("rounds", rounds, plan.rounds)
    yield from _same("local steps", steps, plan.local_steps)
    yield from _at_most("allow.max_rounds", policy.allow.max_rounds, plan.rounds)
    yield from _at_most("allow.max_local_steps", policy.allow.max_local_steps, plan.local_steps)
    if plan.total_steps != plan.rounds * plan.local_steps:
        yield f"expected rounds x local steps = {plan.rounds * plan.local_steps} steps, found {plan.total_steps}"


def _aggregation(policy: InstitutionPolicy, asked: _Asked, plan: RoundPlan) -> Iterator[str]:
    roles = aggregation_by_name(asked.value("aggregation", "method")).trains
    if plan.roles != roles:
        yield (
            f"expected {', '.join(roles)} to be trained, as the method that allow.aggregations lets pass does, "
            f"found {', '.join(plan.roles)}"
        )
    enabled = asked.value("secure_aggregation", "enabled")
    if not isinstance(enabled, bool) or enabled != bool(plan.masking):
        yield f"expected terms and plan to agree on secure aggregation, found {shown(enabled)} and {bool(plan.masking)}"
    if policy.allow.secure_aggregation == "required" and not (enabled is True and plan.masking):
        yield 'expected secure aggregation, as allow.secure_aggregation = "required" says, found a plan without'


def _privacy(policy: InstitutionPolicy, asked: _Asked, plan: RoundPlan) -> Iterator[str]:
    mode = asked.value("privacy", "mode")
    if mode == "off":
        if "update" not in policy.release.unprotected:
            yield 'expected a plan with privacy, found privacy off: release.unprotected does not name "update"'
        return
    if mode == "distributed":
        yield from _shared_noise(policy, asked, plan)
    elif mode != "dp-sgd":
        yield f'expected privacy.mode "dp-sgd", found {shown(mode)}: release.unprotected lets no other pass'
    dataset = dataset_for(policy)
    where = f"datasets.{dataset.name}"
    yield from _at_most(f"{where}.epsilon", dataset.epsilon, asked.value("privacy", "epsilon"))
    yield from _at_most(f"{where}.delta", dataset.delta, asked.value("privacy", "delta"))
    yield from _at_most("allow.max_clip_norm", policy.allow.max_clip_norm, asked.value("privacy", "clip_norm"))
    unit = asked.value("data", "unit")
    if unit != dataset.unit:
        own = "no unit" if dataset.unit is None else shown(dataset.unit)
        yield f"expected a plan that protects {where}.unit: {own}, found {'none' if unit is None else shown(unit)}"


def _shared_noise(policy: InstitutionPolicy, asked: _Asked, plan: RoundPlan) -> Iterator[str]:
    """Whether noise in shares may leave, and holds with as many on the coordinator's side as it has to."""
    least, stated = policy.allow.distributed_against, asked.value("privacy", "colluding")
    if least is None:
        yield 'expected privacy.mode "dp-sgd", found "distributed": allow.distributed_against does not let it pass'
        return
    if not plan.masking:
        yield 'expected masked updates with privacy.mode "distributed", found a plan for bare ones'
        return
    most = colluders(RoundContext.from_bytes(plan.masking.encode()).shape)
    found = most if stated is None else stated
    if type(found) is not int or not least <= found <= most:
        yield (
            f"expected noise that holds with {least} to {most} institutions on the coordinator's side, as "
            f"allow.distributed_against = {least} and secure aggregation have it, found {shown(found)}"
        )


def _fisher(policy: InstitutionPolicy, asked: _Asked, plan: RoundPlan) -> Iterator[str]:
    if asked.value("continual", "method") == "none" or asked.value("continual", "fisher") == "public":
        return
    if not policy.release.private_fisher:
        yield "expected EWC with a public Fisher or none, found another: release.private_fisher is false"
    clip, noise = asked.value("continual", "fisher_clip_norm"), asked.value("continual", "fisher_noise_multiplier")
    yield from _at_most("allow.max_clip_norm", policy.allow.max_clip_norm, clip)
    if not _is_number(noise) or not noise >= policy.allow.min_noise_multiplier:
        least = policy.allow.min_noise_multiplier
        yield f"expected at least allow.min_noise_multiplier = {least:g} for a private Fisher, found {shown(noise)}"


def _choice(line: str, allowed: Sequence[str], value: object) -> Iterator[str]:
    if not isinstance(value, str) or value not in allowed:
        yield f"expected one of {line} = {shown(tuple(allowed))}, found {shown(value)}"


def _at_most(line: str, limit: float, value: object) -> Iterator[str]:
    if not _is_number(value) or not 0 < value <= limit:  # type: ignore[operator]
        yield f"expected a number above 0 and at most {line} = {limit:g}, found {shown(value)}"


def _same(what: str, in_terms: object, in_plan: int) -> Iterator[str]:
    if type(in_terms) is not int or in_terms != in_plan:
        yield f"expected terms and plan to ask for the same {what}, found {shown(in_terms)} and {in_plan}"


def _is_number(value: object) -> bool:
    """Not true or false. NaN is a number, and within no limit."""
    return isinstance(value, int | float) and not isinstance(value, bool)
