"""Units, labels, kept columns, selections and fingerprints of loaded rows."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fedft.data.examples import DataSet, load_data_set, select
from fedft.errors import BadRecord, ConfigError, DataError
from tests.tiny import classification_rows, write_jsonl


def load(folder: Path, rows: Sequence[dict[str, Any]], **options: Any) -> DataSet:
    return load_data_set(write_jsonl(folder / "rows.jsonl", list(rows)), fields=("text", "label"), **options)


def test_without_a_unit_column_each_row_is_a_unit(tmp_path: Path) -> None:
    data = load(tmp_path, [{"text": "same", "label": "a"}] * 3)
    assert len({example.unit for example in data.examples}) == 3


def test_one_number_is_one_unit_however_it_is_written(tmp_path: Path) -> None:
    units: list[Any] = [7, 7.0, "7", True, 0.5]
    data = load(tmp_path, [{"text": "x", "label": "a", "u": unit} for unit in units], unit_column="u")
    assert [example.unit for example in data.examples] == ["7", "7", "7", "True", "0.5"]


@pytest.mark.parametrize("unit", [None, "", "  ", float("nan"), float("inf"), ["p"], {"p": 1}], ids=repr)
def test_a_row_without_a_unit_is_refused_never_pooled_with_others(unit: object, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "x", "label": "a", "u": "p"}, {"text": "x", "label": "a", "u": unit}]
    with pytest.raises(BadRecord, match='row 2, field "u"'):
        load(tmp_path, rows, unit_column="u")


def test_labels_may_be_numbers_and_are_compared_as_words(tmp_path: Path) -> None:
    data = load(tmp_path, [{"text": "x", "label": 3}, {"text": "y", "label": "3"}], labels=("3",), label_field="label")
    assert [example.fields["label"] for example in data.examples] == ["3", "3"]


def test_an_unknown_label_is_an_error_or_counted(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": "a"}, {"text": "x", "label": "zebra"}]
    with pytest.raises(BadRecord, match='row 2, field "label"') as caught:
        load(tmp_path, rows, labels=("a", "b"), label_field="label")
    assert "zebra" not in str(caught.value)
    assert load(tmp_path, rows, labels=("a", "b"), label_field="label", on_bad_record="skip").skipped == 1


def test_optional_columns_become_empty_and_kept_ones_stay_away_where_missing(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "x", "label": "a", "site": 4}, {"text": "x", "label": "a", "input": "i"}]
    data = load(tmp_path, rows, optional_fields=("input",), keep=("site",))
    assert [dict(example.fields) for example in data.examples] == [
        {"text": "x", "label": "a", "input": "", "site": "4"},
        {"text": "x", "label": "a", "input": "i"},
    ]


def test_other_columns_are_not_read(tmp_path: Path) -> None:
    data = load(tmp_path, [{"text": "x", "label": "a", "diary": "private"}])
    assert data.examples[0].fields.keys() == {"text", "label"}


def test_all_rows_skipped_is_an_error_that_says_how_many(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 skipped"):
        load(tmp_path, [{"label": "a"}] * 2, on_bad_record="skip")


def test_the_policy_for_bad_rows_is_one_of_two_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on_bad_record"):
        load(tmp_path, [{"text": "x", "label": "a"}], on_bad_record="ignore")


def test_a_selection_keeps_row_numbers_and_units_and_has_its_own_fingerprint(tmp_path: Path) -> None:
    data = load(tmp_path, classification_rows(9, units=3), unit_column="patient")
    part = select(data, [7, 2])
    assert part.examples == (data.examples[7], data.examples[2])
    assert part.fingerprint != data.fingerprint
    assert select(data, range(9)).fingerprint == data.fingerprint


@pytest.mark.parametrize("change", [{"text": "other"}, {"label": "b"}, {"patient": "q"}], ids=str)
def test_every_value_read_is_in_the_fingerprint(change: dict[str, str], tmp_path: Path) -> None:
    row = {"text": "x", "label": "a", "patient": "p"}
    found = {load(tmp_path, [row | extra], unit_column="patient").fingerprint for extra in ({}, change)}
    assert len(found) == 2


def test_an_error_about_a_row_survives_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(BadRecord("rows.csv", 3, "text", "expected text")))
    assert (error.file, error.row, error.field) == ("rows.csv", 3, "text")
    assert str(error) == str(BadRecord("rows.csv", 3, "text", "expected text"))
