"""The report: it parses, says what the folder says, loads nothing, runs nothing, and escapes what it is given."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedft.errors import StorageError
from fedft.report.write import write_report
from tests.report.fake_run import NAMES, config, records, summary, write_ledger, write_run
from tests.report.page import Page

OFF = {"mode": "off", "epsilon": None, "delta": None, "clip_norm": None}
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>"


def report(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rounds = records()
    return write_run(tmp_path / "run", config(), rounds, summary(rounds))


def test_the_report_says_what_the_run_was_and_promised(run: Path) -> None:
    text = report(run).text
    for expected in (
        "4 institutions (north, south, east-side, west) fine-tuned the base model \"model\"",
        "LoRA of rank 4",
        "to classify text in 12 of 12 rounds of fed_svd",
        "from 13.0 % to 89.6 % in round 12",
        "differential privacy under adding or removing one patient",
        "δ = 0.0001",
        "north ε = 7.2",
        "east-side ε = 5.879",
        "the coordinator sees each institution's noised update",
        "Neighbouring relation: add or remove one patient.",
        "Set sizes: the number of patients at an institution is treated as public",
        "Four hospitals teach one model",
        "1 of 2 announced outcomes do not hold.",
        "+5.8 points",
        '[aggregation] method = "fed_svd"',
        "1.06 MB from institutions and 2.36 MB to them, 3.42 MB in all",
        "budget-exhausted",
        "9–12",
    ):  # fmt: skip
        assert expected in text, expected
    assert "Nothing is protected" not in text


def test_each_institution_has_its_figures_in_the_table_and_its_plot(run: Path) -> None:
    page = report(run)
    assert "north north-notes – 8 0.0001 – – – 7.2 –" in page.text
    assert "east-side east-side-notes – 6 0.0001 – – – 5.879 –" in page.text
    assert "north 0.9 1 0.05333 – 60 the run states" in page.text
    labels = page.values("aria-label")
    assert {"Accuracy and macro F1", "Loss (nats)", "Bytes per round", "Seconds per round"} <= set(labels)


def test_every_answer_is_in_the_grid(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    assert html.count('<td class="yes"') == 12 * 4 - 1 - 4
    assert html.count('<td class="gone" title="round 3: no answer"') == 1
    assert html.count('<td class="no"') == 4
    assert 'title="round 9: budget-exhausted"' in html


def test_nothing_is_loaded_and_nothing_runs(run: Path) -> None:
    page = report(run)
    html = (run / "report.html").read_text(encoding="utf-8")
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:|data:", html)
    assert not [name for _, name, _ in page.attributes if name in ("src", "srcset", "action") or name.startswith("on")]
    assert page.values("href")
    assert all(re.fullmatch(r"#part-[1-9]", link) for link in page.values("href"))
    assert "default-src 'none'; style-src 'unsafe-inline'" in page.values("content")


def test_no_path_of_this_machine_but_those_in_the_configuration(run: Path) -> None:
    report(run)
    assert str(run.parent) not in (run / "report.html").read_text(encoding="utf-8")


def test_the_same_folder_gives_the_same_page(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert not list(run.glob("*.tmp"))


def test_privacy_off_is_said_in_red(tmp_path: Path) -> None:
    rounds = records(private=False)
    page = report(write_run(tmp_path / "run", config(privacy=OFF), rounds, summary(rounds, private=False)))
    assert any('Nothing is protected in this run: privacy.mode is "off"' in alarm for alarm in page.alarms)
    assert "is protected by" not in page.text
    assert "and nothing is protected ." in page.text
    assert "Everything: privacy was off in this run." in page.text
    assert "ε = " not in page.text


def test_a_folder_that_does_not_say_is_taken_as_unprotected(tmp_path: Path) -> None:
    page = report(write_run(tmp_path / "run", None, records(private=False), None))
    assert any("Nothing in this folder says that privacy was on" in alarm for alarm in page.alarms)


INFINITE = {"epsilon": None, "epsilon_infinite": True}


@pytest.mark.parametrize(("spent", "word"), [(INFINITE, "its epsilon is infinite"), ({"epsilon": 8.2}, "8.2 of 8")])
def test_a_broken_promise_is_said_in_red(tmp_path: Path, spent: dict[str, Any], word: str) -> None:
    rounds = records()
    body = summary(rounds)
    body["institutions"]["west"] |= spent
    page = report(write_run(tmp_path / "run", config(), rounds, body))
    assert [alarm for alarm in page.alarms if "west" in alarm and word in alarm]


def test_an_infinite_epsilon_is_said_in_red_while_there_is_no_summary(tmp_path: Path) -> None:
    rounds = records(3)
    rounds[2]["epsilon"]["west"], rounds[2]["epsilon_infinite"] = None, ["west"]
    page = report(write_run(tmp_path / "run", config(), rounds, None))
    assert [alarm for alarm in page.alarms if "west made an unprotected release" in alarm]
    assert "west ε = infinite" in page.text


def test_epsilon_is_rounded_up(tmp_path: Path) -> None:
    rounds = records()
    body = summary(rounds)
    body["institutions"]["west"]["epsilon"] = 7.2001
    assert "west ε = 7.201" in report(write_run(tmp_path / "run", config(), rounds, body)).text


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    rounds = records(names=(HOSTILE, "south", "east-side"))
    rounds[0]["refused"] = {"south": HOSTILE}
    rounds[5]["task"] = HOSTILE
    rounds[5]["tasks"] = {HOSTILE: {"accuracy": 0.5}}
    checks = [{"figure": HOSTILE, "bound": HOSTILE, "found": HOSTILE, "holds": True}]
    body = summary(rounds, story=HOSTILE, checks=checks, engine=HOSTILE, stopped_early=HOSTILE, run=HOSTILE)
    body["forgetting"] = {HOSTILE: 0.1}
    hostile = config(run=HOSTILE, federation={"name": HOSTILE, "rounds": 12}, model={"base": HOSTILE})
    hostile["data"]["unit"] = HOSTILE
    hostile[HOSTILE] = {HOSTILE: HOSTILE}
    page = report(write_run(tmp_path / "run", hostile, rounds, body))
    assert not {"script", "img"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name in ("src", "onerror")]
    assert page.text.count(HOSTILE) >= 15


def test_ledgers_are_checked_and_epsilon_computed_again(tmp_path: Path) -> None:
    rounds = records()
    body = summary(rounds)
    folder = write_run(tmp_path / "run", config(), rounds, None)
    body["institutions"]["north"]["epsilon"] = write_ledger(folder, "north", 12)
    write_ledger(folder, "south", 3)
    write_ledger(folder, "west", 2)
    damaged = folder / "institutions" / "west" / "ledger.sqlite"
    content = bytearray(damaged.read_bytes())
    where = content.index(b"west-notes")
    content[where : where + 4] = b"east"
    damaged.write_bytes(content)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "summary.json").write_text(json.dumps(body))
    page = report(folder)
    assert "everything that left data set north-notes in 1 run is" in page.text
    assert [alarm for alarm in page.alarms if "south: the run states epsilon 7.2" in alarm]
    assert "west ledger-unreadable" in page.text
    assert str(tmp_path) not in page.text
    assert not [alarm for alarm in page.alarms if alarm.startswith("north: the run states epsilon")]
    assert {path: path.read_bytes() for path in before} == before, "a report only reads"


def test_an_unfinished_run_may_have_charged_more_than_it_finished(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", config(), records(2), None)
    write_ledger(folder, "north", 3)
    page = report(folder)
    assert not [alarm for alarm in page.alarms if "the run states epsilon" in alarm]
    assert "unfinished" in page.text
    assert "not finished: there is no summary.json" in page.text


@pytest.mark.parametrize("parts", ["config", "rounds", "summary", "config rounds", "config summary", "rounds summary"])
def test_missing_parts_are_left_out(tmp_path: Path, parts: str) -> None:
    rounds = records()
    page = report(
        write_run(
            tmp_path / "run",
            config() if "config" in parts else None,
            rounds if "rounds" in parts else [],
            summary(rounds) if "summary" in parts else None,
        )
    )
    assert "h1" in page.tags
    assert ("Resolved, with every default" in page.text) == ("config" in parts)
    assert ("Who answered" in page.text) == ("rounds" in parts)
    assert ("Announced and found" in page.text) == ("summary" in parts)


def test_optional_values_may_be_null_or_absent(tmp_path: Path) -> None:
    bare = {
        "round": 1,
        "task": "default",
        "updates": [],
        "refused": {},
        "missing": [],
        "evaluation": None,
        "best": False,
    }
    odd = {**bare, "round": 2, "evaluation": {"accuracy": math.nan}, "epsilon": {"north": None}, "quorum": False}
    odd |= {"seconds": None, "seconds_training": None, "update_norm": None, "reference": None, "tasks": None}
    body = {"institutions": {"north": {}}, "checks": [], "best_round": 0, "best": {}, "start": {}, "forgetting": {}}
    page = report(write_run(tmp_path / "run", config(), [bare, odd], body))
    assert "Too few updates, adapter unchanged, in round 2." in page.text
    assert not re.search(r"\bnan\b", page.text.lower())


def test_a_run_of_one_round_and_one_institution_has_its_plots(tmp_path: Path) -> None:
    rounds = records(1, names=("alone",))
    page = report(write_run(tmp_path / "run", config(), rounds, summary(rounds)))
    assert "1 institution (alone)" in page.text
    assert page.tags.count("svg") == 6


def test_a_long_run_of_many_fits(tmp_path: Path) -> None:
    rounds = records(64, names=[f"bank-{i:02d}" for i in range(24)])
    page = report(write_run(tmp_path / "run", config(), rounds, summary(rounds)))
    assert "24 institutions (bank-00, bank-01, bank-02, bank-03, bank-04, bank-05 and 18 others)" in page.text
    assert page.tags.count("table") >= 3 + 3


def test_variants_are_compared_and_linked(tmp_path: Path) -> None:
    variants: dict[str, Any] = {}
    for name, settings in (("private", config()), ("off", config(privacy=OFF)), ("gone", None)):
        rounds = records(private=name != "off")
        variants[name] = summary(rounds, private=name != "off")
        if settings is not None:
            write_run(tmp_path / "run" / name, settings, rounds, variants[name])
    variants["../off"] = variants["off"]
    checks = [{"figure": "private.best.accuracy", "bound": "at least 0.8", "found": 0.89, "holds": True}]
    body = {"name": "hospitals", "variants": variants, "checks": checks}
    page = report(write_run(tmp_path / "run", config(run=None), [], body))
    assert page.values("href") == ["private/report.html", "off/report.html"]
    assert all((tmp_path / "run" / link).is_file() for link in page.values("href"))
    assert "private 13.0 % 89.6 % 89.6 % 7.2 +5.8 points 12" in page.text
    assert "no privacy" in page.text
    assert [alarm for alarm in page.alarms if alarm == "Nothing is protected in off: privacy is off in that variant."]
    assert "All announced outcomes hold." in page.text
    assert {"Best accuracy", "Accuracy per round"} <= set(page.values("aria-label"))


def test_a_cut_last_line_is_said_and_another_bad_line_refused(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole + '{"round": 13, "upda')
    assert [alarm for alarm in report(run).alarms if "last line of metrics.jsonl is incomplete" in alarm]
    metrics.write_text("not json\n" + whole)
    with pytest.raises(StorageError, match="a JSON object in line 1"):
        write_report(run)


@pytest.mark.parametrize("content", ["[1]", "{", "\udcff"])
def test_a_damaged_file_is_refused(run: Path, content: str) -> None:
    (run / "summary.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(StorageError, match=r"summary\.json"):
        write_report(run)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="expected a run folder"):
        write_report(tmp_path)


def test_a_page_that_cannot_be_written_is_a_storage_error(run: Path) -> None:
    (run / ".report.html.tmp").mkdir()
    with pytest.raises(StorageError, match=r"expected to write .*report\.html"):
        write_report(run)


def test_no_deep_learning_stack_is_needed(run: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fedft.report.write import write_report; "
        f"write_report(Path({str(run)!r})); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'peft', 'opacus')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_across_organisations_each_ledger_says_what_was_spent(tmp_path: Path) -> None:
    """The coordinator knows what it asked for; a report that called that "none" would read as no protection."""
    rounds = records()
    for record in rounds:
        record["epsilon"], record["cap"] = dict.fromkeys(NAMES), dict.fromkeys(NAMES)
    told = summary(rounds, engine="superlink")
    for body in told["institutions"].values():
        body |= {"rows": None, "units": None, "sampling_rate": None, "noise_multiplier": None, "epsilon_asked": 8.0}
    folder = write_run(tmp_path / "run", config(), rounds, told)
    write_report(folder)
    page = Page((folder / "report.html").read_text())
    words = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "north ε at most 8, as asked" in words
    assert "north: asked to stay within ε = 8, δ = 0.0001 in this run. Its ledger was not given" in words
    assert "across organisations" in words
    assert "simulat" not in words.lower()
    assert page.alarms == [
        "The run's records do not hold: audit.head: expected the signed head of the log, found no file."
    ]
    for wrong in ("ε = none", "nothing spent", "Largest ε spent none"):
        assert wrong not in words
