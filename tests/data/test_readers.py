"""Every kind of source gives the same rows, and every broken one a DataError that says what to do."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from fedft.data.examples import Example, load_data_set
from fedft.errors import BadRecord, DataError

ROWS = [
    {"text": "plain words", "label": "a", "patient": "p1", "note": "kept"},
    {"text": 'comma, "quote"\nand a second line', "label": "b", "patient": "p2", "note": ""},
    {"text": "Überweisung 中文", "label": "a", "patient": "p1", "note": "kept too"},
]


def jsonl(folder: Path) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def jsonl_without_last_newline(folder: Path) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\ufeff" + "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8")
    return str(path)


def comma_separated(folder: Path) -> str:
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return str(folder / "rows.csv")


def columnar(folder: Path) -> str:
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
    return str(folder / "rows.parquet")


def saved_folder(folder: Path) -> str:
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    return str(folder / "saved")


def named_folder(folder: Path) -> str:
    return "datasets:" + saved_folder(folder)


def named_split(folder: Path) -> str:
    split = datasets.DatasetDict(
        {"dev": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    )
    split.save_to_disk(folder / "splits")
    return f"datasets:{folder / 'splits'}:dev"


def train_split(folder: Path) -> str:
    split = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS), "x": datasets.Dataset.from_list(ROWS[:1])})
    split.save_to_disk(folder / "splits")
    return str(folder / "splits")


SOURCES = [
    jsonl, jsonl_without_last_newline, comma_separated, columnar, saved_folder, named_folder, named_split, train_split,
]  # fmt: skip


@pytest.mark.parametrize("write", SOURCES, ids=lambda write: write.__name__)
def test_every_kind_of_source_gives_the_same_rows(write: Callable[[Path], str], tmp_path: Path) -> None:
    source = write(tmp_path)
    data = load_data_set(source, fields=("text", "label"), unit_column="patient", keep=("note",))
    expected = [
        Example(number, row["patient"], {key: row[key] for key in ("text", "label", "note")})
        for number, row in enumerate(ROWS, start=1)
    ]
    assert list(data.examples) == expected
    assert (data.name, data.skipped) == (source, 0)


def test_the_same_rows_have_one_fingerprint_whatever_the_file(tmp_path: Path) -> None:
    found = set()
    for number, write in enumerate((jsonl, comma_separated, columnar, saved_folder)):
        folder = tmp_path / str(number)
        folder.mkdir()
        found.add(load_data_set(write(folder), fields=("text", "label"), unit_column="patient").fingerprint)
    assert len(found) == 1


def test_class_numbers_become_class_names(tmp_path: Path) -> None:
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"]))
    table = datasets.Dataset.from_dict({"text": ["x", "y", "z"], "label": [1, 0, 1]}, features=features)
    table.save_to_disk(tmp_path / "saved")
    data = load_data_set(tmp_path / "saved", fields=("text", "label"))
    assert [example.fields["label"] for example in data.examples] == ["yes", "no", "yes"]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def text_folder(path: Path) -> Path:
    path.mkdir()
    (path / "notes.txt").write_text("x")
    return path


def many_splits(path: Path) -> Path:
    one = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"dev": one, "test": one}).save_to_disk(path)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "absent.jsonl", "found none: check the path"),
        (lambda folder: write(folder / "rows.jsonl", b""), "found an empty file"),
        (lambda folder: write(folder / "rows.csv", b""), "found an empty file"),
        (lambda folder: write(folder / "rows.parquet", b""), "found an empty file"),
        (lambda folder: write(folder / "rows.jsonl", b"\n\n"), "expected at least one usable row"),
        (lambda folder: write(folder / "rows.csv", b"text,label\n"), "expected at least one usable row"),
        (lambda folder: write(folder / "rows.csv", b"\n\n"), "expected a header line"),
        (lambda folder: write(folder / "rows.csv", b"text,label,text\nx,a,y\n"), "configured column once"),
        (lambda folder: write(folder / "rows.parquet", b"PAR1 no table"), "cannot read"),
        (lambda folder: write(folder / "rows.xlsx", b"x"), "expected a .jsonl, .csv or .parquet file"),
        (lambda folder: text_folder(folder / "other"), "save_to_disk"),
        (lambda folder: many_splits(folder / "splits"), "expected one split"),
        (lambda folder: "datasets:" + str(many_splits(folder / "splits")) + ":absent", "expected one split"),
        (lambda folder: "datasets:", "found no name"),
        (lambda folder: "datasets:no/such-data-set-here", "cannot read"),
    ],
    ids=[
        "missing", "empty-jsonl", "empty-csv", "empty-parquet", "blank-lines", "header-alone", "no-header",
        "column-twice", "not-parquet", "unknown-kind", "another-folder", "no-train-split", "no-such-split", "no-name",
        "no-such-name",
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_used(
    make: Callable[[Path], Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=words):
        load_data_set(make(tmp_path), fields=("text", "label"))


@pytest.mark.parametrize("write", SOURCES, ids=lambda write: write.__name__)
def test_a_wrong_column_is_named_and_the_columns_found_are_not(write: Callable[[Path], str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="txt") as caught:
        load_data_set(write(tmp_path), fields=("txt", "label"))
    assert "note" not in str(caught.value)


def test_a_missing_unit_column_is_an_error_not_a_unit_per_row(tmp_path: Path) -> None:
    for make in (jsonl, comma_separated, columnar):
        with pytest.raises(DataError, match="customer"):
            load_data_set(make(tmp_path), fields=("text", "label"), unit_column="customer")


def test_a_parquet_file_cut_short_is_an_error(tmp_path: Path) -> None:
    path = Path(columnar(tmp_path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="check that it is whole"):
        load_data_set(path, fields=("text", "label"))


def test_reading_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        load_data_set(jsonl(tmp_path), fields=("text", "label"))
        load_data_set(comma_separated(tmp_path), fields=("text", "label"))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("lines", "row", "field"),
    [
        ([b'{"text": "x", "label": "a"}', b"{broken"], 2, "(line)"),
        ([b'["text"]'], 1, "(line)"),
        ([b'{"text": "x", "label": "a"}', b"", b'{"text": "x", "label": "a"}'], 2, "(line)"),
        ([b'{"text": "\xff", "label": "a"}'], 1, "(line)"),
        ([b"[" * 100_000], 1, "(line)"),
        ([b'{"text": "x", "label": ' + b"9" * 5000 + b"}"], 1, "(line)"),
        ([b'{"text": "\\ud800", "label": "a"}'], 1, "text"),
        ([b'{"text": "x", "label": "a"}', b'{"text": " ", "label": "a"}'], 2, "text"),
        ([b'{"text": 7, "label": "a"}'], 1, "text"),
        ([b'{"text": null, "label": "a"}'], 1, "text"),
        ([b'{"text": "x", "label": ["a"]}'], 1, "label"),
        ([b'{"text": "x", "label": NaN}'], 1, "label"),
        ([b'{"text": "x"}'], 1, "label"),
    ],
)
def test_a_malformed_line_is_named_by_file_row_and_field(
    lines: list[bytes], row: int, field: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.jsonl", b"\n".join(lines) + b"\n")
    with pytest.raises(BadRecord) as caught:
        load_data_set(path, fields=("text", "label"))
    assert (caught.value.file, caught.value.row, caught.value.field) == (str(path), row, field)
    assert str(path) in str(caught.value)
    assert f"row {row}" in str(caught.value)
    assert f'"{field}"' in str(caught.value)


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (b"text,label\nx,a\ny\n", 2),
        (b"text,label\nx,a,b\n", 1),
        (b'text,label\n"x"y,a\n', 1),
        (b"text,label\n\xff,a\n", 1),
    ],
    ids=["too-few", "too-many", "quotes", "not-utf-8"],
)
def test_a_malformed_record_of_a_csv_file(content: bytes, row: int, tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=f"row {row},"):
        load_data_set(write(tmp_path / "rows.csv", content), fields=("text", "label"))


def test_skipped_rows_are_counted_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    lines = [b'{"text": "x", "label": "a"}', b"{", b"", b'{"text": "", "label": "a"}', b'{"text": "y", "label": "a"}']
    path = write(tmp_path / "rows.jsonl", b"\n".join(lines) + b"\n")
    data = load_data_set(path, fields=("text", "label"), on_bad_record="skip")
    assert ([example.row for example in data.examples], data.skipped) == ([1, 5], 3)


def test_skipping_goes_on_after_a_broken_csv_record(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", b'text,label\nx,a\n"y"z,a\nw,b\nv\nu,b\n')
    data = load_data_set(path, fields=("text", "label"), on_bad_record="skip")
    assert ([example.fields["text"] for example in data.examples], data.skipped) == (["x", "w", "u"], 2)


QUOTED = b"text,label\n" + b"".join(b"w%d,a\n" % number for number in range(1, 10))


@pytest.mark.parametrize("on_bad_record", ["error", "skip"])
@pytest.mark.parametrize(
    ("broken", "lines"),
    [
        (QUOTED.replace(b"w3", b'"w3'), 7),
        (QUOTED.replace(b"w3", b'"w3').replace(b"w7", b'"w7"'), 5),
        (QUOTED.replace(b"w3", b'"w3').replace(b"w7,a", b'w7",a,a'), 5),
        (b"\n\n".join(QUOTED.replace(b"w3", b'"w3').split(b"\n")), 14),
    ],
    ids=["to-the-end", "to-the-next-quote", "to-another-stray-quote", "among-blank-lines"],
)
def test_a_quote_that_nobody_closed_is_an_error_and_skips_no_rows(
    broken: bytes, lines: int, on_bad_record: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"row 3: .* in a record of {lines} lines") as caught:
        load_data_set(write(tmp_path / "rows.csv", broken), fields=("text", "label"), on_bad_record=on_bad_record)
    assert "w4" not in str(caught.value)


def test_a_field_of_many_lines_is_a_row_and_blank_lines_before_a_broken_one_are_not_its_own(tmp_path: Path) -> None:
    text = "\n".join(["a line"] * 300)
    content = f'text,label\n"{text}",a\n\n\n\nv\nx,b\n'.encode()
    data = load_data_set(write(tmp_path / "rows.csv", content), fields=("text", "label"), on_bad_record="skip")
    assert ([example.fields["text"] for example in data.examples], data.skipped) == ([text, "x"], 1)
