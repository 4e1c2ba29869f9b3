"""How one data set is dealt to simulated institutions.

Guarantee: every row is in exactly one institution, every institution has rows, and the same data, section and seed give
the same deal. Privacy units are dealt whole, so a unit is in exactly one institution and institutions compose in
parallel. "natural" deals nothing: rows stay where their column says, and a unit that occurs at two institutions is
protected at each of them by its own guarantee; what both release about it composes (epsilons at most add up).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedft.config import Partition
from fedft.data.examples import DataSet, select
from fedft.errors import ConfigError, DataError
from fedft.randomness import reproducible_rng

DRAWS = 100
"""How often an uneven deal is drawn before it counts as impossible: each draw may leave an institution empty."""

_Hands = list[list[str]]
"""The units of each institution, in the order of the institutions."""


def partition(data: DataSet, spec: Partition, *, label_field: str | None, seed: int) -> dict[str, DataSet]:
    """Institutions by name, each with its rows in file order.

    Names are "institution-1", ... or, for "natural", the column's values with every run of other characters than
    letters, digits and "_" turned into "-". These values are names, public by configuration.

    Parameters
    ----------
    label_field
        The column that "dirichlet" and "label-skew" go by; a unit counts for the label most of its rows have.

    Raises
    ------
    ConfigError
        A label is needed and the task has none, or the section does not fit the data's classes.
    DataError
        Some institution would be empty, or a row names no institution.
    """
    natural = spec.method == "natural"
    parts = _natural(data, str(spec.column), spec.institutions) if natural else _dealt(data, spec, label_field, seed)
    # An error about one of them says whose rows it is about.
    return {name: replace(part, name=f"{part.name} [{name}]") for name, part in parts.items()}


def _dealt(data: DataSet, spec: Partition, label_field: str | None, seed: int) -> dict[str, DataSet]:
    rows_of_unit = _rows_of_unit(data)
    count = int(spec.institutions or 1)
    if count > len(rows_of_unit):
        raise DataError(
            f"{data.name}: expected at least one privacy unit for each of {count} institutions, found fewer: "
            "lower data.partition.institutions"
        )
    rng = reproducible_rng(seed, "partition", spec.method)
    hands = _deal(data, list(rows_of_unit), spec, count, label_field, rng)
    return {
        f"institution-{number}": select(data, sorted(row for unit in units for row in rows_of_unit[unit]))
        for number, units in enumerate(hands, start=1)
    }


def _deal(
    data: DataSet, units: list[str], spec: Partition, count: int, label_field: str | None, rng: np.random.Generator
) -> _Hands:
    alpha = float(spec.alpha or 1.0)
    if spec.method == "iid":
        return _split_evenly(_shuffled(units, rng), count)
    if spec.method == "quantity-skew":
        return _until_none_is_empty(data, lambda: _split_unevenly(_shuffled(units, rng), count, alpha, rng))
    classes = _units_by_label(data, label_field, spec.method)
    if spec.method == "dirichlet":
        return _until_none_is_empty(data, lambda: _dirichlet(classes, count, alpha, rng))
    return _label_skew(data, classes, count, int(spec.labels_per_institution or 1), rng)


def _natural(data: DataSet, column: str, count: int | None) -> dict[str, DataSet]:
    rows: dict[str, list[int]] = {}
    values: dict[str, str] = {}
    for position, example in enumerate(data.examples):
        value = example.fields.get(column, "")
        name = _as_name(value)
        if name is None:
            raise DataError(
                f'{data.name}, row {example.row}, field "{column}": expected an institution\'s name with a letter or '
                "digit, found none: correct the row or choose another data.partition.column"
            )
        if values.setdefault(name.lower(), value) != value:
            raise DataError(
                f'{data.name}, row {example.row}, field "{column}": expected names that differ in letters of any case, '
                "digits or _ within 64 characters, found two that become the same: rename one of them in the data"
            )
        rows.setdefault(name, []).append(position)
    if count is not None and count != len(rows):
        raise DataError(
            f'{data.name}: expected {count} institutions in column "{column}", found {len(rows)}: correct '
            "data.partition.institutions or leave it out"
        )
    return {name: select(data, rows[name]) for name in sorted(rows)}


def _as_name(value: str) -> str | None:
    """A valid institution name made of ``value``; None when nothing of it can stand in one."""
    name = re.sub(r"[^A-Za-z0-9_]+", "-", value).lstrip("-_")[:64].rstrip("-")
    return name or None


def _rows_of_unit(data: DataSet) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for position, example in enumerate(data.examples):
        rows.setdefault(example.unit, []).append(position)
    return rows


def _units_by_label(data: DataSet, label_field: str | None, method: str) -> list[list[str]]:
    """Units of each label, labels in alphabetical order; a unit with several labels counts for its most frequent."""
    if label_field is None:
        raise ConfigError(
            f'expected a classification task for data.partition.method = "{method}", found a task without labels: '
            'use "natural", "iid" or "quantity-skew"'
        )
    labels: dict[str, Counter[str]] = {}
    for example in data.examples:
        labels.setdefault(example.unit, Counter())[example.fields[label_field]] += 1
    classes: dict[str, list[str]] = {}
    for unit, found in labels.items():
        classes.setdefault(min(found, key=lambda label: (-found[label], label)), []).append(unit)
    return [classes[label] for label in sorted(classes)]


def _dirichlet(classes: Sequence[list[str]], count: int, alpha: float, rng: np.random.Generator) -> _Hands:
    """Each label's units in proportions drawn from Dirichlet(alpha), label by label (Yurochkin et al. 2019, 4.1)."""
    hands: _Hands = [[] for _ in range(count)]
    for units in classes:
        for hand, more in zip(hands, _split_unevenly(_shuffled(units, rng), count, alpha, rng), strict=True):
            hand.extend(more)
    return hands


def _label_skew(data: DataSet, classes: Sequence[list[str]], count: int, each: int, rng: np.random.Generator) -> _Hands:
    """``each`` labels per institution, a label's units evenly among those that hold it (Li et al. 2022, 3.1)."""
    if each > len(classes) or count * each < len(classes):
        raise ConfigError(
            f"expected labels_per_institution of at most the data's {len(classes)} labels, and x {count} institutions "
            f"no fewer than them, found {each}: some label would have no institution; change either number"
        )
    hands: _Hands = [[] for _ in range(count)]
    order = rng.permutation(len(classes))
    holders: list[list[int]] = [[] for _ in classes]
    for turn in range(count * each):
        holders[order[turn % len(classes)]].append(turn // each)
    for units, holding in zip(classes, holders, strict=True):
        for number, more in zip(holding, _split_evenly(_shuffled(units, rng), len(holding)), strict=True):
            hands[number].extend(more)
    return _require_none_empty(data, hands)


def _shuffled(units: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [units[position] for position in rng.permutation(len(units))]


def _split_evenly(units: list[str], count: int) -> _Hands:
    return _cut(units, np.arange(1, count) * len(units) // count)


def _split_unevenly(units: list[str], count: int, alpha: float, rng: np.random.Generator) -> _Hands:
    shares = rng.dirichlet(np.full(count, alpha))
    # A very low alpha can underflow every share to 0 or NaN: all units then go to one institution.
    if not np.isfinite(shares).all() or shares.sum() <= 0:
        shares = np.eye(count)[rng.integers(count)]
    return _cut(units, np.rint(np.cumsum(shares)[:-1] * len(units)).astype(np.int64))


def _cut(units: list[str], ends: npt.NDArray[np.int64]) -> _Hands:
    bounds = [0, *(int(end) for end in ends), len(units)]
    return [units[start:end] for start, end in itertools.pairwise(bounds)]


def _until_none_is_empty(data: DataSet, draw: Callable[[], _Hands]) -> _Hands:
    for _ in range(DRAWS - 1):
        hands = draw()
        if all(hands):
            return hands
    return _require_none_empty(data, draw())


def _require_none_empty(data: DataSet, hands: _Hands) -> _Hands:
    if not all(hands):
        raise DataError(
            f"{data.name}: expected rows for each of {len(hands)} institutions, found a deal that leaves one empty: "
            "lower data.partition.institutions, take more rows, or raise data.partition.alpha where the method has one"
        )
    return hands
