"""Raw rows from files, without saying a word about what is in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from fedft.errors import DataError

RawRow = Mapping[str, object]
HUB_PREFIX = "datasets:"
_LONGEST_CSV_FIELD = 2**27
_T = TypeVar("_T")


@dataclass(frozen=True)
class Malformed:
    """Why a row cannot be used: the field, and a problem in words that quote nothing."""

    field: str
    problem: str


def open_rows(source: str | Path, *, columns: Sequence[str], required: Sequence[str]) -> Iterator[RawRow | Malformed]:
    """Rows of ``source`` one at a time, each with those of ``columns`` that it has.

    Raises DataError when the source is missing, of an unknown kind, unreadable, or has no column of a required name.
    """
    if str(source).startswith(HUB_PREFIX):
        return _hub_rows(str(source), columns, required)
    path = Path(source)
    if path.is_dir():
        return _folder_rows(path, None, str(source), columns, required)
    if not path.is_file():
        raise DataError(
            f"expected a data file at {source}, found none: check the path; it is relative to the TOML file"
        )
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix.lower() not in readers:
        raise DataError(
            f'expected a .jsonl, .csv or .parquet file, a datasets folder or "{HUB_PREFIX}NAME", found {source}: '
            "convert the file or rename it"
        )
    if path.stat().st_size == 0:
        raise DataError(f"expected rows in {source}, found an empty file: check that it was written whole")
    return readers[path.suffix.lower()](path, columns, required)


def _jsonl_rows(path: Path, columns: Sequence[str], required: Sequence[str]) -> Iterator[RawRow | Malformed]:
    """One object a line. Blank lines count as rows only when something follows them: the last newline is no row."""
    blanks = 0
    for line in _lines(path):
        if not line.strip():
            blanks += 1
            continue
        yield from [Malformed("(line)", "expected a JSON object, found an empty line")] * blanks
        blanks = 0
        yield _json_object(line)


def _json_object(line: bytes) -> RawRow | Malformed:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return Malformed("(line)", "expected a JSON object in UTF-8, found something else")
    return value if isinstance(value, dict) else Malformed("(line)", "expected a JSON object, found another JSON value")


def _lines(path: Path) -> Iterator[bytes]:
    with _guarded(path, lambda: path.open("rb")) as file:
        yield from file


def _csv_rows(path: Path, columns: Sequence[str], required: Sequence[str]) -> Iterator[RawRow | Malformed]:
    """Comma-separated with a header. Bytes that are not UTF-8 become surrogates, which the row's check refuses.

    Guarantee: a record that cannot be used and spans several lines, as after a quote that nobody closed, is a
    DataError: skipped as one row it would take along all rows that it swallowed.
    """
    csv.field_size_limit(_LONGEST_CSV_FIELD)
    with _guarded(path, lambda: path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")) as file:
        records = csv.reader(file, strict=True)
        header, _ = _next_record(records)
        if not isinstance(header, list):
            raise DataError(f"expected a header line in {path}, found none that can be read: write one")
        _require_columns(path, header, required)
        if any(header.count(name) > 1 for name in columns):
            raise DataError(f"{path}: expected each configured column once, found one twice: rename one of them")
        for row in count(1):
            record, lines = _next_record(records)
            if record is None:
                return
            if isinstance(record, list) and len(record) != len(header):
                record = Malformed("(line)", f"expected {len(header)} fields as in the header, found {len(record)}")
            if isinstance(record, Malformed) and lines > 1:
                raise DataError(
                    f"{path}, row {row}: {record.problem}, in a record of {lines} lines that may hold many rows: "
                    "correct its quotes; data.on_bad_record does not skip it"
                )
            if isinstance(record, Malformed):
                yield record
            else:
                yield {key: value for key, value in zip(header, record, strict=True) if key in columns}


def _next_record(records: Any) -> tuple[list[str] | Malformed | None, int]:
    """The next record that is not a blank line, and the lines it spans; None at the end."""
    while True:
        before = records.line_num
        try:
            record: list[str] | None = next(records, None)
        except csv.Error:
            problem = "expected comma-separated fields with balanced quotes, found something else"
            return Malformed("(line)", problem), records.line_num - before
        if record is None or record:
            return record, records.line_num - before


def _parquet_rows(path: Path, columns: Sequence[str], required: Sequence[str]) -> Iterator[RawRow | Malformed]:
    from pyarrow import parquet

    file = _guarded(path, lambda: parquet.ParquetFile(path))
    names = list(file.schema_arrow.names)
    _require_columns(path, names, required)
    batches = _guarded(path, lambda: file.iter_batches(columns=[name for name in columns if name in names]))
    while (batch := _guarded(path, lambda: next(batches, None))) is not None:
        rows: list[dict[str, object]] = _guarded(path, batch.to_pylist)
        yield from rows


def _hub_rows(source: str, columns: Sequence[str], required: Sequence[str]) -> Iterator[RawRow | Malformed]:
    """ "datasets:NAME", "datasets:NAME:SPLIT"; NAME may be a folder. The split is "train" unless named."""
    name, _, split = source.removeprefix(HUB_PREFIX).partition(":")
    if not name:
        raise DataError(f'expected "{HUB_PREFIX}NAME", found no name: write the name of a data set or a folder')
    if Path(name).is_dir():
        return _folder_rows(Path(name), split or None, source, columns, required)
    from datasets import load_dataset

    table = _guarded(source, lambda: load_dataset(name, split=split or "train"))
    return _table_rows(table, source, columns, required)


def _folder_rows(
    folder: Path, split: str | None, source: str, columns: Sequence[str], required: Sequence[str]
) -> Iterator[RawRow | Malformed]:
    from datasets import DatasetDict, load_from_disk

    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise DataError(f"expected a folder made by datasets' save_to_disk, found another at {source}: name a file")
    table = _guarded(source, lambda: load_from_disk(str(folder)))
    if isinstance(table, DatasetDict):
        chosen = split or ("train" if "train" in table else next(iter(table)) if len(table) == 1 else "")
        if chosen not in table:
            raise DataError(
                f'expected one split of {source}, found {len(table)} others: write "{HUB_PREFIX}FOLDER:SPLIT"'
            )
        table = table[chosen]
    return _table_rows(table, source, columns, required)


def _table_rows(
    table: Any, source: str, columns: Sequence[str], required: Sequence[str]
) -> Iterator[RawRow | Malformed]:
    """Rows of a datasets.Dataset; numbers of a ClassLabel column become their names."""
    _require_columns(source, list(table.column_names), required)
    present = [name for name in columns if name in table.column_names]
    class_names = {name: getattr(table.features[name], "names", None) for name in present}
    rows = _guarded(source, lambda: iter(table.select_columns(present)))
    while (row := _guarded(source, lambda: next(rows, None))) is not None:
        for name, names in class_names.items():
            if names and isinstance(row[name], int) and 0 <= row[name] < len(names):
                row[name] = names[row[name]]
        yield row


def _require_columns(source: str | Path, found: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in found]
    if missing:
        raise DataError(
            f"{source}: expected the columns {', '.join(required)}; found {len(found)} columns, "
            f"none named {' or '.join(missing)}: correct the column names in the federation file or in the data"
        )


def _guarded(source: str | Path, action: Callable[[], _T]) -> _T:
    """``action``'s result; a library's error becomes one that keeps its type's name alone."""
    problem = ""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - whatever a parser raises may quote the data
        problem = type(error).__name__
    raise DataError(f"cannot read {source} ({problem}): check that it is whole, readable and of the kind its name says")
