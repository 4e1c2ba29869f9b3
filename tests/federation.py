"""A federation of three tiny institutions in a folder: a whole run takes a second or two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedft.config import FederationConfig, parse_config
from tests.tiny import classification_rows, tiny_bert, write_jsonl

NAMES = ("north", "south", "west")
PRIVATE = {"mode": "dp-sgd", "epsilon": 8.0, "delta": 1e-3, "clip_norm": 1.0}
ROWS, UNITS, BATCH = 90, 40, 8


def rows_of(number: int) -> list[dict[str, Any]]:
    """The rows of institution ``number``: a unit has two or three of them."""
    return list(classification_rows(ROWS, seed=number + 1, units=UNITS))


def federation_body(folder: Path, *, rows: Mapping[str, list[dict[str, Any]]] | None = None) -> dict[str, Any]:
    """What a federation file would hold, private, its data and base model written into ``folder``.

    ``rows`` replaces those of the institutions it names.
    """
    base = folder / "base"
    if not base.exists():
        base.mkdir(parents=True)
        tiny_bert(base)
    for number, name in enumerate(NAMES):
        write_jsonl(folder / f"{name}.jsonl", (rows or {}).get(name, rows_of(number)))
    write_jsonl(folder / "public.jsonl", list(classification_rows(40, seed=99)))
    return {
        "federation": {"name": "tiny", "rounds": 2, "seed": 3},
        "model": {"base": str(base)},
        "adapter": {"rank": 2, "alpha": 4.0},
        "task": {"kind": "classification", "labels": ["a", "b", "c"], "max_length": 16},
        "data": {"evaluation": "public.jsonl", "reference": "public.jsonl", "unit": "patient"},
        "training": {"local_steps": 2, "batch_size": BATCH, "learning_rate": 0.01, "device": "cpu"},
        "privacy": dict(PRIVATE),
        "institutions": [{"name": name, "data": f"{name}.jsonl"} for name in NAMES],
    }


def federation(folder: Path, *overrides: str, **options: Any) -> FederationConfig:
    """The checked configuration; ``overrides`` as of ``--set``."""
    return parse_config(federation_body(folder, **options), folder=folder, overrides=overrides)


def records_of(run: Path) -> list[dict[str, Any]]:
    """The rounds of a run folder."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
