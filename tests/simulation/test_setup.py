"""From a federation file to rows, tokens, model and terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedft.assembly.coordinator import GENERAL
from fedft.errors import ConfigError, DataError
from fedft.rounds.terms import TrainingTerms
from fedft.simulation.setup import Setup
from tests.federation import BATCH, NAMES, ROWS, federation, rows_of
from tests.tiny import classification_rows, tiny_llama, write_jsonl

NO_LISTED = "institutions=[]"


def setup_of(folder: Path, *overrides: str, **options: Any) -> Setup:
    return Setup(federation(folder / "data", *overrides, **options))


def dealt(folder: Path, *overrides: str) -> tuple[str, ...]:
    """Common rows to be dealt out, instead of rows of each institution's own."""
    (folder / "data").mkdir(exist_ok=True)
    rows = [row for number in range(3) for row in rows_of(number)]
    write_jsonl(folder / "data" / "all.jsonl", rows)
    return (NO_LISTED, "data.train=all.jsonl", *overrides)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("institutions.north.data=", "found none: add institutions.north.data"),
        (NO_LISTED, r"add data.train with data.partition, or \[\[institutions\]\]"),
    ],
)
def test_on_one_machine_each_institution_needs_rows(tmp_path: Path, override: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        setup_of(tmp_path, override)


def test_each_institution_has_its_rows_units_and_terms(tmp_path: Path) -> None:
    setup = setup_of(tmp_path, "institutions.south.batch_size=5", "data.max_rows_per_unit=2")
    assert setup.institution_names == NAMES
    for number, name in enumerate(NAMES):
        data = setup.institution(name)
        assert len(data.rows.examples) == ROWS
        assert data.units == data.encoded["default"].unit_count == len({row["patient"] for row in rows_of(number)})
        assert setup.institution(name) is data
    assert setup.terms(setup.institution("north").section) == TrainingTerms(
        batch_size=BATCH, learning_rate=0.01, max_rows_per_unit=2
    )
    assert setup.terms(setup.institution("south").section).batch_size == 5


def test_labels_are_the_files_or_those_of_public_rows_never_of_private_ones(tmp_path: Path) -> None:
    assert setup_of(tmp_path / "named").labels == ("a", "b", "c")
    config = federation(tmp_path / "found", "task.labels=")
    write_jsonl(
        tmp_path / "found" / "public.jsonl", [row | {"label": "abcd"[i % 4]} for i, row in enumerate(rows_of(5))]
    )
    setup = Setup(config)
    assert setup.labels == ("a", "b", "c", "d")
    assert setup.model.num_labels == 4
    config = federation(tmp_path / "fewer", "task.labels=")
    write_jsonl(tmp_path / "fewer" / "public.jsonl", [row | {"label": "a"} for row in rows_of(5)])
    with pytest.raises(DataError, match="at least two labels, found 1"):
        Setup(config)


def test_nothing_of_an_institution_has_a_text_in_its_repr(tmp_path: Path) -> None:
    data = setup_of(tmp_path).institution("north")
    assert "w1" not in repr(data)
    assert "patient" not in repr(data.encoded)


TASKS = (
    "data.task_column=hospital", 'continual.tasks=["north", "south"]', "continual.rounds_per_task=[1, 1]",
    "training.batch_size=4",
)  # fmt: skip


def test_rows_go_to_their_task(tmp_path: Path) -> None:
    setup = setup_of(tmp_path, *TASKS)
    data = setup.institution("west")
    for task in ("north", "south"):
        assert len(data.encoded[task].examples) == sum(row["hospital"] == task for row in rows_of(2))
        assert len(setup.evaluation[task].examples) > 0
        assert len(setup.reference[task].examples) > 0
    assert GENERAL not in setup.reference
    both = {row["patient"] for row in rows_of(2)}
    assert data.units == len(both) < sum(encoded.unit_count for encoded in data.encoded.values())


def test_reference_rows_of_no_task_are_the_general_ones(tmp_path: Path) -> None:
    config = federation(tmp_path, *TASKS)
    rows: list[dict[str, Any]] = list(classification_rows(40, seed=99))
    write_jsonl(tmp_path / "other.jsonl", [row | {"hospital": "elsewhere"} for row in rows[:7]])
    write_jsonl(tmp_path / "public.jsonl", rows)
    other = config.model_copy(
        update={"data": config.data.model_copy(update={"reference": str(tmp_path / "other.jsonl")})}
    )
    assert {task: len(found.examples) for task, found in Setup(other).reference.items()} == {GENERAL: 7}
    assert list(setup_of(tmp_path / "one", "data.reference=public.jsonl").reference) == [GENERAL]
    assert setup_of(tmp_path / "none", "data.reference=").reference == {}


def test_a_task_without_rows_is_an_error_in_public_and_none_of_an_institutions(tmp_path: Path) -> None:
    only_south = [row for row in rows_of(0) if row["hospital"] == "south"]
    setup = setup_of(tmp_path, *TASKS, rows={"north": only_south})
    assert list(setup.institution("north").encoded) == ["south"]
    config = federation(tmp_path / "again", *TASKS)
    write_jsonl(tmp_path / "again" / "public.jsonl", only_south)
    with pytest.raises(DataError, match="none for north"):
        Setup(config)


def test_what_cannot_be_trained_on_is_an_error_of_that_institution(tmp_path: Path) -> None:
    setup = setup_of(tmp_path, rows={"north": [row | {"label": "a"} for row in rows_of(0)], "south": rows_of(1)[:5]})
    with pytest.raises(DataError, match=r"north.*one class only"):
        setup.institution("north")
    with pytest.raises(DataError, match=r"south.*training.batch_size = 8"):
        setup.institution("south")
    assert setup.institution("west").units > BATCH


def test_common_rows_are_dealt_out_whole(tmp_path: Path) -> None:
    words = ("data.partition.method=iid", "data.partition.institutions=2")
    setup = setup_of(tmp_path, *dealt(tmp_path, *words))
    assert setup.institution_names == ("institution-1", "institution-2")
    units = [{example.unit for example in setup.institution(name).rows.examples} for name in setup.institution_names]
    assert units[0].isdisjoint(units[1])
    assert sum(len(setup.institution(name).rows.examples) for name in setup.institution_names) == 3 * ROWS


def test_listed_institutions_lend_their_names_and_terms_to_what_is_dealt(tmp_path: Path) -> None:
    words = dealt(tmp_path, "data.partition.method=iid", "data.partition.institutions=2")
    listed = 'institutions=[{name = "east", batch_size = 5}, {name = "far"}]'
    setup = setup_of(tmp_path, *words[1:], listed)
    assert setup.institution_names == ("east", "far")
    assert setup.institution("east").section.batch_size == 5


def test_with_a_natural_partition_the_data_say_who_takes_part(tmp_path: Path) -> None:
    words = dealt(tmp_path, "data.partition.method=natural", "data.partition.column=hospital")
    setup = setup_of(tmp_path, *words[1:], 'institutions=[{name = "south", batch_size = 5}]')
    assert setup.institution_names == ("north", "south")
    assert setup.institution("south").section.batch_size == 5
    assert setup.institution("north").section.batch_size is None
    with pytest.raises(ConfigError, match=r"among north, south, found west"):
        setup_of(tmp_path, *words[1:], 'institutions=[{name = "west"}]')


def test_a_quorum_that_the_data_cannot_give_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    words = dealt(tmp_path, "data.partition.method=natural", "data.partition.column=hospital")
    assert setup_of(tmp_path, *words, "federation.min_institutions=2").institution_names == ("north", "south")
    with pytest.raises(ConfigError, match=r"at most the 2 institutions of the data, found 3"):
        setup_of(tmp_path, *words, "federation.min_institutions=3")


def test_the_quality_report_is_of_the_institutions_own_rows(tmp_path: Path) -> None:
    setup = setup_of(tmp_path)
    report = setup.quality("north")
    assert report["rows"] == ROWS
    assert report["labels"] == {label: sum(row["label"] == label for row in rows_of(0)) for label in "abc"}
    assert report["fingerprint"] == setup.institution("north").rows.fingerprint


def test_instructions_have_no_labels(tmp_path: Path) -> None:
    base = tmp_path / "llama"
    base.mkdir()
    tiny_llama(base)
    rows = [{"instruction": f"w{i} w2", "output": f"w{i} w4 w5"} for i in range(30)]
    config = federation(
        tmp_path, "task.kind=instruction", "task.labels=", "data.unit=", "data.reference=", f"model.base={base}",
        rows=dict.fromkeys(NAMES, rows),
    )  # fmt: skip
    write_jsonl(tmp_path / "public.jsonl", rows)
    setup = Setup(config)
    assert setup.labels is None
    assert setup.institution("north").units == 30
    assert "labels" not in setup.quality("north")
