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
from fedft.identity.documents import canonical
from fedft.rounds.messages import TERMS_LABEL

_OWN = ("device",)
"""Of [training] what each side decides for its own machine."""


def terms_of(config: FederationConfig, *, labels: Sequence[str] | None, base_digest: str) -> str:
    """Canonical JSON: what one needs to train, and nothing about anyone's files."""
    body = config.model_dump(mode="json")
    return canonical(
        {
            "label": TERMS_LABEL,
            "federation": {key: body["federation"][key] for key in ("name", "rounds", "seed")},
            "model": {"sha256": base_digest, **{key: body["model"][key] for key in ("dtype", "quantization")}},
            "adapter": body["adapter"],
            "task": {**body["task"], "labels": None if labels is None else list(labels)},
            "data": {key: body["data"][key] for key in ("unit", "max_rows_per_unit", "task_column")},
            "training": {key: value for key, value in body["training"].items() if key not in _OWN},
            "privacy": body["privacy"],
            "continual": body["continual"],
            "aggregation": {"method": body["aggregation"]["method"]},
        }
    ).decode()


def config_of(
    terms: Mapping[str, Any], *, institution: str, dataset: PolicyDataset, model: Path, device: str
) -> FederationConfig:
    """The configuration that an institution trains by. Raises ConfigError for terms that make none."""
    sections = {key: value for key, value in terms.items() if key != "label"}
    own = {"unit": dataset.unit, "evaluation": str(dataset.path), "on_bad_record": dataset.on_bad_record}
    if dataset.reference is not None:
        own["reference"] = str(dataset.reference)
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
            "institutions": [section],
        },
        folder=Path("/"),
    )
