"""What a run came to, and whether it is what its story announced."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedft.assembly.coordinator import PublicParts, by_subgroup
from fedft.assembly.planning import InstitutionPlan
from fedft.config import Check
from fedft.errors import ConfigError
from fedft.evaluation.quality import forgetting
from fedft.rounds.coordinator import Coordinator

SMALLEST_DIFFERENCE = 1e-12


def summarize(
    parts: PublicParts,
    institutions: Mapping[str, InstitutionPlan],
    coordinator: Coordinator,
    *,
    engine: str,
    seconds: float,
    alone: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """Figures of a finished run, ready for JSON; all of them public or the simulated institutions' own.

    The model of ``parts`` holds the best adapter.

    alone: with noise in shares, each institution's epsilon if secure aggregation failed.
    """
    state, terms = coordinator.state, coordinator.terms
    records = state.records
    evaluated = [record for record in records if record["evaluation"] is not None]
    best = next((r for r in evaluated if r["round"] == state.best_round), None)
    final = evaluated[-1] if evaluated else None
    start = state.start
    training = [record["seconds_training"] for record in records]
    in_rounds = sum(record["seconds"] for record in records)
    return {
        "run": terms.run,
        "name": parts.config.federation.name,
        "engine": engine,
        "rounds_done": state.round,
        "stopped_early": state.finished,
        "metric": terms.metric,
        "best_round": state.best_round,
        "start": start["current"],
        "final": final["evaluation"] if final else start["current"],
        "best": best["evaluation"] if best else start["current"],
        "tasks": final["tasks"] if final else None,
        "reference": {"start": start["reference"], "final": final["reference"] if final else start["reference"]},
        "subgroups": by_subgroup(parts),
        "forgetting": _forgetting(state.start, evaluated, terms.metric),
        "institutions": {
            name: {**_institution(name, plan, records), "local_epsilon": (alone or {}).get(name)}
            for name, plan in institutions.items()
        },
        "privacy_mode": parts.config.privacy.mode,
        "bytes_up": sum(record["bytes_up"] for record in records),
        "bytes_down": sum(record["bytes_down"] for record in records),
        "seconds": seconds,
        "seconds_in_rounds": in_rounds,
        "seconds_outside_training_fraction": (
            None if None in training or not in_rounds else 1 - sum(training) / in_rounds
        ),
        "parameters_trained": coordinator.layout.only(parts.aggregation.trains).size,
        "parameters_base": parts.model.base_parameters,
    }


def check_outcome(checks: Sequence[Check], summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each announced figure with what was found. Raises ConfigError when summary.json has no such figure."""
    return [_checked(check, summary) for check in checks]


def _checked(check: Check, summary: Mapping[str, Any]) -> dict[str, Any]:
    found = figure(summary, check.figure)
    scale = 1.0 if check.of is None else _number(figure(summary, check.of), check.of)
    bounds = {"at_least": check.at_least, "at_most": check.at_most, "equals": check.equals}
    words = [f"{key.replace('_', ' ')} {value}" for key, value in bounds.items() if value is not None]
    holds = (
        (check.at_least is None or _number(found, check.figure) >= check.at_least * scale)
        and (check.at_most is None or _number(found, check.figure) <= check.at_most * scale)
        and (check.equals is None or _equal(found, check.equals, check.figure, scale))
    )
    bound = " and ".join(words) + (f" x {check.of}" if check.of else "")
    return {"figure": check.figure, "bound": bound, "found": found, "holds": bool(holds)}


def _equal(found: Any, expected: float | str | bool, path: str, scale: float) -> bool:
    if isinstance(expected, bool | str):
        return bool(found == expected)
    return math.isclose(_number(found, path), expected * scale, rel_tol=0, abs_tol=SMALLEST_DIFFERENCE)


def _number(found: Any, path: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ConfigError(f'outcome.checks: expected a number at "{path}", found something else: go deeper, or equals')
    return float(found)


def figure(summary: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of the summary; with variants the path begins with a variant's name."""
    value: Any = {**summary, **summary.get("variants", {})}
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value or value[key] is None:
            known = ", ".join(value) if isinstance(value, Mapping) else "no figures"
            raise ConfigError(
                f'outcome.checks: expected a figure of summary.json, found "{path}" ({key}): known: {known}'
            )
        value = value[key]
    return value


def _forgetting(start: Mapping[str, Any], evaluated: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """By earlier task, best before minus now, and of the reference since the start; positive is worse."""
    lost = forgetting([record["tasks"] for record in evaluated if record["tasks"]], metric)
    last = evaluated[-1]["tasks"] if evaluated else None
    current = list(last)[-1] if last else None
    found = {task: value for task, value in lost.items() if task != current}
    if found:
        found["average"] = sum(found.values()) / len(found)
    if evaluated and start["reference"] is not None:
        history = [{"reference": start["reference"]}, {"reference": evaluated[-1]["reference"]}]
        found |= forgetting(history, metric)
    return found


def _institution(name: str, plan: InstitutionPlan, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    refusals: dict[str, int] = {}
    for record in records:
        if name in record["refused"]:
            reason = record["refused"][name]
            refusals[reason] = refusals.get(reason, 0) + 1
    infinite = bool(records) and name in records[-1].get("epsilon_infinite", ())
    return {
        "rows": plan.rows,
        "units": plan.units,
        "epsilon": math.inf if infinite else records[-1]["epsilon"][name] if records else None,
        "epsilon_infinite": infinite,
        "epsilon_asked": plan.epsilon,
        "delta": plan.delta,
        "cap": plan.cap,
        "clip_norm": plan.clip_norm,
        "noise_multiplier": plan.noise_multiplier,
        "sampling_rate": plan.sampling_rate,
        "steps": plan.steps,
        "rounds_answered": sum(name in record["updates"] for record in records),
        "rounds_missing": sum(name in record["missing"] for record in records),
        "refusals": refusals,
    }
