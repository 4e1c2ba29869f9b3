"""Accuracy against epsilon on real data: fedavg, ffa_lora and fed_svd, each beside the head alone on frozen features.

    python bench/utility.py [--quick] [--only 'banking77/iid/*'] [--seed 1] [--again]

A cell is one run of the product, SET/PARTITION/METHOD/EPSILON/SEED, played with scenarios/real/SET.toml and the
overrides of bench/_recipes.py. Each finished cell is kept in bench/results/utility_cells.json with the command that
makes it, and a later call goes on from there. Figures are those of the last round, never of the round that did best on
the test rows. Recipes were chosen on a fifth of the training rows, held out; that choice is not in epsilon.

Data: the folder FEDFT_SHARED_DATA, or ../shared/data beside the repository. Base model: make bench-model.
``ratio``: accuracy of fed_svd at epsilon 8 over that of fed_svd without privacy, BANKING77, IID.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _frozen_layers import keep_frozen_states
from _recipes import EPSILONS, GOALS, METHODS, PARTITIONS, overrides_of
from _result import emit, machine, versions

from fedft.config import FederationConfig, load_config
from fedft.simulation.run import play

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
CELLS = RESULTS / "utility_cells.json"
SETS = {"banking77": "banking77", "mts_dialog": "mts_dialog_sections"}


@dataclass(frozen=True)
class Cell:
    set: str
    partition: str
    method: str
    epsilon: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.set}/{self.partition}/{self.method}/{self.epsilon}/{self.seed}"

    @property
    def scenario(self) -> Path:
        return ROOT / "scenarios" / "real" / f"{self.set}.toml"

    @property
    def overrides(self) -> tuple[str, ...]:
        return overrides_of(self.set, self.partition, self.method, self.epsilon, self.seed)


def all_cells(seed: int) -> Iterator[Cell]:
    for name in SETS:
        for partition in PARTITIONS[name]:
            for method in METHODS[f"{name}/{partition}"]:
                for epsilon in EPSILONS:
                    yield Cell(name, partition, method, epsilon, seed)


def data_folder() -> Path:
    folder = Path(os.environ.get("FEDFT_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        raise SystemExit(
            "expected real data, found none: set FEDFT_SHARED_DATA to the folder that holds "
            f"{', '.join(SETS.values())}, or put it at ../shared/data"
        )
    return folder


def config_of(cell: Cell, *extra: str) -> FederationConfig:
    folder = data_folder() / SETS[cell.set]
    here = (f"data.train={folder / 'train.jsonl'}", f"data.evaluation={folder / 'test.jsonl'}")
    return load_config(cell.scenario, [*cell.overrides, *extra, *here])


def measure(cell: Cell, *extra: str) -> dict[str, Any]:
    config = config_of(cell, *extra)
    summary, kept = played(config, cell.scenario, cell.overrides)
    institutions = summary["institutions"].values()
    return {
        "rounds": summary["rounds_done"],
        "local_steps": config.training.local_steps,
        "batch_size": config.training.batch_size,
        "noise_multiplier": [institution["noise_multiplier"] for institution in institutions],
        "epsilon_spent": [institution["epsilon"] for institution in institutions],
        "units": [institution["units"] for institution in institutions],
        "start": {key: summary["start"][key] for key in ("accuracy", "macro_f1")},
        **kept,
    }


def played(
    config: FederationConfig, scenario: Path, overrides: Sequence[str]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Play ``config``: the run's summary, and what each cell keeps of it, with the command that makes it."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, keep_frozen_states():
        summary = play(config, folder=Path(folder) / "run")
    sets = [word for value in overrides for word in ("--set", value)]
    return summary, {
        "command": shlex.join(["fedft", "simulate", str(scenario.relative_to(ROOT)), *sets]),
        "seed": config.federation.seed,
        "parameters_trained": summary["parameters_trained"],
        "final": {key: summary["final"][key] for key in ("accuracy", "macro_f1", "loss")},
        "bytes_up": summary["bytes_up"],
        "seconds": round(time.perf_counter() - begun, 1),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "torch": versions().get("torch"),
    }


def kept_cells(path: Path = CELLS) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def keep(name: str, entry: Mapping[str, Any], path: Path = CELLS) -> None:
    """Whole or not at all, so that an interrupted benchmark goes on where it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = dict(sorted({**kept_cells(path), name: entry}.items()))
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(cells, indent=1) + "\n")
    temporary.replace(path)


def table_of(cells: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """SET/PARTITION -> METHOD -> EPSILON -> mean accuracy and macro F1 over seeds, and how many seeds."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for name, cell in cells.items():
        data, partition, method, epsilon, _ = name.split("/")
        row = table.setdefault(f"{data}/{partition}", {}).setdefault(method, {})
        row.setdefault(epsilon, []).append(cell["final"])
    return {
        group: {method: {eps: _mean(finals) for eps, finals in row.items()} for method, row in rows.items()}
        for group, rows in table.items()
    }


def _mean(finals: list[dict[str, float]]) -> dict[str, float]:
    means = {key: round(sum(f[key] for f in finals) / len(finals), 4) for key in ("accuracy", "macro_f1")}
    return {**means, "seeds": len(finals)}


def goals_of(table: Mapping[str, Any]) -> dict[str, Any]:
    """Each goal beside what fed_svd and the head alone reached. It holds when the adapter reached it."""
    found = {}
    for (group, epsilon), goal in GOALS.items():
        reached = {
            method: table[group][method][epsilon]["accuracy"]
            for method in ("fed_svd", "fed_svd-best", "head", "head-best")
            if epsilon in table.get(group, {}).get(method, {})
        }
        found[f"{group}/{epsilon}"] = {"goal": goal, **reached, "holds": max(_adapters(reached), default=0.0) >= goal}
    return found


def _adapters(reached: Mapping[str, float]) -> list[float]:
    return [accuracy for method, accuracy in reached.items() if method.startswith("fed_svd")]


def ratio_of(table: Mapping[str, Any]) -> float | None:
    row = table.get("banking77/iid", {}).get("fed_svd", {})
    if "8" not in row or "off" not in row:
        return None
    return float(round(row["8"]["accuracy"] / row["off"]["accuracy"], 4))


def quick() -> dict[str, Any]:
    """Two rounds of the adapter and of the head on a part of the test rows: that everything works, not how well."""
    cells = [Cell("banking77", "iid", method, epsilon, 1) for method in ("head", "fed_svd") for epsilon in ("off", "8")]
    short = ("federation.rounds=2", "training.batch_size=150", "evaluation.max_rows=300")
    return {cell.name: measure(cell, *short) for cell in cells}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few short runs; their figures are not kept")
    parser.add_argument("--only", action="append", metavar="CELL", help="a cell, or a pattern of cells")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="also cells that are kept already")
    args = parser.parse_args()
    if args.quick:
        table = table_of(quick())
        emit("utility", {"ratio": ratio_of(table), "accuracy": table, "quick": True})
        return
    for cell in all_cells(args.seed):
        wanted = any(fnmatch.fnmatch(cell.name, pattern) for pattern in args.only or ("*",))
        if wanted and (args.again or cell.name not in kept_cells()):
            keep(cell.name, measure(cell))
            print(cell.name, kept_cells()[cell.name]["final"], flush=True)
    cells = kept_cells()
    table = table_of(cells)
    figures = {
        "ratio": ratio_of(table),
        "goals": goals_of(table),
        "accuracy": table,
        "cells": len(cells),
        "seconds": round(sum(cell["seconds"] for cell in cells.values())),
    }
    emit("utility", figures, write=RESULTS / "utility.json")


if __name__ == "__main__":
    main()
