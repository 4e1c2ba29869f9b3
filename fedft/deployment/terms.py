"""What a federation asks of its institutions, as the text that travels under the coordinator's signature; and back.

Guarantee: an institution's configuration is made of the terms and of its own policy's data set, model and device; no
path, column of the unit or budget comes from the terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedft.config import FederationConfig, parse_config
from fedft.config.policy import PolicyDataset
from fedft.errors import ConfigError
from fedft.identity.documents import canonical
from fedft.records.lineage import Parent
from fedft.rounds.messages import TERMS_LABEL

_OWN = ("device",)
"""Of [training] what each side decides for its own machine."""
_ONLY = {
    "federation": ("name", "rounds", "seed"),
    "model": ("dtype", "quantization"),
    "data": ("unit", "max_rows_per_unit", "task_column"),
    "aggregation": ("method", "weights"),
    "secure_aggregation": ("enabled", "threshold", "ring_bits", "range"),
}
"""All that terms may say of these sections, and of [model] its digest: the rest of them is each side's own."""


def terms_of(
    config: FederationConfig, *, labels: Sequence[str] | None, base_digest: str, parent: Parent | None = None
) -> str:
    """Canonical JSON: what one needs to train, and nothing about anyone's files. parent: what the run goes on from."""
    body = config.model_dump(mode="json")
    return canonical(
        {
            "label": TERMS_LABEL,
            **{section: {key: body[section][key] for key in keys} for section, keys in _ONLY.items()},
            "model": {"sha256": base_digest, **{key: body["model"][key] for key in _ONLY["model"]}},
            "adapter": body["adapter"],
            "task": {**body["task"], "labels": None if labels is None else list(labels)},
            "training": {key: value for key, value in body["training"].items() if key not in _OWN},
            "privacy": body["privacy"],
            "continual": body["continual"],
            **({} if parent is None else {"parent": {"run": parent.run, "round": parent.round}}),
        }
    ).decode()


def config_of(
    terms: Mapping[str, Any], *, institution: str, dataset: PolicyDataset, model: Path, device: str
) -> FederationConfig:
    """The configuration that an institution trains by. Raises ConfigError for terms that make none, or say more."""
    _require_no_more(terms)
    sections = {key: value for key, value in terms.items() if key not in ("label", "parent")}
    own = {"unit": dataset.unit, "evaluation": str(dataset.path), "on_bad_record": dataset.on_bad_record}
    if dataset.reference is not None:
        own["reference"] = str(dataset.reference)
    aggregation = dict(sections["aggregation"])
    aggregation["weights"] = _own_weight(aggregation.get("weights"), institution)
    section = {"name": institution, "data": str(dataset.path), "dataset": dataset.name, "epsilon": dataset.epsilon}
    if sections["privacy"]["mode"] == "off":
        del section["epsilon"]
    return parse_config(
        {
            **sections,
            "federation": {**sections["federation"], "min_institutions": 1},
            "model": {**sections["model"], "base": str(model)},
            "data": {**sections["data"], **own},
            "training": {**sections["training"], "device": device},
            "aggregation": aggregation,
            "institutions": [section],
        },
        folder=Path("/"),
    )


def parent_of(terms: Mapping[str, Any]) -> tuple[str, int] | None:
    """Run, and round of its state, that the terms' run goes on from; None for one that begins anew.

    Raises ConfigError for anything else.
    """
    match terms.get("parent"):
        case None:
            return None
        case {"run": str(run), "round": int(round), **more} if not more and type(round) is int and round >= 0:
            return run, round
    raise ConfigError("expected of [parent] a run and a round in the terms, found something else: begin the run anew")


def _own_weight(weights: object, institution: str) -> dict[str, Any] | None:
    """This institution's of all that the terms give, for it to apply before its update is masked."""
    if weights is None:
        return None
    if not isinstance(weights, Mapping) or institution not in weights:
        raise ConfigError("expected a weight of this institution among aggregation.weights, found none: add it")
    return {institution: weights[institution]}


def _require_no_more(terms: Mapping[str, Any]) -> None:
    for section, keys in _ONLY.items():
        table, known = terms.get(section), {*keys, "sha256"} if section == "model" else set(keys)
        if not isinstance(table, Mapping) or not set(table) <= known:
            raise ConfigError(
                f"expected of [{section}] nothing but {', '.join(sorted(known))} in the terms, found more or no table: "
                "use the coordinator's fedft of this version"
            )
