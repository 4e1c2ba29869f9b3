"""A run folder written by hand in the documented format: no training, no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedft import strict_json
from fedft.ledger.store import Ledger
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.events import DpSgdRound

NAMES = ("north", "south", "east-side", "west")
DELTA, CAP = 1e-4, 8.0


def config(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "fedft_version": "0.1.0",
        "run": "hospitals/0123456789abcdef",
        "federation": {"name": "hospitals", "rounds": 12, "min_institutions": 3, "seed": 1},
        "model": {"base": "/somewhere/scenarios/model", "revision": None, "dtype": "float32"},
        "adapter": {"method": "lora", "rank": 4, "alpha": 8.0},
        "task": {"kind": "classification", "labels": ["emergency", "surgery", "cardiology"], "max_length": 96},
        "data": {"train": "train.jsonl", "evaluation": "evaluation.jsonl", "unit": "patient"},
        "training": {"local_steps": 5, "batch_size": 96, "learning_rate": 0.01},
        "privacy": {"mode": "dp-sgd", "epsilon": CAP, "delta": DELTA, "clip_norm": 1.0},
        "continual": {"method": "ewc", "strength": 1.0},
        "aggregation": {"method": "fed_svd"},
        "institutions": [{"name": name, "dataset": f"{name}-notes", "epsilon": None} for name in NAMES],
        "outcome": {"story": "", "checks": []},
    }
    return {**body, **changes}


def records(count: int = 12, *, private: bool = True, names: Sequence[str] = NAMES) -> list[dict[str, Any]]:
    """The second institution misses round 3, the third refuses from round 9 on: its cap is lower."""
    found = []
    for number in range(1, count + 1):
        refused = {names[2]: "budget-exhausted"} if private and number >= 9 and len(names) > 2 else {}
        missing = [names[1]] if number == 3 else []
        accuracy = 0.9 - 0.75 * math.exp(-number / 3) + 0.01 * (-1) ** number
        spent = {n: 7.2 * math.sqrt(min(number, 8 if i == 2 else 12) / 12) for i, n in enumerate(names)}
        found.append(
            {
                "round": number,
                "task": "default",
                "updates": sorted(set(names) - set(refused) - set(missing)),
                "refused": refused,
                "missing": missing,
                "quorum": True,
                "update_norm": 0.8 / number,
                "bytes_up": 24_610 * (len(names) - len(missing) - len(refused)),
                "bytes_down": 49_220 * len(names),
                "evaluation": {
                    "accuracy": accuracy, "macro_f1": accuracy - 0.04, "loss": 2.1 - 2 * accuracy, "rows": 400.0,
                },
                "reference": {"accuracy": 0.8 - 0.004 * number, "macro_f1": 0.78, "loss": 0.6, "rows": 200.0},
                "tasks": None,
                "epsilon": {n: (value if private else None) for n, value in spent.items()},
                "cap": {n: ((6.0 if i == 2 else CAP) if private else None) for i, n in enumerate(names)},
                "seconds": 3.4,
                "seconds_training": 3.1,
                "best": number == count,
            }
        )  # fmt: skip
    return found


def summary(rounds: Sequence[Mapping[str, Any]], *, private: bool = True, **changes: Any) -> dict[str, Any]:
    last = rounds[-1]
    body: dict[str, Any] = {
        "run": "hospitals/0123456789abcdef",
        "name": "hospitals",
        "engine": "local",
        "rounds_done": len(rounds),
        "stopped_early": None,
        "metric": "accuracy",
        "best_round": len(rounds),
        "start": {"accuracy": 0.13, "macro_f1": 0.05, "loss": 2.08, "rows": 400.0},
        "final": last["evaluation"],
        "best": last["evaluation"],
        "reference": {"start": {"accuracy": 0.81, "loss": 0.6}, "final": last["reference"]},
        "forgetting": {"reference": 0.058},
        "institutions": {
            name: {
                "rows": 4000, "units": 1800 + 700 * i, "epsilon": last["epsilon"][name],
                "delta": DELTA if private else None, "cap": last["cap"][name], "clip_norm": 1.0 if private else None,
                "noise_multiplier": 0.9 + 0.1 * i if private else None, "sampling_rate": 96 / (1800 + 700 * i),
                "steps": 60, "rounds_answered": 11, "rounds_missing": 1, "refusals": {},
            }
            for i, name in enumerate(last["epsilon"])
        },
        "privacy_mode": "dp-sgd" if private else "off",
        "bytes_up": sum(record["bytes_up"] for record in rounds),
        "bytes_down": sum(record["bytes_down"] for record in rounds),
        "seconds": 44.2,
        "seconds_outside_training_fraction": 0.041,
        "parameters_trained": 12_305,
        "story": "Four hospitals teach one model to send notes to the right department.",
        "checks": [
            {"figure": "best.accuracy", "bound": "at least 0.8", "found": 0.91, "holds": True},
            {"figure": "forgetting.reference", "bound": "at most 0.03", "found": 0.058, "holds": False},
        ],
    }  # fmt: skip
    return {**body, **changes}


def write_run(
    folder: Path, config: Mapping[str, Any] | None, rounds: Sequence[Any], summary: Mapping[str, Any] | None
) -> Path:
    """Leaves out what is None or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(strict_json.dumps(config, indent=2))
    if rounds:
        (folder / "metrics.jsonl").write_text("".join(strict_json.dumps(record) + "\n" for record in rounds))
    if summary is not None:
        (folder / "summary.json").write_text(strict_json.dumps(summary, indent=2))
    return folder


def write_ledger(folder: Path, name: str, rounds: int) -> float:
    """A ledger with an intent for each round; the epsilon that it amounts to."""
    event = DpSgdRound(noise_multiplier=1.1, sampling_rate=0.05, steps=5)
    with Ledger.open(folder / "institutions" / name / "ledger.sqlite") as ledger:
        for number in range(1, rounds + 1):
            ledger.record_intent(
                run="hospitals/0123456789abcdef", round=number, purpose="update", dataset=f"{name}-notes", event=event,
                plan_digest="0" * 64, evidence={"units": 1800, "delta": DELTA, "institution": name},
            )  # fmt: skip
    return epsilon_of([event] * rounds, DELTA)
