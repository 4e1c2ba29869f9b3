"""Perplexity on held-out answers before and after federated instruction tuning, with and without privacy.

    python bench/medquad.py [--quick] [--write bench/results/medquad.json]

Plays scenarios/real/medquad.toml as it is, and once more with privacy off: nine institutions, the NIH's sites, and a
causal model of 260,032 parameters that knows children's stories. ``ratio``: perplexity after over before, with privacy.

Data: the folder FEDFT_SHARED_DATA, or ../shared/data beside the repository.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from pathlib import Path
from typing import Any

from _result import emit
from utility import ROOT, data_folder

from fedft.config import load_config
from fedft.simulation.run import play

SCENARIO = ROOT / "scenarios" / "real" / "medquad.toml"
VARIANTS = {"epsilon 8": (), "off": ('privacy.mode="off"',)}


def measure(overrides: tuple[str, ...]) -> dict[str, Any]:
    data = data_folder()
    here = (
        f"data.train={data / 'medquad' / 'train.jsonl'}",
        f"data.evaluation={data / 'medquad' / 'test.jsonl'}",
        f"model.base={data / 'models' / 'stories260K'}",
    )
    config = load_config(SCENARIO, [*overrides, *here])
    with tempfile.TemporaryDirectory() as folder:
        summary = play(config, folder=Path(folder) / "run")
    institutions = summary["institutions"]
    sets = [word for value in overrides for word in ("--set", value)]
    return {
        "command": shlex.join(["fedft", "simulate", str(SCENARIO.relative_to(ROOT)), *sets]),
        "seed": config.federation.seed,
        "start": summary["start"]["perplexity"],
        "final": summary["final"]["perplexity"],
        "rounds": summary["rounds_done"],
        "local_steps": config.training.local_steps,
        "institutions": {
            name: {key: found[key] for key in ("units", "epsilon", "noise_multiplier")}
            for name, found in institutions.items()
        },
        "parameters_trained": summary["parameters_trained"],
        "seconds": round(summary["seconds"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of one step")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    short = ("federation.rounds=1", "training.local_steps=1", "evaluation.max_rows=50") if args.quick else ()
    runs = {name: measure((*overrides, *short)) for name, overrides in VARIANTS.items()}
    private = runs["epsilon 8"]
    emit("medquad", {"ratio": private["final"] / private["start"], "runs": runs}, write=args.write)


if __name__ == "__main__":
    main()
