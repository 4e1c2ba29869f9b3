"""One federation on the local engine and on Flower's simulation runtime (Ray): wall time, and what is not training.

    python bench/engine.py [--quick] [--without-ray] [--write bench/results/engine.json]
    python bench/engine.py --profile dp-sgd demo 2> profile.txt     # cProfile of one local run

Ten institutions of unequal size, five rounds, the embedded model on the synthetic triage notes, fed_svd, evaluation on
200 public rows in every round; without privacy and with patient-level DP-SGD. Two amounts of local work:

- "tiny": one local step of 8 units, a few tens of milliseconds; what is measured is the engines themselves;
- "demo": five local steps of 96 units, as in scenarios/hospitals.toml, several hundred milliseconds.

Every run is a fresh process, the engines taken in turn. ``ratio`` is Flower's wall time over the local engine's, tiny
work, private, whole processes from start to exit: imports, data, model, calibration, rounds, export; goal at least 3.
``ratio_of_play`` leaves out the imports that both need. With "demo" work both engines mostly train, and Flower trains
one institution on each core where the local engine gives all cores to one: that ratio is beside it.

``outside_training`` is, for the private demo on the local engine, 1 - (seconds inside train_locally) / (seconds of the
rounds); goal at most 0.05. Inside is what one institution does between receiving an adapter and holding its update:
loading the adapter, hooks, Poisson draws, batches, steps, noise. Outside is everything else in a round: roll call,
messages, digests, budget checks, ledger and checkpoint with their fsyncs, self-test, screening, aggregation,
evaluation. ``outside_training_of_process`` counts imports, start-up and export as well.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _fresh import run_fresh
from _result import emit

SCENARIOS = Path(__file__).resolve().parent.parent / "scenarios"
WORK = {"tiny": (1, 8), "demo": (5, 96)}
"""Local steps of a round, units of a step."""
INSTITUTIONS, EVALUATION_ROWS = 10, 200

Runs = dict[str, list[dict[str, Any]]]
"""Engine -> one entry for each repeat."""


def federation(mode: str, work: str, rounds: int) -> dict[str, Any]:
    """What a federation file would hold. Unequal shares: each institution has its own sampling rate and noise."""
    private = {"epsilon": 8.0, "delta": 1e-4, "clip_norm": 1.0} if mode == "dp-sgd" else {}
    steps, batch = WORK[work]
    return {
        "federation": {"name": "engine", "rounds": rounds, "seed": 1},
        "model": {"base": "model"},
        "adapter": {"rank": 4, "alpha": 8},
        "task": {"kind": "classification", "max_length": 96},
        "data": {
            "train": "synthetic/data/hospitals-train.jsonl",
            "evaluation": "synthetic/data/hospitals-evaluation.jsonl",
            "unit": "patient",
            "partition": {"method": "dirichlet", "institutions": INSTITUTIONS, "alpha": 10.0},
        },
        "training": {"local_steps": steps, "batch_size": batch, "learning_rate": 1e-2, "device": "cpu"},
        "privacy": {"mode": mode, **private},
        "aggregation": {"method": "fed_svd"},
        "evaluation": {"max_rows": EVALUATION_ROWS},
    }


def play_here(engine: str, mode: str, work: str, rounds: int, profiler: cProfile.Profile | None) -> dict[str, Any]:
    """One run in this process, and how long its parts took."""
    from fedft.config import parse_config
    from fedft.simulation.run import play

    config = parse_config(federation(mode, work, rounds), folder=SCENARIOS)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        if profiler is not None:
            profiler.enable()
        summary = play(config, folder=Path(folder) / "run", engine=engine)
        if profiler is not None:
            profiler.disable()
        seconds = time.perf_counter() - begun
    outside = summary["seconds_outside_training_fraction"]
    return {
        "seconds_of_play": seconds,
        "seconds_of_rounds": summary["seconds_in_rounds"],
        "seconds_of_training": None if outside is None else summary["seconds_in_rounds"] * (1 - outside),
        "accuracy": summary["final"]["accuracy"],
    }


def play_fresh(engine: str, mode: str, work: str, rounds: int) -> dict[str, Any]:
    """The same in a fresh process, with its wall time from start to exit."""
    begun = time.perf_counter()
    found = run_fresh(__file__, ["--play", engine, mode, work, "--rounds", str(rounds)])
    return {"seconds_of_process": time.perf_counter() - begun, **found}


def figures(runs: Runs, rounds: int) -> dict[str, Any]:
    """Of one mode and work: medians by engine, and how they compare."""
    local = medians(runs["local"])
    training = local["seconds_of_training"]
    return {
        **{engine: medians(repeats) for engine, repeats in runs.items()},
        "ratio": ratio(runs, "seconds_of_process"),
        "ratio_of_play": ratio(runs, "seconds_of_play"),
        "outside_training": 1 - training / local["seconds_of_rounds"],
        "outside_training_of_process": 1 - training / local["seconds_of_process"],
        "training_seconds_per_round_and_institution": training / rounds / INSTITUTIONS,
    }


def medians(repeats: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: None if repeats[0][key] is None else statistics.median(r[key] for r in repeats) for key in repeats[0]}


def ratio(runs: Runs, key: str) -> float | None:
    """Flower over local, pair by pair; None without Flower."""
    if "flower" not in runs:
        return None
    pairs = zip(runs["flower"], runs["local"], strict=True)
    return statistics.median(float(flower[key]) / float(local[key]) for flower, local in pairs)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    rounds, repeats = (2, 1) if args.quick else (args.rounds, args.repeats)
    cases = [(mode, work) for mode in ("dp-sgd", "off") for work in ("tiny", "demo")]
    if args.quick:
        cases = cases[:1]
    engines = ("local",) if args.without_ray else ("local", "flower")
    runs: dict[tuple[str, str], Runs] = {case: {engine: [] for engine in engines} for case in cases}
    for _ in range(repeats):
        for mode, work in cases:
            for engine in engines:
                runs[mode, work][engine].append(play_fresh(engine, mode, work, rounds))
    found = {f"{mode}, {work}": figures(of_case, rounds) for (mode, work), of_case in runs.items()}
    return {
        "ratio": found["dp-sgd, tiny"]["ratio"],
        "outside_training": found.get("dp-sgd, demo", found["dp-sgd, tiny"])["outside_training"],
        **found,
        "institutions": INSTITUTIONS,
        "rounds": rounds,
        "repeats": repeats,
        "evaluation_rows": EVALUATION_ROWS,
        "local_threads": os.environ.get("OMP_NUM_THREADS", "all cores"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of tiny work, private, once")
    parser.add_argument("--without-ray", action="store_true", help="the local engine alone; ratio is null")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", nargs=2, metavar=("MODE", "WORK"), help="one local run here, under cProfile")
    parser.add_argument("--play", nargs=3, metavar=("ENGINE", "MODE", "WORK"), help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if args.play:
        engine, mode, work = args.play
        print(json.dumps(play_here(engine, mode, work, args.rounds, None)))
    elif args.profile:
        (mode, work), profiler = args.profile, cProfile.Profile()
        print(json.dumps(play_here("local", mode, work, args.rounds, profiler)))
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(100)
    else:
        emit("engine", measured(args), write=args.write)


if __name__ == "__main__":
    main()
