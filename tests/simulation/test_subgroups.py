"""evaluation.subgroup: the best adapter on public rows, apart by a column's values."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedft.errors import DataError
from fedft.report.write import write_report
from fedft.simulation.run import play
from tests.federation import OFF, federation
from tests.report.page import Page
from tests.tiny import classification_rows, write_jsonl


def test_the_best_adapter_is_measured_by_subgroup_and_the_report_says_so(tmp_path: Path) -> None:
    config = federation(tmp_path, "evaluation.subgroup=site", "federation.rounds=1", *OFF)
    rows = [{**row, "site": "ward <A>" if i % 4 else "b/2"} for i, row in enumerate(classification_rows(40, seed=99))]
    write_jsonl(tmp_path / "public.jsonl", rows)
    summary = play(config, folder=tmp_path / "run")
    groups = summary["subgroups"]
    assert {name: found["rows"] for name, found in groups.items()} == {"ward <A>": 30.0, "b/2": 10.0}
    weighted = sum(found["accuracy"] * found["rows"] for found in groups.values()) / 40
    assert weighted == pytest.approx(summary["best"]["accuracy"])
    page = Page(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    assert "site Rows accuracy macro F1 loss" in page.text
    assert "ward <A> 30" in page.text
    assert "b/2 10" in page.text


@pytest.mark.parametrize(("column", "words"), [("absent", "40 rows without"), ("text", "found 60: correct")])
def test_a_column_that_makes_no_groups_is_refused_before_anything_is_trained(
    tmp_path: Path, column: str, words: str
) -> None:
    config = federation(tmp_path, f"evaluation.subgroup={column}")
    if column == "text":
        write_jsonl(
            tmp_path / "public.jsonl",
            [{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(classification_rows(60, seed=99))],
        )
    with pytest.raises(DataError, match=words):
        play(config, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
