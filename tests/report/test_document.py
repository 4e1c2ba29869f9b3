"""The report of a real run: it fits its schema, the page says the document's numbers, and it says what is so."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
from functools import reduce
from html import unescape
from operator import getitem
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fedft import strict_json
from fedft.audit.recompute import recompute
from fedft.errors import ConfigError, FedftError
from fedft.randomness import reproducible_rng
from fedft.report.controls import read_controls
from fedft.report.document import page_of, report_of
from fedft.report.form import Document, schema
from fedft.report.page import FORMS
from fedft.report.write import write_report
from tests.cli.commands import fedft
from tests.report.page import Page

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "docs" / "schemas" / "audit-report.schema.json"
RUN = ROOT / "tests" / "vectors" / "run-v1"
FIGURE = re.compile(r'<span data-at="([^"]*)" data-as="([a-z]+)">([^<]*)</span>')


@pytest.fixture(scope="module")
def document() -> Document:
    return report_of(RUN)


@pytest.fixture(scope="module")
def html(document: Document) -> str:
    return page_of(document)


def at(document: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def test_the_published_schema_is_that_of_the_code() -> None:
    text = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    assert SCHEMA.read_text(encoding="utf-8") == text, "write docs/schemas anew: see docs/SPEC.md, Report"


def test_a_report_fits_the_schema(document: Document) -> None:
    published = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    plain = json.loads(strict_json.dumps(document))
    jsonschema.validate(plain, published)
    del plain["parts"]["guarantees"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain, published)


def test_every_figure_on_the_page_is_the_one_of_the_document(document: Document, html: str) -> None:
    plain = json.loads(strict_json.dumps(document))
    figures = FIGURE.findall(html)
    assert len(figures) >= 50
    for pointer, form, text in figures:
        assert unescape(text) == FORMS[form](at(plain, unescape(pointer))), pointer
    told = {unescape(pointer) for pointer, _, _ in figures}
    for pointer in (
        "/parts/guarantees/institutions/0/epsilon",
        "/parts/guarantees/institutions/1/attack_bounds/0/tpr",
        "/parts/mechanisms/institutions/0/noise_multipliers/0",
        "/parts/ledgers/given/0/entries",
        "/parts/utility/best/accuracy",
        "/parts/security/left/0/bytes",
    ):
        assert pointer in told


def test_the_page_is_made_of_the_json_alone(document: Document, html: str) -> None:
    assert page_of(json.loads(strict_json.dumps(document))) == html


def test_the_same_run_gives_the_same_document(document: Document) -> None:
    assert strict_json.dumps(report_of(RUN)) == strict_json.dumps(document)


def test_its_figures_are_those_of_recompute(document: Document) -> None:
    accounts = recompute(RUN).accounts
    told = document["parts"]["guarantees"]["institutions"]
    assert [one["epsilon"] for one in told] == [account.epsilon for account in accounts]
    assert [one["rdp"] for one in told] == [account.rdp for account in accounts]
    for one, ledger in zip(told, document["parts"]["ledgers"]["given"], strict=True):
        assert ledger["datasets"][0]["spend"][-1]["epsilon"] == one["epsilon"]
        at_delta = {point["delta"]: point["epsilon"] for point in one["curve"]}
        assert at_delta[one["delta"] or 0.0] == one["epsilon"]
        assert sorted(at_delta) == sorted(at_delta, key=lambda delta: -(at_delta[delta] or math.inf))


def test_a_whole_run_holds_and_says_so(document: Document, html: str) -> None:
    verification = document["verification"]
    assert verification is not None
    assert verification["valid"]
    assert document["recomputation"]["exit_code"] == 0
    page = Page(html)
    assert not page.alarms
    assert "Records hold: every chain, signature, receipt and file; ledgers of north, south." in page.text
    assert "Figures hold: each was computed again." in page.text


def test_nine_parts_in_order_and_the_mapping_links_to_them(document: Document, html: str) -> None:
    titles = re.findall(r'<section id="part-(\d+)">\n<h2>(\d+)\. ([^<]*)</h2>', html)
    assert [(int(a), int(b)) for a, b, _ in titles] == [(n, n) for n in range(1, 10)]
    assert len(document["parts"]) == 9
    for control in document["controls"]:
        assert all(1 <= number <= 9 for number in control["evidence"])
    named = {(control["framework"], control["clause"]) for control in read_controls()}
    assert len(named) == len(read_controls())
    frameworks = {framework for framework, _ in named}
    assert frameworks == {"NIST SP 800-226", "GDPR", "EDPB", "HIPAA", "EU AI Act", "ISO/IEC 27001", "SR 11-7"}
    assert {"Art. 5(2)", "Art. 25", "Art. 30", "Art. 32", "Art. 35"} <= {clause for _, clause in named}
    assert "evidence, not legal advice" in Page(html).text


def test_every_command_of_the_mapping_is_one() -> None:
    for control in read_controls():
        for command in re.findall(r"fedft ((?:audit|ledger) [a-z]+)", control["how"]):
            assert fedft(*command.split(), "--help").exit_code == 0, command


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(RUN, tmp_path / "run")
    return tmp_path / "run"


def test_a_changed_byte_is_said_in_red(copied: Path) -> None:
    body = (copied / "metrics.jsonl").read_text()
    (copied / "metrics.jsonl").write_text(body.replace('"round": 2', '"round": 3'))
    document = report_of(copied)
    assert document["verification"] is not None
    assert not document["verification"]["valid"]
    alarms = Page(page_of(document)).alarms
    assert any(alarm.startswith("The run's records do not hold: metrics.jsonl") for alarm in alarms)


def test_a_ledger_that_was_not_given_is_named(copied: Path) -> None:
    shutil.rmtree(copied / "institutions" / "south")
    document = report_of(copied)
    assert document["parts"]["ledgers"]["not_given"] == ["south"]
    south = next(one for one in document["parts"]["guarantees"]["institutions"] if one["institution"] == "south")
    assert (south["epsilon"], south["protected"]) == (None, False)
    text = Page(page_of(document)).text
    assert "Not given: the ledger of south" in text
    assert "Its ledger was not given: what it has spent is not known here" in text


def test_the_statements_are_those_of_the_policies_that_were_given(copied: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(policy_of("north", legal_basis="GDPR Art. 9(2)(j) <b>", retention="six years"))
    document = report_of(copied, policies=[policy])
    north, south = document["parts"]["identity"]["parties"][1:]
    assert (north["legal_basis"], north["retention"], north["purpose"]) == ("GDPR Art. 9(2)(j) <b>", "six years", "")
    assert (south["legal_basis"], south["policy_sha256"]) == ("", "")
    assert len(north["policy_sha256"]) == 64
    page = Page(page_of(document))
    assert "GDPR Art. 9(2)(j) <b>" in page.text
    assert "b" not in page.tags
    with pytest.raises(ConfigError, match="two of north"):
        report_of(copied, policies=[policy, policy])
    policy.write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"policy\.toml"):
        report_of(copied, policies=[policy])


def test_a_pdf_is_printed_or_the_browser_is_asked_for(
    copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if shutil.which("chromium") is not None:
        assert write_report(copied, form="pdf").read_bytes().startswith(b"%PDF-")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="expected Chromium or Chrome to print with"):
        write_report(copied, form="pdf")


def test_the_command_writes_each_format_where_it_is_told(copied: Path, tmp_path: Path) -> None:
    found = fedft("audit", "report", copied, "--format", "json", "--to", tmp_path / "r.json")
    assert (found.exit_code, found.stdout) == (0, f"wrote {tmp_path / 'r.json'}\n")
    assert json.loads((tmp_path / "r.json").read_text())["label"] == "fedft/v1/audit-report"
    assert fedft("audit", "report", copied).exit_code == 0
    assert fedft("audit", "verify", copied).exit_code == 0, "a report does not make a run invalid"


def policy_of(name: str, **processing: str) -> str:
    from fedft.config.policy import policy_template

    text = policy_template(name, "run-v1", "ed25519:" + "0" * 64)
    stated = "\n".join(f"{key} = {json.dumps(value)}" for key, value in processing.items())
    head, _, _ = text.partition("[processing]")
    return f"{head}[processing]\n{stated}\n"


def test_an_archive_is_reported_on_as_the_folder_it_was(copied: Path, tmp_path: Path) -> None:
    archive = tmp_path / "run.tar.gz"
    assert fedft("audit", "bundle", copied, "--to", archive).exit_code == 0
    found, whole = report_of(archive), report_of(copied)
    assert found["verification"] is not None
    assert found["verification"]["valid"]
    assert found["parts"]["guarantees"] == whole["parts"]["guarantees"]
    assert str(tmp_path) not in strict_json.dumps(found)
    assert "fedft-audit-" not in strict_json.dumps(found)
    wanted = fedft("audit", "report", archive)
    assert wanted.exit_code == 1
    assert "name one with --to" in wanted.stderr
    archive.write_bytes(archive.read_bytes()[:-40])
    broken = fedft("audit", "report", archive, "--to", tmp_path / "r.html")
    assert (broken.exit_code, len(broken.stderr.splitlines())) == (1, 1)
    assert not (tmp_path / "r.html").exists()


def test_who_allowed_a_charge_is_said(document: Document, html: str) -> None:
    charge = document["parts"]["ledgers"]["given"][0]["datasets"][0]["charges"][0]
    assert charge["cap"] == 8.0
    assert "cap of ε 8" in Page(html).text


ODD: tuple[Any, ...] = ("x<b>", [], {}, None, -1, 1e30, True, [["y"]], {"a": {"b": [1]}})


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, one in inner for found in places(one, (*place, key)))]


@pytest.mark.parametrize("name", ["config.json", "summary.json", "metrics.jsonl"])
def test_whatever_stands_in_a_file_is_a_report_or_an_error_of_ours(copied: Path, name: str) -> None:
    rng, lines = reproducible_rng(7, "odd-values", name), (copied / name).read_text().splitlines()
    whole = [json.loads(line) for line in lines] if name == "metrics.jsonl" else json.loads("\n".join(lines))
    known = [place for place in places(whole) if len(place) > (1 if name == "metrics.jsonl" else 0)]
    for index in rng.choice(len(known), min(60, len(known)), replace=False):
        body = json.loads(json.dumps(whole))
        *outer, last = known[index]
        reduce(getitem, outer, body)[last] = ODD[rng.integers(len(ODD))]
        text = "".join(json.dumps(one) + "\n" for one in body) if isinstance(body, list) else json.dumps(body)
        (copied / name).write_text(text)
        with contextlib.suppress(FedftError):
            page = Page(page_of(report_of(copied)))
            assert "b" not in page.tags
            assert "Records hold" not in page.text or json.dumps(body) == json.dumps(whole)


@pytest.mark.parametrize("option", ["--policy", "--attack"])
def test_input_that_is_none_is_a_line_and_no_report(copied: Path, tmp_path: Path, option: str) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2**30)
    (tmp_path / "odd").write_bytes(b"\xff\x00{")
    for given in (large, tmp_path / "odd", tmp_path / "absent", tmp_path):
        found = fedft("audit", "report", copied, option, given)
        assert (found.exit_code, len(found.stderr.splitlines())) == (1, 1), found.output
        assert found.stderr.startswith("error: ")
    assert not (copied / "report.html").exists()
