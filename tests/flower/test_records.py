"""What crosses is one field of bytes, and everything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import UpdateError
from fedft.flower.records import BODY, RECORD, body_content, body_of


def content(**fields: Any) -> RecordDict:
    return RecordDict({RECORD: ConfigRecord(fields)})


@pytest.mark.parametrize("body", [b"", b"FEDFTREQ...", bytes(range(256))])
def test_a_body_comes_back(body: bytes) -> None:
    assert body_of(body_content(body)) == body


def test_a_body_is_all_there_is() -> None:
    record = body_content(b"abc")
    assert list(record) == [RECORD] == ["fedft"]
    assert dict(record[RECORD]) == {BODY: b"abc"} == {"body": b"abc"}


OTHERS = {
    "empty": RecordDict(),
    "another-name": RecordDict({"other": ConfigRecord({BODY: b""})}),
    "one-record-more": RecordDict({**body_content(b"x"), "num-examples": MetricRecord({"n": 10})}),
    "arrays-beside": RecordDict({**body_content(b"x"), "arrays": ArrayRecord()}),
    "arrays-instead": RecordDict({RECORD: ArrayRecord()}),
    "metrics-instead": RecordDict({RECORD: MetricRecord({BODY: 17})}),
    "nothing-in-it": content(),
    "a-field-more": content(body=b"x", why="patient 17"),
    "text": content(body="patient 17"),
    "a-list": content(body=[b"x"]),
    "a-number": content(body=17),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_content_is_refused_without_a_word_of_it(name: str) -> None:
    with pytest.raises(UpdateError) as caught:
        body_of(OTHERS[name])
    assert "17" not in str(caught.value)


values = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=20), st.binary(max_size=20), st.booleans(),
    st.lists(st.text(max_size=5), max_size=3),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([BODY, "update", "x"]), values, max_size=3))
def test_no_fields_whatever_do_anything_else_than_be_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        assert body_of(content(**fields)) == fields[BODY]
    except UpdateError:
        assert fields.keys() != {BODY} or not isinstance(fields[BODY], bytes)
