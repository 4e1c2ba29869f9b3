"""The committed data is what the committed generators write, and no word alone gives a label away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
DATA = SCENARIOS / "synthetic" / "data"
LARGEST_TOTAL = 3_000_000


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def test_making_the_data_again_gives_the_same_bytes(tmp_path: Path) -> None:
    script = [sys.executable, str(SCENARIOS / "synthetic" / "make.py"), "--out", str(tmp_path)]
    subprocess.run(script, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in DATA.iterdir()}
    assert sum(map(len, made.values())) < LARGEST_TOTAL


def test_patients_have_several_notes_and_belong_to_one_hospital() -> None:
    notes = rows("hospitals-train.jsonl")
    counts = Counter(row["patient"] for row in notes)
    homes: dict[str, set[str]] = defaultdict(set)
    for row in notes:
        homes[row["patient"]].add(row["hospital"])
    assert all(len(home) == 1 for home in homes.values())
    assert {1, 2, 3} == set(counts.values())
    assert len({row["hospital"] for row in notes}) == 4


def test_hospitals_differ_in_size_and_case_mix() -> None:
    notes = rows("hospitals-train.jsonl")
    mixes: dict[str, Counter[str]] = defaultdict(Counter)
    for row in notes:
        mixes[row["hospital"]][row["label"]] += 1
    assert len({mix.most_common(1)[0][0] for mix in mixes.values()}) == 4
    sizes = sorted(mix.total() for mix in mixes.values())
    assert sizes[-1] > 1.5 * sizes[0]


@pytest.mark.parametrize(
    ("train", "evaluation"), [("hospitals-train", "hospitals-evaluation"), ("banks-train", "banks-evaluation")]
)
def test_evaluation_rows_are_of_nobody_and_have_every_label(train: str, evaluation: str) -> None:
    public = rows(f"{evaluation}.jsonl")
    assert {row["label"] for row in public} == {row["label"] for row in rows(f"{train}.jsonl")}
    assert not {"patient", "customer", "hospital", "bank"} & set().union(*public)


@pytest.mark.parametrize(("name", "limit"), [("hospitals-train.jsonl", 0.5), ("banks-train.jsonl", 0.7)])
def test_no_single_word_gives_a_label_away(name: str, limit: float) -> None:
    """The best word for a label, used as a rule for it, has an F1 below the limit."""
    with_word: dict[str, Counter[str]] = defaultdict(Counter)
    label_counts: Counter[str] = Counter()
    for row in rows(name):
        label_counts[row["label"]] += 1
        for word in set(row["text"].lower().replace(",", " ").replace(".", " ").split()):
            with_word[word][row["label"]] += 1
    for label, count in label_counts.items():
        best = max(2 * seen[label] / (count + seen.total()) for seen in with_word.values())
        assert best < limit, f"one word finds {label} with F1 {best:.2f}"
