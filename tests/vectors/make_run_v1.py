"""Write run-v1/: a whole run of version 1 of every format, kept for ever. tests/audit/test_verify.py verifies it.

    python -m tests.vectors.make_run_v1

Not to be made anew while the version stands: a run that was made once must be verified by every later fedft. Two tiny
institutions, two private rounds, made-up rows, paths relative to a folder that is gone; a folder run-v2 follows when a
format changes.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from fedft.config import FederationConfig
from fedft.simulation.run import play
from tests.tiny import classification_rows, tiny_bert, write_jsonl

TARGET = Path(__file__).with_name("run-v1")
NAMES = ("north", "south")


def main() -> None:
    if TARGET.exists():
        raise SystemExit(f"expected no {TARGET.name}, found it: a run of version 1 is made once")
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        Path("base").mkdir()
        tiny_bert(Path("base"))
        for number, name in enumerate(NAMES, start=1):
            write_jsonl(Path(f"{name}.jsonl"), list(classification_rows(90, seed=number, units=40)))
        write_jsonl(Path("public.jsonl"), list(classification_rows(40, seed=99)))
        play(FederationConfig.model_validate(BODY), folder=Path("run"))
        shutil.copytree("run", TARGET)


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
