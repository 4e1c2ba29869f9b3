"""Writes the scenarios' data. The same seed gives the same bytes on every machine; the files are committed.

python scenarios/synthetic/make.py                   # writes scenarios/synthetic/data/
python scenarios/synthetic/make.py --out build/data
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the generators are scripts beside this one, not a package

import banks  # noqa: E402
import hospitals  # noqa: E402
import instructions  # noqa: E402
from grammar import Row, write_rows  # noqa: E402

SEED = 1


def files(seed: int) -> Mapping[str, Iterable[Row]]:
    """Rows by file name. Only the training files are private in the stories; the others are public."""
    return {
        "hospitals-train.jsonl": hospitals.training_rows(seed),
        "hospitals-evaluation.jsonl": hospitals.evaluation_rows(seed, 800),
        "hospitals-reference.jsonl": hospitals.reference_rows(seed, 320),
        "banks-train.jsonl": banks.training_rows(seed),
        "banks-evaluation.jsonl": banks.public_rows("evaluation", seed, 640, 400),
        "banks-reference.jsonl": banks.public_rows("reference", seed, 240, 150),
        "instructions-train.jsonl": instructions.training_rows(seed, 250),
        "instructions-evaluation.jsonl": instructions.evaluation_rows(seed, 300),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the scenarios' data.")
    parser.add_argument("--out", type=Path, default=HERE / "data")
    arguments = parser.parse_args()
    for name, rows in files(SEED).items():
        write_rows(arguments.out / name, rows)
        sys.stdout.write(f"{arguments.out / name}\n")


if __name__ == "__main__":
    main()
