"""Memory and time of aggregation with 4, 16, 64 and 256 institutions of 4 million parameters.

    python bench/scale.py [--quick] [--write bench/results/scale.json]

What the coordinator does with a round's updates, in a fresh process for each number of institutions: open and screen
each envelope, add it into the running sum, and take the mean at the end. Updates arrive one at a time, as over a
network; making them is not timed. Figures for each number:

- ``peak_mib``: the process's largest resident set, interpreter, numpy and one arriving update included;
- ``memory_of_round_mib``: how much of that the round added to what was there before its first update;
- ``seconds_per_update``: median; ``seconds``: all updates and the mean; both the least of three repeats.

``ratio`` is peak_mib at most institutions over that at fewest: 1.0 is flat, goal below 1.1. ``time_linearity`` is the
time of one update at most institutions over that at fewest: 1.0 is linear.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from _fresh import peak_mib, run_fresh
from _result import emit

from fedft.aggregation.base import RunningSum
from fedft.model.vector import AdapterLayout, TensorSpec
from fedft.types import AdapterVector, Digest
from fedft.update.envelope import seal
from fedft.update.screening import screen

RUN, DIGEST = "scale/1", Digest("0" * 64)
COUNTS = {False: (4, 16, 64, 256), True: (4, 16, 64)}
PARAMETERS = {False: 4_194_304, True: 262_144}


def layout_of(parameters: int) -> AdapterLayout:
    return AdapterLayout(DIGEST, (TensorSpec("layer.lora_B", (parameters // 8, 8), "lora_B"),), 1.0)


def sealed(name: str, delta: AdapterVector, layout: AdapterLayout) -> bytes:
    return seal(run=RUN, round=1, institution=name, plan_digest=DIGEST, layout_digest=layout.digest, delta=delta)


def one_round(institutions: int, parameters: int) -> dict[str, Any]:
    layout = layout_of(parameters)
    names = tuple(f"institution-{number:03d}" for number in range(institutions))
    delta = np.random.default_rng(0).normal(0.0, 1e-3, parameters).astype(np.float32)
    first = sealed(names[0], delta, layout)
    before, total, seen, seconds = peak_mib(), RunningSum(parameters), set[str](), []
    for name in names:
        update = first.replace(names[0].encode(), name.encode())  # arrives: other bytes, one update's memory
        begun = time.perf_counter()
        opened = screen(
            update,
            run=RUN,
            round=1,
            plan_digest=DIGEST,
            layout=layout,
            max_norm=1e3,
            cohort=names,
            seen=seen,
            sender=name,
        )
        total.add(opened.delta)
        seen.add(name)
        seconds.append(time.perf_counter() - begun)
        del update, opened
    begun = time.perf_counter()
    mean = total.mean()
    of_mean, peak = time.perf_counter() - begun, peak_mib()
    if not np.allclose(mean, delta, rtol=1e-6, atol=2.0**-40):
        raise RuntimeError("expected the mean of equal updates to be the update, found another")
    return {
        "institutions": institutions,
        "peak_mib": peak,
        "memory_of_round_mib": peak - before,
        "seconds_per_update": statistics.median(seconds),
        "seconds": sum(seconds) + of_mean,
    }


def played(institutions: int, parameters: int) -> dict[str, Any]:
    return run_fresh(__file__, ["--only", str(institutions), "--parameters", str(parameters)])


def least_disturbed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of repeats of one round: the most memory, the least time."""
    memory = {key: max(run[key] for run in runs) for key in ("peak_mib", "memory_of_round_mib")}
    return {**runs[0], **memory, **{key: min(run[key] for run in runs) for key in ("seconds_per_update", "seconds")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 64 institutions of 262,144 parameters")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--parameters", type=int)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    parameters = args.parameters or PARAMETERS[args.quick]
    if args.only:
        print(json.dumps(one_round(args.only, parameters)))
        return
    counts, repeats = COUNTS[args.quick], 1 if args.quick else 3
    taken = [[played(count, parameters) for count in counts] for _ in range(repeats)]
    rounds = [least_disturbed(list(runs)) for runs in zip(*taken, strict=True)]
    first, last = rounds[0], rounds[-1]
    emit(
        "scale",
        {
            "ratio": last["peak_mib"] / first["peak_mib"],
            "time_linearity": last["seconds_per_update"] / first["seconds_per_update"],
            "parameters": parameters,
            "update_mib": parameters * 4 / 2**20,
            "repeats": repeats,
            "rounds": rounds,
        },
        write=args.write,
    )


if __name__ == "__main__":
    main()
