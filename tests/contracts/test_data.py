"""The guarantees of fedft/data, one by one: what an error may say, what a row must have, who is clipped once."""

from __future__ import annotations

import io
import json
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from rich.console import Console
from rich.traceback import Traceback

from fedft.data.examples import DataSet, load_data_set
from fedft.data.formats import collate, encode_classification, encode_instruction
from fedft.data.quality import quality_report, require_trainable
from fedft.errors import DataError, FedftError
from fedft.randomness import SecureStream
from fedft.training.local import LocalPlan, physical_batches
from tests.tiny import classification_rows, tokenizer_into, write_jsonl

CANARY = "zq7canary"
GOOD = {"text": "w1", "label": "a", "unit": "u1"}


def everything_said(error: BaseException) -> str:
    """Text, repr, attributes and traceback of an error and of all it was raised from or while handling."""
    said, todo, seen = [], [error], set()
    while todo:
        current = todo.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        said += [str(current), repr(current), repr(current.args), repr(vars(current))]
        said += traceback.format_exception(current)
        todo += [linked for linked in (current.__cause__, current.__context__) if linked is not None]
        todo += [arg for arg in current.args if isinstance(arg, BaseException)]
    screen = io.StringIO()
    Console(file=screen, width=400).print(Traceback.from_exception(type(error), error, error.__traceback__))
    return "".join(said) + screen.getvalue()


@pytest.fixture(autouse=True)
def nothing_else_is_said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No log record at any level, no warning and no line on the terminal holds the canary."""
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    out, err = capfd.readouterr()
    said = [caplog.text, out, err, *(record.getMessage() for record in caplog.records), *map(str, caught)]
    assert CANARY not in "".join(said)


def jsonl(*lines: str | bytes) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        raw = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n"
        (folder / "rows.jsonl").write_bytes(raw)
        return str(folder / "rows.jsonl")

    return write


def json_rows(*rows: dict[str, Any]) -> Callable[[Path], str]:
    return jsonl(*(json.dumps(row) for row in rows))


def comma_separated(content: bytes) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "rows.csv").write_bytes(content)
        return str(folder / "rows.csv")

    return write


def columnar(*rows: dict[str, Any], cut: int = 0) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        path = folder / "rows.parquet"
        parquet.write_table(pa.Table.from_pylist(list(rows)), path, compression="none", use_dictionary=False)
        path.write_bytes(path.read_bytes()[: -cut or None])
        return str(path)

    return write


def damaged_parquet(folder: Path) -> str:
    path = Path(columnar(*[GOOD | {"text": CANARY * 50}] * 200)(folder))
    raw = bytearray(path.read_bytes())
    raw[4:40] = b"\xff" * 36
    path.write_bytes(raw)
    return str(path)


def saved_folder(*rows: dict[str, Any]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        datasets.Dataset.from_list(list(rows)).save_to_disk(folder / "saved")
        return f"datasets:{folder / 'saved'}"

    return write


def cut_folder(folder: Path) -> str:
    source = saved_folder(*[GOOD | {"text": CANARY * 50}] * 20)(folder)
    arrow = next((folder / "saved").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:300])
    return source


HOSTILE = {
    "no-object": jsonl(f'{{"text": "{CANARY}'),
    "another-value": jsonl(json.dumps([CANARY])),
    "not-utf-8": jsonl(b'{"text": "' + CANARY.encode() + b'\xff", "label": "a", "unit": "u"}'),
    "lone-surrogate": jsonl(f'{{"text": "{CANARY}\\ud800", "label": "a", "unit": "u"}}'),
    "lone-surrogate-unit": jsonl(f'{{"text": "w1", "label": "a", "unit": "{CANARY}\\ud800"}}'),
    "deep": jsonl('{"' + CANARY + '":' + "[" * 50_000),
    "text-list": json_rows(GOOD | {"text": [CANARY]}),
    "text-object": json_rows(GOOD | {"text": {CANARY: CANARY}}),
    "label-object": json_rows(GOOD | {"label": {"x": CANARY}}),
    "label-unknown": json_rows(GOOD, GOOD | {"label": CANARY}),
    "unit-list": json_rows(GOOD | {"unit": [CANARY]}),
    "no-text": json_rows({"label": CANARY, "unit": CANARY, CANARY: CANARY}),
    "no-label": json_rows({"text": CANARY, "unit": CANARY}),
    "no-unit": json_rows({"text": CANARY, "label": "a"}),
    "input-number": json_rows(GOOD | {"text": CANARY, "input": 3}),
    "kept-list": json_rows(GOOD | {"site": [CANARY]}),
    "csv-without-header": comma_separated(f"{CANARY},a,u1\nw2,b,u2\n".encode()),
    "csv-header-of-others": comma_separated(f"text,{CANARY}\nw1,a\n".encode()),
    "csv-too-many": comma_separated(f"text,label,unit\n{CANARY},a,u1,{CANARY}\n".encode()),
    "csv-too-few": comma_separated(f"text,label,unit\n{CANARY}\n".encode()),
    "csv-quotes": comma_separated(f'text,label,unit\n"{CANARY}"x,a,u1\n'.encode()),
    "csv-open-quote": comma_separated(f'text,label,unit\n"{CANARY},a,u1\n'.encode()),
    "csv-not-utf-8": comma_separated(f"text,label,unit\n{CANARY}".encode() + b"\xff,a,u1\n"),
    "csv-label-unknown": comma_separated(f"text,label,unit\nw1,{CANARY},u1\n".encode()),
    "parquet-other-columns": columnar({CANARY: "x"}),
    "parquet-text-list": columnar(GOOD | {"text": [CANARY]}),
    "parquet-label-unknown": columnar(GOOD | {"label": CANARY}),
    "parquet-cut": columnar(GOOD | {"text": CANARY * 100}, cut=10),
    "parquet-damaged": damaged_parquet,
    "datasets-other-columns": saved_folder({CANARY: "x"}),
    "datasets-label-unknown": saved_folder(GOOD | {"label": CANARY}),
    "datasets-cut": cut_folder,
}


def load(source: str, **options: Any) -> DataSet:
    chosen: dict[str, Any] = {
        "fields": ("text", "label"),
        "optional_fields": ("input",),
        "unit_column": "unit",
        "labels": ("a", "b"),
        "label_field": "label",
        "keep": ("site",),
        **options,
    }
    return load_data_set(source, **chosen)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_error_holds_a_records_content_in_whatever_it_was_raised_from(name: str, tmp_path: Path) -> None:
    source = HOSTILE[name](tmp_path)
    with pytest.raises(DataError) as caught:
        load(source)
    assert CANARY not in everything_said(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith(("no-", "label", "csv-too", "lone"))])
def test_no_error_after_skipping_holds_content_either(name: str, tmp_path: Path) -> None:
    source = HOSTILE[name](tmp_path)
    try:
        data = load(source, on_bad_record="skip")
    except DataError as error:
        assert CANARY not in everything_said(error)
    else:
        assert data.skipped > 0
        assert CANARY not in repr(data)


def test_no_repr_of_rows_tokens_or_batches_holds_content(tmp_path: Path) -> None:
    row = {"text": CANARY, "label": CANARY, "unit": CANARY, "site": CANARY}
    data = load(json_rows(row, row)(tmp_path), labels=None)
    encoded = encode_classification(
        data, tokenizer_into(tmp_path / "t"), text="text", label="label", labels=(CANARY,), max_length=8
    )
    batch = collate(encoded.examples, 0)
    shown = [data, *data.examples, encoded, *encoded.examples, batch, data.examples, [encoded]]
    said = "".join(repr(item) + str(item) + f"{item}" for item in shown)
    screen = io.StringIO()
    Console(file=screen, width=400).print(*shown)
    assert CANARY not in said + screen.getvalue()


def test_no_error_of_encoding_holds_content(tmp_path: Path) -> None:
    tokenizer = tokenizer_into(tmp_path / "t")
    data = load(json_rows(GOOD | {"label": CANARY, "text": CANARY})(tmp_path), labels=None)
    with pytest.raises(DataError) as label:
        encode_classification(data, tokenizer, text="text", label="label", labels=("a",), max_length=8)
    with pytest.raises(DataError) as one_class:
        require_trainable(data, (CANARY, "b"))
    path = json_rows({"instruction": f"{CANARY} {{0}}", "output": CANARY})(tmp_path)
    pairs = load_data_set(path, fields=("instruction", "output"), optional_fields=("input",))
    with pytest.raises(DataError) as no_room:
        encode_instruction(pairs, tokenizer, max_length=4)
    tokenizer.chat_template = "{{ raise_exception(messages[0]['content']) }}"
    with pytest.raises(DataError) as template:
        encode_instruction(pairs, tokenizer, max_length=64)
    for caught in (label, one_class, no_room, template):
        assert CANARY not in everything_said(caught.value)


def test_the_control_finds_what_a_chained_error_would_say() -> None:
    try:
        try:
            raise ValueError(CANARY)
        except ValueError:
            raise DataError("harmless words") from None
    except DataError as error:
        assert CANARY in everything_said(error)


def test_the_quality_report_holds_public_labels_and_counts_alone(tmp_path: Path) -> None:
    rows = [GOOD, GOOD | {"label": CANARY, "text": CANARY, "unit": CANARY, "site": CANARY}]
    report = quality_report(
        load(json_rows(*rows)(tmp_path), labels=None), text_fields=("text",), label_field="label", labels=("a",)
    )
    assert CANARY not in json.dumps(report)


values = st.one_of(
    st.none(), st.text(max_size=4), st.integers(), st.floats(), st.booleans(), st.lists(st.text(max_size=2), max_size=2)
)
some_rows = st.lists(
    st.one_of(
        st.fixed_dictionaries({}, optional=dict.fromkeys(("text", "label", "unit", "input", "site"), values)),
        st.fixed_dictionaries({"text": st.text(min_size=1), "label": st.sampled_from("ab"), "unit": values}),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(some_rows)
def test_every_row_has_its_fields_a_unit_and_a_known_label_or_is_counted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    source = json_rows(*rows)(tmp_path_factory.mktemp("rows"))
    try:
        data = load(source, on_bad_record="skip")
    except DataError:
        with pytest.raises(FedftError):
            load(source)
        return
    for example in data.examples:
        assert example.fields["text"].strip()
        assert example.fields["label"] in ("a", "b")
        assert example.unit.strip()
        assert all(isinstance(value, str) for value in example.fields.values())
    assert len(data.examples) + data.skipped == len(rows)
    if data.skipped:
        with pytest.raises(DataError):
            load(source)
    else:
        assert load(source) == data


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6) | st.none(), st.lists(st.integers(0, 11), unique=True, max_size=12))
def test_a_drawn_units_rows_are_in_one_physical_batch_and_nobody_elses(
    encoded_data: Any, physical: int, most_rows: int | None, drawn: list[int]
) -> None:
    """So a unit is clipped once, with the rows that it is allowed and without another's."""
    plan = LocalPlan((1.0,), 4, 0.5, None, physical_batch_size=physical, max_rows_per_unit=most_rows)
    units = np.array(drawn, dtype=np.int64)
    batches = list(physical_batches(encoded_data, units, plan, 0, SecureStream().uniform))
    rows = [len(encoded_data.units[unit]) for unit in drawn]
    expected = rows if most_rows is None else [min(most_rows, count) for count in rows]
    found = [int(count) for batch in batches for count in np.bincount(batch.units.numpy(), minlength=batch.unit_count)]
    assert sorted(found) == sorted(expected)
    assert all(len(batch.labels) <= physical or batch.unit_count == 1 for batch in batches)


@pytest.fixture(scope="module")
def encoded_data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("encoded")
    path = write_jsonl(folder / "rows.jsonl", classification_rows(40, units=12))
    data = load_data_set(path, fields=("text", "label"), unit_column="patient")
    encoded = encode_classification(
        data, tokenizer_into(folder / "t"), text="text", label="label", labels="abc", max_length=16
    )
    assert encoded.unit_count == 12
    return encoded
