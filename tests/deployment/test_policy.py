"""The policy wins over any plan: each line of it, and whatever terms come."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedft.config import InstitutionPolicy, parse_policy, policy_template
from fedft.deployment.policy import dataset_for, model_for, require_allowed, require_noise
from fedft.errors import PolicyError
from fedft.secagg.context import RoundContext
from tests.rounds.test_plan import PLAN

BASE = "c" * 64
VALUES = {"models.sha256": BASE, "datasets.unit": "patient"}
PLANNED = replace(PLAN, rounds=3, local_steps=4, total_steps=12)
TERMS: dict[str, Any] = {
    "label": "fedft/v1/terms",
    "federation": {"name": "hospitals", "rounds": 3, "seed": 0},
    "model": {"sha256": BASE, "dtype": "float32", "quantization": "none"},
    "adapter": {"method": "lora", "rank": 8},
    "task": {"kind": "classification", "labels": ["a", "b"]},
    "data": {"unit": "patient", "max_rows_per_unit": None, "task_column": None},
    "training": {"local_steps": 4, "batch_size": 8},
    "privacy": {"mode": "dp-sgd", "epsilon": 8.0, "delta": 1e-5, "clip_norm": 1.0},
    "continual": {"method": "none", "fisher": "public", "fisher_clip_norm": 1.0, "fisher_noise_multiplier": 5.0},
    "aggregation": {"method": "fed_svd"},
    "secure_aggregation": {"enabled": False, "threshold": None, "ring_bits": 32, "range": None},
}
OFF = {"mode": "off", "epsilon": None, "delta": None, "clip_norm": None}
PRIVATE_EWC = {"method": "ewc", "fisher": "private-dp", "fisher_clip_norm": 1.0, "fisher_noise_multiplier": 5.0}


def policy_of(**changes: Any) -> InstitutionPolicy:
    """The template's policy; ``changes`` by key with "__" for the dot."""
    body = tomllib.loads(policy_template("north", "hospitals", "ed25519:" + "a1" * 32, VALUES))
    for key, value in changes.items():
        table, name = key.split("__")
        here = body[table][0] if isinstance(body[table], list) else body[table]
        here[name] = value
    return parse_policy(body, folder=Path("/etc/fedft"))


def terms_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Of an allowed plan, but for the dotted keys; ... removes one."""
    terms = copy.deepcopy(TERMS)
    for key, value in changes.items():
        *tables, last = key.split(".")
        here = terms[tables[0]] if tables else terms
        if value is ...:
            del here[last]
        else:
            here[last] = value
    return terms


POLICY = policy_of()


def test_a_plan_within_the_policy_is_allowed() -> None:
    require_allowed(POLICY, TERMS, PLANNED)
    require_noise(POLICY, 0.3)


def test_a_plan_that_masks_is_allowed_where_it_is_required() -> None:
    terms = terms_of({"secure_aggregation.enabled": True})
    for policy in (POLICY, policy_of(allow__secure_aggregation="required")):
        require_allowed(policy, terms, replace(PLANNED, masking="{}"))


SHARED: dict[str, Any] = {
    "privacy": {**TERMS["privacy"], "mode": "distributed", "max_units": 100, "colluding": None},
    "secure_aggregation.enabled": True,
}
"""Noise in shares, among four of which three are needed: one may collude."""


def context_text(members: int = 4) -> str:
    names = sorted(f"m{number}" for number in range(members))
    return RoundContext(
        run="run/1", round=1, adapter_digest="a" * 64, keys_digest="b" * 64, limits=dict.fromkeys(names, 9), size=5,
        ring_bits=16, fraction_bits=0, threshold=2 * members // 3 + 1,
    ).to_bytes().decode()  # fmt: skip


def with_colluding(found: object) -> dict[str, Any]:
    return {**SHARED, "privacy": {**SHARED["privacy"], "colluding": found}}


Case = tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]
REFUSED: dict[str, Case] = {
    # name: changes of the policy, of the terms, of the plan, and the line that says no
    "another federation": ({}, {"federation.name": "banks"}, {}, "institution.federation"),
    "another base model": ({}, {"model.sha256": "d" * 64}, {}, r"\[\[models\]\]"),
    "no base model": ({}, {"model.sha256": ...}, {}, r"\[\[models\]\]"),
    "another task": ({}, {"task.kind": "instruction"}, {}, "allow.tasks"),
    "another adapter": ({"allow__adapters": ["head"]}, {}, {}, "allow.adapters"),
    "another aggregation": ({}, {"aggregation.method": "fedavg"}, {}, "allow.aggregations"),
    "parts that the method does not send": ({}, {}, {"roles": ("lora_A", "lora_B", "head")}, "allow.aggregations"),
    "privacy off": ({}, {"privacy": OFF}, {}, "release.unprotected"),
    "another privacy": ({}, {"privacy.mode": "local"}, {}, "release.unprotected"),
    "no privacy": ({}, {"privacy": ...}, {}, "release.unprotected"),
    "epsilon above the cap": ({}, {"privacy.epsilon": 8.001}, {}, "datasets.notes.epsilon = 8"),
    "epsilon without end": ({}, {"privacy.epsilon": float("inf")}, {}, "datasets.notes.epsilon"),
    "epsilon no number": ({}, {"privacy.epsilon": float("nan")}, {}, "datasets.notes.epsilon"),
    "epsilon as text": ({}, {"privacy.epsilon": "8"}, {}, "datasets.notes.epsilon"),
    "epsilon true": ({}, {"privacy.epsilon": True}, {}, "datasets.notes.epsilon"),
    "no epsilon": ({}, {"privacy.epsilon": None}, {}, "datasets.notes.epsilon"),
    "delta": ({}, {"privacy.delta": 2e-5}, {}, "datasets.notes.delta"),
    "clip norm": ({}, {"privacy.clip_norm": 10.5}, {}, "allow.max_clip_norm"),
    "clip norm below nothing": ({}, {"privacy.clip_norm": -1.0}, {}, "allow.max_clip_norm"),
    "another unit": ({}, {"data.unit": "visit"}, {}, 'datasets.notes.unit: "patient", found "visit"'),
    "no unit": ({}, {"data.unit": None}, {}, 'datasets.notes.unit: "patient", found none'),
    "too many rounds": ({"allow__max_rounds": 2}, {}, {}, "allow.max_rounds"),
    "too many steps": ({"allow__max_local_steps": 3}, {}, {}, "allow.max_local_steps"),
    "rounds that the terms do not say": ({}, {"federation.rounds": 2}, {}, "the same rounds"),
    "steps that the terms do not say": ({}, {"training.local_steps": 2}, {}, "the same local steps"),
    "steps beyond the rounds": ({}, {}, {"total_steps": 13}, "rounds x local steps = 12"),
    "a private Fisher": ({}, {"continual": PRIVATE_EWC}, {}, "release.private_fisher"),
    "a private Fisher of little noise": (
        {"release__private_fisher": True},
        {"continual": {**PRIVATE_EWC, "fisher_noise_multiplier": 0.1}},
        {},
        "allow.min_noise_multiplier",
    ),
    "a private Fisher of a wide clip": (
        {"release__private_fisher": True}, {"continual": {**PRIVATE_EWC, "fisher_clip_norm": 11.0}}, {},
        "allow.max_clip_norm",
    ),
    "no secure aggregation": ({"allow__secure_aggregation": "required"}, {}, {}, "allow.secure_aggregation"),
    "secure aggregation that is only claimed": (
        {"allow__secure_aggregation": "required"}, {"secure_aggregation.enabled": True}, {},
        "agree on secure aggregation, found true and False",
    ),
    "secure aggregation that the terms do not say": (
        {"allow__secure_aggregation": "required"}, {}, {"masking": "{}"}, "agree on secure aggregation",
    ),
    "secure aggregation as text": ({}, {"secure_aggregation.enabled": "false"}, {}, "agree on secure aggregation"),
    "noise in shares": ({}, SHARED, {"masking": context_text()}, "allow.distributed_against does not let it pass"),
    "noise in shares without masks": (
        {"allow__distributed_against": 1}, {**SHARED, "secure_aggregation.enabled": False}, {},
        "expected masked updates with privacy.mode .distributed",
    ),
    "noise in shares against fewer": (
        {"allow__distributed_against": 1}, with_colluding(0), {"masking": context_text()},
        "holds with 1 to 1 institutions .* allow.distributed_against = 1 .* found 0",
    ),
    "noise in shares against more than masks bear": (
        {"allow__distributed_against": 0}, with_colluding(2), {"masking": context_text()},
        "holds with 0 to 1 .* found 2",
    ),
    "noise in shares against more than so few bear": (
        {"allow__distributed_against": 2}, SHARED, {"masking": context_text()}, "holds with 2 to 1 .* found 1",
    ),
    "noise in shares against a word": (
        {"allow__distributed_against": 0}, with_colluding("0"), {"masking": context_text()}, "found .0.",
    ),
    "noise in shares above the cap": (
        {"allow__distributed_against": 1}, {**SHARED, "privacy": {**SHARED["privacy"], "epsilon": 9.0}},
        {"masking": context_text()}, "datasets.notes.epsilon = 8",
    ),
    "metrics": ({}, {"metrics": ["loss", "accuracy"]}, {}, r"found .metrics.: \[release\]"),
    "an evaluation here": ({}, {"evaluation": {"every": 1}}, {}, r"found .evaluation.: \[release\]"),
    "a release": ({}, {"release": {"unprotected": ["update"]}}, {}, r"found .release.: \[release\]"),
    "a section that is no table": ({}, {"privacy": ["off"]}, {}, "release.unprotected"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_policy_does_not_allow_is_refused_with_its_line(name: str) -> None:
    policy, terms, plan, line = REFUSED[name]
    with pytest.raises(PolicyError, match=line):
        require_allowed(policy_of(**policy), terms_of(terms), replace(PLANNED, **plan))


ALLOWED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "at every limit": (
        {"allow__max_rounds": 3, "allow__max_local_steps": 4}, {"privacy.clip_norm": 10.0, "privacy.epsilon": 8}, {},
    ),
    "less than the cap": ({}, {"privacy.epsilon": 1.0, "privacy.delta": 1e-9}, {}),
    "privacy off where it may be": ({"release__unprotected": ["update"]}, {"privacy": OFF, "data.unit": None}, {}),
    "a private Fisher where it may be": ({"release__private_fisher": True}, {"continual": PRIVATE_EWC}, {}),
    "noise in shares that may be": ({"allow__distributed_against": 1}, SHARED, {"masking": context_text()}),
    "noise in shares against all that masks bear": (
        {"allow__distributed_against": 0}, with_colluding(1), {"masking": context_text()},
    ),
    "EWC with public rows": ({}, {"continual": {"method": "ewc", "fisher": "public"}}, {}),
    "another method that may be": (
        {"allow__aggregations": ["fedavg"]}, {"aggregation.method": "fedavg"}, {"roles": ("lora_A", "lora_B", "head")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_policy_allows_is_not_refused(name: str) -> None:
    policy, terms, plan = ALLOWED[name]
    require_allowed(policy_of(**policy), terms_of(terms), replace(PLANNED, **plan))


@pytest.mark.parametrize("noise", [0.0, 0.29, float("nan"), -1.0])
def test_noise_below_the_least_is_refused(noise: float) -> None:
    with pytest.raises(PolicyError, match="allow.min_noise_multiplier = 0.3"):
        require_noise(POLICY, noise)


def test_without_privacy_there_is_no_noise_to_judge() -> None:
    require_noise(POLICY, None)


def test_the_data_set_is_that_of_the_federation() -> None:
    assert dataset_for(POLICY).name == "notes"
    with pytest.raises(PolicyError, match="datasets.federation"):
        dataset_for(POLICY.model_copy(update={"datasets": ()}))


def test_the_model_is_the_one_of_the_digest() -> None:
    assert model_for(POLICY, TERMS).path == Path("/etc/fedft/models/base")
    for odd in ({}, {"model": None}, {"model": {"sha256": 7}}, {"model": {"sha256": [BASE]}}):
        with pytest.raises(PolicyError):
            model_for(POLICY, odd)
