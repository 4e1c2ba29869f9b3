"""A federation of three tiny institutions in a folder: a whole run takes a second or two.

And its parts one by one: an institution over a ledger, and what it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedft.config import FederationConfig, parse_config
from fedft.ledger.store import Ledger
from fedft.model.checkpoint import read_checkpoint
from fedft.model.vector import vector_digest
from fedft.rounds.institution import Institution
from fedft.rounds.plan import DEFAULT_TASK, RoundPlan, RoundRequest
from fedft.rounds.terms import Guarantee
from fedft.simulation.setup import Setup
from fedft.types import AdapterVector, InstitutionId
from tests.tiny import classification_rows, tiny_bert, write_jsonl

NAMES = ("north", "south", "west")
PRIVATE: dict[str, Any] = {"mode": "dp-sgd", "epsilon": 8.0, "delta": 1e-3, "clip_norm": 1.0}
ROWS, UNITS, BATCH = 90, 40, 8
OFF = ("privacy.mode=off", "privacy.epsilon=", "privacy.delta=", "privacy.clip_norm=")
GUARANTEE = Guarantee(epsilon=8.0, delta=1e-3, clip_norm=1.0, noise_multiplier=1.0)
"""Room for a handful of rounds of two steps."""


def rows_of(number: int) -> list[dict[str, Any]]:
    """The rows of institution ``number``: a unit has two or three of them.

    Each institution has all UNITS, so that what epsilon comes to is calculated once for all of them.
    """
    rows = classification_rows(ROWS, seed=number + 1, units=UNITS)
    return [row | {"patient": f"p{at}"} if at < UNITS else row for at, row in enumerate(rows)]


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


def adapter_of(run: Path, round: int | None = None) -> npt.NDArray[np.float32]:
    """The adapter after ``round``; None: after the last one that was finished."""
    found = sorted((run / "checkpoints").glob("round-*"))[-1] if round is None else f"round-{round:04d}"
    return np.asarray(read_checkpoint(run / "checkpoints" / found)[0]["adapter"])


def institution_at(setup: Setup, ledger: Ledger, *, name: str = "north", **options: Any) -> Institution:
    """Institution ``name`` of the federation; ``options`` replace what it is made with."""
    data = setup.institution(name)
    made: dict[str, Any] = {
        "model": setup.model, "data": data.encoded, "dataset": name, "ledger": ledger,
        "terms": setup.terms(data.section), "guarantee": GUARANTEE, "seed": 3,
    }  # fmt: skip
    return Institution(InstitutionId(name), **{**made, **options})


def request_of(setup: Setup, number: int = 1, *, adapter: AdapterVector | None = None, **changes: Any) -> RoundRequest:
    """What a coordinator asks in round ``number`` of 9 with two steps each; ``changes`` are the plan's own."""
    adapter = setup.model.start_vector() if adapter is None else adapter
    plan = RoundPlan(
        run="run", round=number, rounds=9, task=DEFAULT_TASK, task_index=0, cohort=NAMES,
        layout_digest=setup.model.layout.digest, adapter_digest=vector_digest(adapter), roles=setup.aggregation.trains,
        local_steps=2, first_step=2 * (number - 1), total_steps=18,
    )  # fmt: skip
    return RoundRequest(replace(plan, **changes), adapter)
