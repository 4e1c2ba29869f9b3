"""What sharing the noise buys: local, distributed and central differential privacy on one adapter and the same steps.

    python bench/distributed_dp.py [--quick] [--only 'lora/1/*'] [--again]

BANKING77, all-MiniLM-L6-v2, four banks with 2,500 rows each, IID, delta 1e-5. Three runs of the product to a budget and
an adapter, with one sampling rate, clip norm, schedule of rates and number of steps: "local" is four banks that add
their own noise (privacy.mode = "dp-sgd"); "distributed" is the same four with noise in shares under secure aggregation;
"distributed-all" has every bank's share needed and none colluding; "central" is one bank with all rows. Each finished
cell is kept in bench/results/distributed_cells.json with the command that makes it, and a later call goes on from
there. The head's schedules are central training's: chosen for it on a fifth of the training rows, held out, without
counting that in epsilon; what local privacy reaches with its own is in bench/results/utility.json. Figures are those of
the last round.

Data and base model: as bench/utility.py. ``ratio``: at epsilon 1, the head's accuracy, distributed over local.
``points_below_central``: goal at most 1. ``points_above_local``: at epsilon 1 goal at least 10.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

from _recipes import COMMON, Schedule
from _result import emit
from utility import RESULTS, ROOT, data_folder, keep, kept_cells, played

from fedft.config import FederationConfig, load_config

CELLS = RESULTS / "distributed_cells.json"
SCENARIO = ROOT / "scenarios" / "real" / "banking77.toml"
BANKS, LARGEST = 4, 2501
"""Rows of the largest of the four: privacy.max_units."""
MODES = ("local", "distributed", "distributed-all", "central")
SCHEDULES: Mapping[str, Mapping[str, Schedule]] = {
    "head": {"8": Schedule(60, 2000, 90.0), "3": Schedule(24, 2000, 60.0, 2.0), "1": Schedule(24, 2000, 40.0)},
    "probe": {"1": Schedule(24, 2000, 40.0)},
    "lora": dict.fromkeys(("8", "3", "1"), Schedule(16, 625, 40.0, 2.0)),
}
"""By adapter and epsilon; batch: of one bank. The adapter's is the short one of bench/_recipes.py, for a CPU."""
ADAPTERS: Mapping[str, tuple[str, ...]] = {
    "head": ('adapter.method="head"', 'aggregation.method="fedavg"', "training.physical_batch_size=128"),
    "probe": (
        'adapter.method="head"',
        'aggregation.method="fedavg"',
        "training.physical_batch_size=128",
        'task.head_start="zeros"',
    ),
    "lora": ('aggregation.method="ffa_lora"', "adapter.alpha=8.3"),
}


def overrides_of(adapter: str, epsilon: str, mode: str) -> tuple[str, ...]:
    schedule = SCHEDULES[adapter][epsilon]
    batch = schedule.batch * (BANKS if mode == "central" else 1)
    return (
        *COMMON,
        *ADAPTERS[adapter],
        f"federation.rounds={schedule.rounds}",
        f"evaluation.every={schedule.rounds}",
        f"training.batch_size={batch}",
        f"training.learning_rate={schedule.learning_rate}",
        'training.precision="float32"',
        f"privacy.epsilon={epsilon}",
        f"privacy.clip_norm={schedule.clip_norm}",
        *_mode(mode),
    )


def _mode(mode: str) -> tuple[str, ...]:
    if mode == "central":
        return ('data.partition={ method = "iid", institutions = 1 }', "federation.min_institutions=1")
    if mode == "local":
        return ()
    shared = ('privacy.mode="distributed"', f"privacy.max_units={LARGEST}", "secure_aggregation.enabled=true")
    everyone = (f"secure_aggregation.threshold={BANKS}", "privacy.colluding=0")
    return (*shared, *everyone) if mode == "distributed-all" else shared


def config_of(name: str, *extra: str) -> FederationConfig:
    folder = data_folder() / "banking77"
    here = (f"data.train={folder / 'train.jsonl'}", f"data.evaluation={folder / 'test.jsonl'}")
    return load_config(SCENARIO, [*overrides_of(*name.split("/")), *extra, *here])


def measure(name: str, *extra: str) -> dict[str, Any]:
    summary, kept = played(config_of(name, *extra), SCENARIO, overrides_of(*name.split("/")))
    first = next(iter(summary["institutions"].values()))
    return {
        "steps": summary["rounds_done"],
        "noise_multiplier": first["noise_multiplier"],
        "sampling_rate": first["sampling_rate"],
        "epsilon_spent": first["epsilon"],
        "local_epsilon": first["local_epsilon"],
        **kept,
    }


def all_cells() -> Iterator[str]:
    for adapter in ADAPTERS:
        for epsilon in SCHEDULES[adapter]:
            for mode in MODES:
                yield f"{adapter}/{epsilon}/{mode}"


def figures_of(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy by adapter, epsilon and mode, and what the goals ask for."""
    accuracy: dict[str, dict[str, dict[str, float]]] = {}
    for name, cell in cells.items():
        adapter, epsilon, mode = name.split("/")
        accuracy.setdefault(adapter, {}).setdefault(epsilon, {})[mode] = cell["final"]["accuracy"]
    below, above = _points(accuracy, "central", "distributed"), _points(accuracy, "distributed", "local")
    head = accuracy.get("head", {}).get("1", {})
    ratio = head["distributed"] / head["local"] if {"distributed", "local"} <= head.keys() else None
    return {
        "ratio": ratio,
        "points_below_central": below,
        "points_above_local": above,
        "accuracy": accuracy,
        "cells": len(cells),
        "seconds": round(sum(cell["seconds"] for cell in cells.values())),
    }


def _points(accuracy: Mapping[str, Mapping[str, Mapping[str, float]]], more: str, less: str) -> dict[str, float]:
    return {
        f"{adapter}/{epsilon}": round(100 * (found[more] - found[less]), 2)
        for adapter, row in accuracy.items()
        for epsilon, found in row.items()
        if {more, less} <= found.keys()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds of the head; figures are not kept")
    parser.add_argument("--only", action="append", metavar="CELL", help="a cell, or a pattern of cells")
    parser.add_argument("--again", action="store_true", help="also cells that are kept already")
    args = parser.parse_args()
    if args.quick:
        short = ("federation.rounds=2", "evaluation.max_rows=300")
        cells = {name: measure(name, *short) for name in (f"head/1/{mode}" for mode in MODES)}
        emit("distributed_dp", {**figures_of(cells), "quick": True})
        return
    for name in all_cells():
        wanted = any(fnmatch.fnmatch(name, pattern) for pattern in args.only or ("*",))
        if wanted and (args.again or name not in kept_cells(CELLS)):
            keep(name, measure(name), CELLS)
            print(name, kept_cells(CELLS)[name]["final"], flush=True)
    emit("distributed_dp", figures_of(kept_cells(CELLS)), write=RESULTS / "distributed_dp.json")


if __name__ == "__main__":
    main()
