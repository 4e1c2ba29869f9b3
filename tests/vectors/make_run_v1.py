"""Write run-v1/: a whole run of version 1 of every format, kept for ever. tests/audit/test_run_v1.py verifies it.

    python -m tests.vectors.make_run_v1

Not to be made anew while the version stands: a run that was made once must be verified by every later fedft. Two tiny
institutions, two private rounds, made-up rows; a folder run-v2 follows when a format changes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from fedft.config import parse_config
from fedft.simulation.run import play
from tests.tiny import classification_rows, tiny_bert, write_jsonl

TARGET = Path(__file__).with_name("run-v1")
SCRATCH = Path("/tmp/fedft-run-v1")
NAMES = ("north", "south")


def main() -> None:
    if TARGET.exists():
        raise SystemExit(f"expected no {TARGET.name}, found it: a run of version 1 is made once")
    SCRATCH.mkdir()
    tiny_bert(SCRATCH / "base")
    for number, name in enumerate(NAMES, start=1):
        write_jsonl(SCRATCH / f"{name}.jsonl", list(classification_rows(90, seed=number, units=40)))
    write_jsonl(SCRATCH / "public.jsonl", list(classification_rows(40, seed=99)))
    play(parse_config(BODY, folder=SCRATCH), folder=SCRATCH / "run")
    shutil.copytree(SCRATCH / "run", TARGET)
    shutil.rmtree(SCRATCH)


BODY = {
    "federation": {"name": "run-v1", "rounds": 2, "seed": 3},
    "model": {"base": "base"},
    "adapter": {"rank": 2, "alpha": 4.0},
    "task": {"kind": "classification", "labels": ["a", "b", "c"], "max_length": 16},
    "data": {"evaluation": "public.jsonl", "unit": "patient"},
    "training": {"local_steps": 2, "batch_size": 8, "learning_rate": 0.01, "device": "cpu"},
    "privacy": {"mode": "dp-sgd", "epsilon": 8.0, "delta": 1e-3, "clip_norm": 1.0},
    "institutions": [{"name": name, "data": f"{name}.jsonl"} for name in NAMES],
}

if __name__ == "__main__":
    main()
