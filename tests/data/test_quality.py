"""Counts an institution keeps for itself, and what is refused before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedft.data.examples import DataSet, load_data_set
from fedft.data.quality import quality_report, require_batch, require_trainable
from fedft.errors import DataError
from tests.tiny import write_jsonl


def load(folder: Path, rows: list[dict[str, Any]], **options: Any) -> DataSet:
    return load_data_set(write_jsonl(folder / "rows.jsonl", rows), fields=("text", "label"), **options)


def test_the_report_counts(tmp_path: Path) -> None:
    rows = [
        {"text": "twelve chars", "label": "b", "u": "1"},
        {"text": "twelve chars", "label": "a", "u": "1"},
        {"text": "x" * 16, "label": "a", "u": "2", "input": "more"},
        {"text": "", "label": "a", "u": "2"},
    ]
    data = load(tmp_path, rows, unit_column="u", optional_fields=("input",), on_bad_record="skip")
    report = quality_report(data, text_fields=("text", "input"), label_field="label", labels=("a", "b", "c"))
    assert json.loads(json.dumps(report)) == {
        "rows": 3,
        "skipped": 1,
        "units": 2,
        "rows_per_unit": {"1": 1, "2": 1},
        "exact_duplicates": 1,
        "empty": {"text": 0, "input": 2},
        "characters": {"16": 2, "32": 1},
        "fingerprint": data.fingerprint,
        "labels": {"a": 2, "b": 1, "c": 0},
        "other_labels": 0,
    }


def test_a_label_that_is_not_public_is_counted_and_not_named(tmp_path: Path) -> None:
    data = load(tmp_path, [{"text": "x", "label": "a"}, {"text": "x", "label": "zebra"}])
    report = quality_report(data, text_fields=("text",), label_field="label", labels=("a",))
    assert (report["labels"], report["other_labels"]) == ({"a": 1}, 1)
    assert "zebra" not in json.dumps(report)


def test_instruction_data_have_no_label_balance(tmp_path: Path) -> None:
    data = load(tmp_path, [{"text": "x", "label": "a"}])
    assert "labels" not in quality_report(data, text_fields=("text",), label_field=None)


def test_one_class_only_is_refused_without_naming_it(tmp_path: Path) -> None:
    data = load(tmp_path, [{"text": "x", "label": "zebra"}] * 3)
    with pytest.raises(DataError, match="one class only") as caught:
        require_trainable(data, ("zebra", "horse"))
    assert "zebra" not in str(caught.value)
    with pytest.raises(DataError, match="one class only"):
        require_trainable(data, ("zebra",))


def test_two_classes_and_instruction_data_are_accepted(tmp_path: Path) -> None:
    data = load(tmp_path, [{"text": "x", "label": "a"}, {"text": "x", "label": "b"}])
    require_trainable(data, ("a", "b", "c"))
    require_trainable(load(tmp_path, [{"text": "x", "label": "a"}]), None)


def test_fewer_units_than_a_batch_are_refused_without_saying_how_many() -> None:
    require_batch(16, 16)
    with pytest.raises(DataError, match=r"^bank.csv: .*batch_size = 16 privacy units, found fewer") as caught:
        require_batch(13, 16, name="bank.csv")
    assert "13" not in str(caught.value)
