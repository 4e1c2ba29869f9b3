"""Rows of a data set and the privacy unit each belongs to.

Guarantee: no exception, repr or message made here holds a record's content. What a parser says is dropped whole, its
context included: errors are raised outside the ``except`` block that caught it. Column names found in a file are
content too, since the first line of a CSV file without a header is a record.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedft.data.readers import Malformed, RawRow, open_rows
from fedft.errors import BadRecord, ConfigError, DataError
from fedft.types import Digest

ROW_LABEL = "fedft/v1/data-set"


@dataclass(frozen=True, repr=False, slots=True)
class Example:
    """One usable row. ``row`` counts from 1 in its file; ``unit`` is whom differential privacy protects."""

    row: int
    unit: str
    fields: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Example(row={self.row})"


@dataclass(frozen=True, repr=False)
class DataSet:
    """Usable rows in file order. ``fingerprint`` is evidence of what was read, never the data set's identity.

    It is as confidential as the rows: who knows all of them but one can test guesses of that one against it. It stays
    in the institution's ledger and quality report.
    """

    name: str
    examples: tuple[Example, ...]
    skipped: int
    fingerprint: Digest

    def __repr__(self) -> str:
        return f"DataSet(name={self.name!r}, rows={len(self.examples)}, fingerprint={self.fingerprint[:12]!r})"


@dataclass(frozen=True)
class _Columns:
    """Which columns a row needs and what they may hold. Only the text columns insist on strings."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    keep: tuple[str, ...]
    unit: str | None
    label: str | None
    labels: frozenset[str] | None


def load_data_set(
    source: str | Path,
    *,
    fields: Sequence[str],
    optional_fields: Sequence[str] = (),
    unit_column: str | None = None,
    on_bad_record: str = "error",
    labels: Sequence[str] | None = None,
    label_field: str | None = None,
    keep: Sequence[str] = (),
) -> DataSet:
    """Read a .jsonl, .csv or .parquet file, a folder of ``datasets``' save_to_disk, or "datasets:NAME[:SPLIT]".

    Guarantee: every row of the result has a non-empty string in each of ``fields`` and a non-empty unit; with
    ``labels``, its label is one of them. Every other row is an error, or counted in ``skipped``.

    Parameters
    ----------
    fields
        Required columns.
    optional_fields
        Columns that become "" where they are missing or null.
    unit_column
        Column that names the privacy unit; None: each row is a unit of its own.
    on_bad_record
        "error" or "skip".
    keep
        Further columns, kept where a row has them.

    Raises
    ------
    BadRecord
        A row cannot be used and ``on_bad_record`` is "error".
    DataError
        No such file, not readable, a required column is nowhere, or no usable row.
    """
    if on_bad_record not in ("error", "skip"):
        raise ConfigError('expected on_bad_record "error" or "skip", found another word: correct data.on_bad_record')
    known = frozenset(labels) if labels is not None and label_field is not None else None
    columns = _Columns(tuple(fields), tuple(optional_fields), tuple(keep), unit_column, label_field, known)
    name, examples, skipped = str(source), [], 0
    wanted = dict.fromkeys([*fields, *optional_fields, *keep, *((unit_column,) if unit_column else ())])
    must_have = [*fields, *((unit_column,) if unit_column else ())]
    for row, raw in enumerate(open_rows(source, columns=tuple(wanted), required=tuple(must_have)), start=1):
        example = _example(row, raw, columns)
        if isinstance(example, Example):
            examples.append(example)
        elif on_bad_record == "skip":
            skipped += 1
        else:
            raise BadRecord(name, row, example.field, example.problem)
    if not examples:
        raise DataError(
            f"{name}: expected at least one usable row, found none ({skipped} skipped): "
            "check that the file is complete and that the configured columns are its own"
        )
    return DataSet(name, tuple(examples), skipped, _fingerprint(examples))


def select(data: DataSet, rows: Iterable[int]) -> DataSet:
    """The examples at these positions of ``data.examples`` (from 0), in the given order; their row numbers stay."""
    chosen = tuple(data.examples[position] for position in rows)
    return replace(data, examples=chosen, skipped=0, fingerprint=_fingerprint(chosen))


def _example(row: int, raw: RawRow | Malformed, columns: _Columns) -> Example | Malformed:
    if isinstance(raw, Malformed):
        return raw
    values: dict[str, str] = {}
    for column in columns.required:
        value = _text(raw.get(column), exact=column != columns.label)
        if isinstance(value, str) and value.strip():
            values[column] = value
        else:
            return Malformed(column, value.problem if isinstance(value, Malformed) else "expected text, found it empty")
    for column in (*columns.optional, *columns.keep):
        if raw.get(column) is None:
            values.update({column: ""} if column in columns.optional else {})
            continue
        value = _text(raw[column], exact=column in columns.optional)
        if isinstance(value, Malformed):
            return Malformed(column, value.problem)
        values[column] = value
    if columns.labels is not None and columns.label is not None and values[columns.label] not in columns.labels:
        return Malformed(columns.label, f"expected one of the task's {len(columns.labels)} labels, found another value")
    unit = str(row) if columns.unit is None else _text(raw.get(columns.unit), exact=False)
    if isinstance(unit, str) and unit.strip():
        return Example(row, unit, values)
    return Malformed(
        str(columns.unit), unit.problem if isinstance(unit, Malformed) else "expected a unit, found it empty"
    )


def _text(value: object, *, exact: bool) -> str | Malformed:
    """A string as it is; unless ``exact``, a number or truth value as its string. Never quotes the value.

    7 and 7.0 are one number, so they name one unit; NaN is how tables spell a missing one.
    """
    if value is None:
        return Malformed("", "expected a value, found none")
    if not exact and isinstance(value, float) and not math.isfinite(value):
        return Malformed("", "expected a value, found a number that is not finite")
    if not exact and isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not exact and isinstance(value, bool | int | float):
        return str(value)
    if not isinstance(value, str):
        return Malformed("", f"expected text, found {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        return Malformed("", "expected valid UTF-8, found bytes or escapes that are not")
    return value


def _kind(value: object) -> str:
    kinds = ((bool, "a truth value"), (int | float, "a number"), (list, "a list"), (Mapping, "an object"))
    return next((word for kind, word in kinds if isinstance(value, kind)), "another type")


def _fingerprint(examples: Iterable[Example]) -> Digest:
    digest = hashlib.sha256(ROW_LABEL.encode())
    for line in _canonical(examples):
        digest.update(line)
    return Digest(digest.hexdigest())


def _canonical(examples: Iterable[Example]) -> Iterator[bytes]:
    encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
    return (encoder.encode([example.unit, example.fields]).encode() + b"\n" for example in examples)
