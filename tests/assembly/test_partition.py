"""Whole units are dealt, every one of them once; the same seed deals the same."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.assembly.partition import partition
from fedft.config import Institution, Partition
from fedft.data.examples import DataSet, Example, load_data_set
from fedft.errors import ConfigError, DataError
from fedft.types import Digest
from tests.tiny import classification_rows, write_jsonl

REFUSED_NAMES = re.compile(
    r'rows\.jsonl, row \d, field "site": expected '
    r"(an institution's name with a letter or digit, found none"
    r"|names that differ in letters of any case, digits or _ within 64 characters, found two that become the same)"
    r": [a-z .]+"
)

MANY: list[dict[str, Any]] = [
    {"method": "iid", "institutions": 4},
    {"method": "dirichlet", "institutions": 4, "alpha": 0.5},
    {"method": "label-skew", "institutions": 4, "labels_per_institution": 1},
    {"method": "label-skew", "institutions": 4, "labels_per_institution": 2},
    {"method": "quantity-skew", "institutions": 4, "alpha": 0.7},
]


def rows_of(units: list[tuple[str, ...]], order: list[int] | None = None) -> DataSet:
    """One row per label of each unit; ``order`` shuffles the rows, so that a unit's rows are not neighbours."""
    rows = [(f"u{number}", label) for number, labels in enumerate(units) for label in labels]
    rows = rows if order is None else [rows[position] for position in order]
    examples = tuple(
        Example(number, unit, {"text": f"t{number}", "label": label})
        for number, (unit, label) in enumerate(rows, start=1)
    )
    return DataSet("rows.jsonl", examples, 0, Digest("0" * 64))


def hospital_rows(folder: Path, count: int = 300, **options: Any) -> DataSet:
    path = write_jsonl(folder / "rows.jsonl", classification_rows(count, units=90))
    return load_data_set(path, fields=("text", "label"), unit_column="patient", keep=("hospital",), **options)


def deal(data: DataSet, seed: int = 1, **spec: Any) -> dict[str, DataSet]:
    return partition(data, Partition(**spec), label_field="label", seed=seed)


def require_partition(data: DataSet, parts: dict[str, DataSet]) -> None:
    """Every row once, every unit at one institution, no institution without rows, rows in file order."""
    assert Counter(e.row for part in parts.values() for e in part.examples) == Counter(e.row for e in data.examples)
    at = [{example.unit for example in part.examples} for part in parts.values()]
    assert sum(map(len, at)) == len(set().union(*at))
    for part in parts.values():
        assert part.examples
        assert [e.row for e in part.examples] == sorted(e.row for e in part.examples)


units_of_labels = st.lists(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=40
)
sections: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(dict, method=st.just("iid"), institutions=st.integers(1, 8)),
    st.builds(dict, method=st.just("dirichlet"), institutions=st.integers(1, 6), alpha=st.floats(0.01, 100)),
    st.builds(dict, method=st.just("quantity-skew"), institutions=st.integers(1, 6), alpha=st.floats(1e-300, 100)),
    st.builds(
        dict,
        method=st.just("label-skew"),
        institutions=st.integers(1, 6),
        labels_per_institution=st.integers(1, 4),
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.data(), units_of_labels, sections, st.integers(0, 5))
def test_every_unit_is_dealt_exactly_once_or_the_deal_is_refused(
    chosen: st.DataObject, units: list[tuple[str, ...]], spec: dict[str, Any], seed: int
) -> None:
    order = chosen.draw(st.permutations(range(sum(map(len, units)))))
    data = rows_of(units, list(order))
    try:
        parts = deal(data, seed, **spec)
    except (DataError, ConfigError):
        assert spec["method"] != "iid" or spec["institutions"] > len(units)
        return
    require_partition(data, parts)
    assert list(parts) == [f"institution-{number}" for number in range(1, spec["institutions"] + 1)]


@pytest.mark.parametrize("spec", MANY, ids=lambda spec: f"{spec['method']}-{spec.get('labels_per_institution', '')}")
def test_the_seed_decides_the_deal(spec: dict[str, Any], tmp_path: Path) -> None:
    data = hospital_rows(tmp_path)
    parts, again, other = deal(data, 1, **spec), deal(data, 1, **spec), deal(data, 2, **spec)
    require_partition(data, parts)
    fingerprints = [[part.fingerprint for part in deals.values()] for deals in (parts, again, other)]
    assert fingerprints[0] == fingerprints[1]
    assert fingerprints[0] != fingerprints[2]


def test_the_deal_is_the_same_in_every_version() -> None:
    """A scenario's announced outcome rests on it."""
    parts = deal(rows_of([("a",)] * 6), 7, method="iid", institutions=2)
    assert [example.row for example in parts["institution-1"].examples] == [1, 2, 4]


def test_iid_shares_differ_by_one_unit_at_most(tmp_path: Path) -> None:
    parts = deal(hospital_rows(tmp_path), method="iid", institutions=7)
    sizes = [len({example.unit for example in part.examples}) for part in parts.values()]
    assert max(sizes) - min(sizes) <= 1


def test_a_low_alpha_gives_each_institution_its_own_labels_and_a_high_one_the_same() -> None:
    data = rows_of([(label,) for label in "abcdefghij" for _ in range(100)])

    def largest_share(alpha: float) -> float:
        shares = []
        for part in deal(data, method="dirichlet", institutions=5, alpha=alpha).values():
            shares += [count / 100 for count in Counter(e.fields["label"] for e in part.examples).values()]
        return max(shares)

    assert largest_share(0.1) > 0.8
    assert largest_share(1000.0) < 0.3


def test_dirichlet_shares_have_the_distributions_variance() -> None:
    """Shares of a label are Dirichlet(alpha, ..., alpha): variance (n-1) / (n² (n·alpha + 1))."""
    labels = [f"l{number}" for number in range(400)]
    data = rows_of([(label,) for label in labels for _ in range(50)])
    parts = deal(data, method="dirichlet", institutions=4, alpha=0.5)
    counts = [Counter(example.fields["label"] for example in part.examples) for part in parts.values()]
    shares = np.array([[count[label] / 50 for label in labels] for count in counts])
    assert shares.mean(axis=1) == pytest.approx(0.25, abs=0.06)
    assert shares.var() == pytest.approx(3 / (16 * 3), rel=0.15)


def test_label_skew_gives_each_institution_so_many_labels() -> None:
    data = rows_of([(label,) for label in "abcdef" for _ in range(20)])
    for each in (1, 2, 4, 6):
        parts = deal(data, method="label-skew", institutions=6, labels_per_institution=each)
        require_partition(data, parts)
        assert {len({e.fields["label"] for e in part.examples}) for part in parts.values()} == {each}


def test_quantity_skew_is_uneven_and_label_blind() -> None:
    data = rows_of([(label,) for label in "ab" for _ in range(500)])
    parts = partition(
        data, Partition(method="quantity-skew", institutions=4, alpha=0.5), label_field=None, seed=1
    )  # no label is needed
    sizes = sorted(len(part.examples) for part in parts.values())
    assert sizes[-1] > 3 * sizes[0]
    largest = max(parts.values(), key=lambda part: len(part.examples))
    share = Counter(e.fields["label"] for e in largest.examples)["a"] / len(largest.examples)
    assert share == pytest.approx(0.5, abs=0.1)


def test_a_unit_with_several_labels_goes_with_its_most_frequent() -> None:
    data = rows_of([("a", "b", "b"), ("b", "a")] * 10)
    parts = deal(data, method="label-skew", institutions=2, labels_per_institution=1)
    assert {frozenset(e.unit for e in part.examples) for part in parts.values()} == {
        frozenset(f"u{number}" for number in range(0, 20, 2)),
        frozenset(f"u{number}" for number in range(1, 20, 2)),
    }


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ({"method": "iid", "institutions": 4}, DataError, "lower data.partition.institutions"),
        ({"method": "dirichlet", "institutions": 3, "alpha": 1e-9}, DataError, "leaves one empty"),
        ({"method": "quantity-skew", "institutions": 3, "alpha": 1e-9}, DataError, "leaves one empty"),
        ({"method": "label-skew", "institutions": 1, "labels_per_institution": 1}, ConfigError, "no institution"),
        ({"method": "label-skew", "institutions": 3, "labels_per_institution": 3}, ConfigError, "at most the data's 2"),
        ({"method": "label-skew", "institutions": 3, "labels_per_institution": 1}, DataError, "leaves one empty"),
    ],
    ids=lambda value: value["method"] if isinstance(value, dict) else "",
)
def test_a_deal_that_leaves_somebody_empty_is_refused(spec: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        deal(rows_of([("a",), ("a", "a"), ("b",)]), **spec)


@pytest.mark.parametrize("method", ["dirichlet", "label-skew"])
def test_a_deal_by_label_needs_labels(method: str) -> None:
    spec = Partition.model_validate({"method": method, "institutions": 2, "alpha": 1.0, "labels_per_institution": 1})
    with pytest.raises(ConfigError, match="classification"):
        partition(rows_of([("a",), ("b",)]), spec, label_field=None, seed=0)


def test_natural_leaves_rows_where_they_are_a_unit_at_both_included(tmp_path: Path) -> None:
    data = hospital_rows(tmp_path)
    parts = deal(data, method="natural", column="hospital")
    assert list(parts) == ["north", "south"]
    for name, part in parts.items():
        assert part.examples == tuple(e for e in data.examples if e.fields["hospital"] == name)
    at = [{example.unit for example in part.examples} for part in parts.values()]
    assert at[0] & at[1], "the data should have a patient at both, or this shows nothing"


def named(*values: str | None) -> DataSet:
    examples = tuple(
        Example(number, f"u{number}", {"label": "a"} | ({} if value is None else {"site": value}))
        for number, value in enumerate(values, start=1)
    )
    return DataSet("rows.jsonl", examples, 0, Digest("0" * 64))


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_natural_names_are_valid_names_or_refused_without_content(values: list[str]) -> None:
    try:
        parts = deal(named(*values), method="natural", column="site")
    except DataError as error:
        text = str(error)
    else:
        assert [Institution(name=name).name for name in parts] == list(parts)
        assert len(parts) == len(set(values))
        return
    assert REFUSED_NAMES.fullmatch(text)


def test_natural_names_are_readable() -> None:
    parts = deal(named("St. Mary's (North)", "_7 Hills", "x" * 80), method="natural", column="site")
    assert list(parts) == ["7-Hills", "St-Mary-s-North", "x" * 64]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("A b", "A-b"), "become the same"),
        (("north", "North"), "become the same"),
        (("a", "?!"), "row 2.*found none"),
        (("a", None), "row 2.*found none"),
    ],
)
def test_natural_names_that_cannot_be_told_apart(values: tuple[str | None, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        deal(named(*values), method="natural", column="site")


def test_natural_checks_the_number_of_institutions_when_it_is_given() -> None:
    assert len(deal(named("a", "b"), method="natural", column="site", institutions=2)) == 2
    with pytest.raises(DataError, match="expected 3 institutions"):
        deal(named("a", "b"), method="natural", column="site", institutions=3)
