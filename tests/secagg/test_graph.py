"""The tables of docs/SPEC.md, "Secure aggregation", recomputed with exact fractions; the graph is what it says."""

from __future__ import annotations

import math
import re
from collections import Counter
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest

from fedft.errors import ConfigError
from fedft.secagg.graph import SPARSE, Graph, Shape, colluders, shape_for

SPEC = (Path(__file__).parents[2] / "docs" / "SPEC.md").read_text(encoding="utf-8")
SECTION = SPEC.split("\n## Secure aggregation\n")[1].split("\n## ")[0]


def table(first_cell: str) -> list[list[str]]:
    """Rows of cells of the table whose head begins with this."""
    rows = SECTION.split(f"\n| {first_cell} |")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in [f"{first_cell} |{rows[0]}", *rows[2:]]]


@cache
def tail(n: int, marked: int, drawn: int, least: int) -> Fraction:
    """P[at least ``least`` marked among ``drawn`` of n]: hypergeometric, exact."""
    found = range(max(least, 0), min(marked, drawn) + 1)
    return Fraction(sum(math.comb(marked, a) * math.comb(n - marked, drawn - a) for a in found), math.comb(n, drawn))


def failure(shape: Shape) -> Fraction:
    """The bound of docs/SPEC.md, "The sparse graph": 5 % collude, a fifth of the holders at most."""
    n, k, m, t = shape.members, shape.neighbours, shape.holders, shape.threshold
    c, c_holders = n // 20, m // 5
    among_holders = tail(n, c, m, c_holders + 1)
    if shape.complete:
        return among_holders
    honest = (m - c_holders) * (k + 1 - shape.least_around) // (t - c_holders)
    return among_holders + n * tail(n, c, k // 2, k // 2 - honest)


def log2(value: Fraction) -> str:
    return "-∞" if not value else str(round(math.log2(value.numerator) - math.log2(value.denominator)))


def test_the_table_of_small_cohorts() -> None:
    (_, *members), *rows = table("n")
    shapes = [shape_for(int(n)) for n in members]
    found = {row[0]: [int(cell) for cell in row[1:]] for row in rows}
    assert found["t"] == [shape.threshold for shape in shapes]
    assert found["c"] == [colluders(shape) for shape in shapes]
    assert found["at least so many honest in a sum, at c"] == [
        shape.least_honest_sum(colluders(shape), colluders(shape)) for shape in shapes
    ]
    assert found["at c = 1"] == [shape.least_honest_sum(1, 1) for shape in shapes]


def test_the_table_of_the_sparse_graph() -> None:
    expected = []
    for n, _, _ in SPARSE:
        shape = shape_for(n)
        k, m, t = shape.neighbours, shape.holders, shape.threshold
        lost = tail(n, n // 10, m, m - t + 1)
        if not shape.complete:
            lost += n * tail(n, n // 10, k + 1, k + 2 - shape.least_around)
        honest = shape.least_honest_sum(n // 20, m // 5)
        expected.append([*map(str, (n, k, m, t, m // 5, honest)), log2(failure(shape)), log2(lost)])
    assert table("n up to")[1:] == expected


@pytest.mark.parametrize(("first", "last"), [(33, 128), (129, 200), (201, 300), (301, 500)])
def test_the_proof_fails_with_at_most_2_to_the_minus_60(first: int, last: int) -> None:
    for n in range(first, last + 1, max(1, (last - first) // 30)):
        assert failure(shape_for(n)) < Fraction(1, 2**60)


@pytest.mark.parametrize("n", [501, 640, 820, 1000, 1001, 1500, 2000, 2001, 3000, 4096])
def test_the_proof_fails_with_at_most_2_to_the_minus_60_in_large_cohorts(n: int) -> None:
    assert failure(shape_for(n)) < Fraction(1, 2**60)


@pytest.mark.parametrize("n", [200, 300, 500, 1000, 2000, 4096])
def test_bells_bound_for_an_honest_coordinator_is_met_with_room(n: int) -> None:
    """Bell et al. 2020: n·(γ+δ)^(k/2) for a run of k/2 members that collude (5 %) or dropped out (10 %)."""
    assert n * Fraction(15, 100) ** (shape_for(n).neighbours // 2) < Fraction(1, 2**60)


@pytest.mark.parametrize("n", [*range(3, 41), 100, 129, 200, 500, 4096])
def test_a_shape_keeps_its_promises(n: int) -> None:
    shape = shape_for(n)
    c = colluders(shape)
    c_holders = c if n <= 32 else shape.holders // 5
    assert 3 * shape.threshold > 2 * shape.holders
    assert 2 * shape.threshold > shape.holders + c_holders
    assert 2 * shape.least_uploads > n + c, "two contexts cannot both reach the least number of uploads"
    assert shape.least_honest_sum(c, c_holders) >= 2
    assert c >= 1


@pytest.mark.parametrize(("n", "threshold"), [(2, None), (4097, None), (10, 6), (10, 11), (9, 6), (40, 20), (3, 2)])
def test_what_the_proof_does_not_cover_is_refused(n: int, threshold: int | None) -> None:
    with pytest.raises(ConfigError):
        shape_for(n, threshold)


@pytest.mark.parametrize("n", [33, 150, 300])
def test_a_graph_is_regular_symmetric_and_anew_in_each_round(n: int) -> None:
    names = [f"m{number:03d}" for number in range(n)]
    first, second = (Graph(shape_for(n), names, "0" * 64, number) for number in (1, 2))
    near = {name: first.neighbours(name) for name in names}
    assert all(len(set(others)) == first.shape.neighbours and name not in others for name, others in near.items())
    assert all(name in near[other] for name, others in near.items() for other in others)
    assert list(first.holders) == sorted(set(first.holders))
    assert len(first.holders) == first.shape.holders
    if n > 128:
        assert first.neighbours(names[0]) != second.neighbours(names[0])
        assert first.holders != second.holders


def test_no_member_is_favoured_by_the_draw() -> None:
    names = [f"m{number:03d}" for number in range(150)]
    drawn = Counter(name for number in range(1, 201) for name in Graph(shape_for(150), names, "0" * 64, number).holders)
    mean = 200 * 64 / 150
    assert sum((drawn[name] - mean) ** 2 / (mean * (1 - 64 / 150)) for name in names) < 149 + 6 * math.sqrt(298)


def test_the_section_names_every_label_of_the_code() -> None:
    root = Path(__file__).parents[2] / "fedft" / "secagg"
    labels = {label for file in root.glob("*.py") for label in re.findall(r"fedft/v1/secagg-[a-z]+", file.read_text())}
    assert {label for label in labels if label not in SECTION} == set()
