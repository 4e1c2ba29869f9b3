"""Bytes of a round between an institution and its coordinator, against LoRA with FedAvg in float32; and what they cost.

    python bench/wire.py [--quick] [--write bench/results/wire.json]

BANKING77 on four banks with identical shares (bench/utility.py's cells "fed_svd"): ours is fed_svd, which sends B and
the head up and the whole adapter down, in MXINT8 (8 bits a value and 8 more for each 32). ``ratio`` is bytes up and
down of a round and institution over those of fedavg in float32 on the same adapter; goal at most 0.25. ``points_lost``
is the accuracy of the same runs in float32 minus that in MXINT8, in points, without privacy (8 rounds) and at epsilon
8 (12 rounds); goal at most 0.5.

``large``: an update of 100 million values in MXINT8, sealed, screened and added, and the coordinator's peak memory with
2 and with 8 of them, in fresh processes; goal flat.

Data: the folder FEDFT_SHARED_DATA, or ../shared/data beside the repository. Base model: make bench-model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _fresh import peak_mib, run_fresh
from _frozen_layers import keep_frozen_states
from _result import emit
from scale import DIGEST, RUN, layout_of
from utility import Cell, config_of

from fedft.aggregation.base import RunningSum
from fedft.simulation.planning import plan_of
from fedft.simulation.run import play
from fedft.update.envelope import seal
from fedft.update.screening import screen
from fedft.update.wire import Encoding

LARGE = 100_000_000


def bytes_of_round(method: str, encoding: Encoding) -> tuple[int, int]:
    """Up and down, of one institution; the envelope's own few bytes are counted at their largest."""
    cell = Cell("banking77", "iid", method, "off", 1)
    plan = plan_of(config_of(cell, f"aggregation.encoding={encoding}"))
    return plan.bytes_up_per_update, plan.bytes_down_per_institution


def accuracy(epsilon: str, encoding: Encoding, *extra: str) -> dict[str, float]:
    cell = Cell("banking77", "iid", "fed_svd", epsilon, 1)
    config = config_of(cell, f"aggregation.encoding={encoding}", *extra)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, keep_frozen_states():
        summary = play(config, folder=Path(folder) / "run")
    return {"accuracy": summary["final"]["accuracy"], "seconds": time.perf_counter() - begun}


def add_large(institutions: int, values: int) -> dict[str, Any]:
    """In this process: the same update from each, one at a time."""
    layout, names = layout_of(values), [f"institution-{number:02d}" for number in range(institutions)]
    delta = np.random.default_rng(0).normal(0.0, 1e-3, values).astype(np.float32)
    known = {"run": RUN, "round": 1, "plan_digest": DIGEST}
    begun = time.perf_counter()
    sealed = seal(**known, institution=names[0], layout_digest=layout.digest, delta=delta, encoding="mxint8")  # type: ignore[arg-type]
    sealing = time.perf_counter() - begun
    del delta
    total, seconds = RunningSum(values), []
    for name in names:
        update = sealed.replace(names[0].encode(), name.encode(), 1)
        begun = time.perf_counter()
        opened = screen(update, **known, layout=layout, encoding="mxint8", max_norm=1e9, cohort=names, seen=())  # type: ignore[arg-type]
        total.add(opened.delta, 1.0)
        seconds.append(time.perf_counter() - begun)
        del update, opened
    return {
        "peak_mib": peak_mib(),
        "bytes": len(sealed),
        "seconds_to_seal": sealing,
        "seconds_to_screen_and_add": sorted(seconds)[len(seconds) // 2],
    }


def measured(quick: bool) -> dict[str, Any]:
    ours, theirs = bytes_of_round("fed_svd", "mxint8"), bytes_of_round("fedavg", "float32")
    found: dict[str, Any] = {
        "ratio": sum(ours) / sum(theirs),
        "ratio_up": ours[0] / theirs[0],
        "ratio_down": ours[1] / theirs[1],
        "bytes": {"fed_svd, mxint8": ours, "fed_svd, float32": bytes_of_round("fed_svd", "float32"), "fedavg": theirs},
    }
    for epsilon, rounds in (("off", 2),) if quick else (("off", 8), ("8", 12)):
        extra = (f"federation.rounds={rounds}",)
        plain, short = accuracy(epsilon, "float32", *extra), accuracy(epsilon, "mxint8", *extra)
        lost = 100 * (plain["accuracy"] - short["accuracy"])
        found[f"epsilon {epsilon}"] = {"float32": plain, "mxint8": short, "points_lost": lost}
    values = LARGE // 50 if quick else LARGE
    large = {n: run_fresh(__file__, ["--large", str(n), str(values)]) for n in (2, 8)}
    found["large"] = {"values": values, **{f"{n} institutions": result for n, result in large.items()}}
    found["large"]["peak_ratio"] = large[8]["peak_mib"] / large[2]["peak_mib"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds without privacy, two million values")
    parser.add_argument("--large", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if args.large:
        print(json.dumps(add_large(*args.large)))
    else:
        emit("wire", measured(args.quick), write=args.write)


if __name__ == "__main__":
    main()
