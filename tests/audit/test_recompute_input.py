"""fedft audit recompute on what is half written, newer, missing or garbage: a finding each, never a confirmation."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedft.audit.findings import BAD_INPUT, FOUND, HOLDS
from fedft.audit.recompute import recompute
from fedft.ledger.store import Ledger
from fedft.privacy.events import DpSgdRound, GaussianRelease, PrivacyEvent
from tests.audit.audited import Audited, charges_of, codes, ledger_of, set_in, write_ledger
from tests.cli.commands import fedft


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def gone(path: str) -> Callable[[Path], object]:
    return lambda folder: (folder / path).unlink()


def filled(path: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / path).write_bytes(content)


def in_config(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        body = json.loads(file.read_text())
        for dotted, value in changes.items():
            set_in(body, dotted.replace("__", "."), value)
        file.write_text(json.dumps(body))

    return change


def sparse(path: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        with (folder / path).open("wb") as file:
            file.truncate(2**30)

    return make


def newer_ledger(folder: Path) -> None:
    with sqlite3.connect(ledger_of(folder, "north")) as connection:
        connection.execute("PRAGMA user_version=2")


LEDGER = "institutions/north/ledger.sqlite"
INPUTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no folder": ("no-run", shutil.rmtree),
    "an empty folder": ("no-run", emptied),
    "no configuration": ("half-written", gone("config.json")),
    "a configuration cut off": ("no-run", filled("config.json", b'{"fedft_version": "0.1.0", "ru')),
    "a configuration that is no object": ("no-run", filled("config.json", b"[1]")),
    "a configuration of bytes": ("no-run", filled("config.json", b"\xff\xfe\x00")),
    "a gigabyte for a configuration": ("no-run", sparse("config.json")),
    "a gigabyte of rounds": ("no-run", sparse("metrics.jsonl")),
    "a newer version": ("newer-format", in_config(fedft_version="99.0")),
    "a version that is none": ("newer-format", in_config(fedft_version="soon")),
    "a configuration without its rounds": ("half-written", in_config(federation__rounds=None)),
    "a mode that is not known": ("half-written", in_config(privacy__mode="laplace")),
    "tasks that do not fit": ("half-written", in_config(continual__tasks=["one"])),
    "a run that goes on": ("unfinished", gone("summary.json")),
    "rounds cut off": ("half-written", filled("metrics.jsonl", b'{"round": 1}\n{"rou')),
    "variants": ("several-runs", in_config(variants={"without": {}})),
    "a ledger that is gone": ("ledger-unreadable", gone(LEDGER)),
    "no ledger": ("ledger-missing", lambda folder: shutil.rmtree(folder / "institutions" / "north")),
    "no ledgers": ("nothing-read", lambda folder: shutil.rmtree(folder / "institutions")),
    "garbage for a ledger": ("ledger-unreadable", filled(LEDGER, os.urandom(4096))),
    "an empty ledger": ("ledger-unreadable", filled(LEDGER, b"")),
    "a gigabyte for a ledger": ("ledger-unreadable", sparse(LEDGER)),
    "a newer ledger": ("ledger-unreadable", newer_ledger),
}  # fmt: skip


@pytest.mark.parametrize("case", INPUTS)
def test_bad_input_is_a_finding_and_never_a_confirmation(case: str, tmp_path: Path) -> None:
    code, spoil = INPUTS[case]
    folder = Audited().write(tmp_path / "run")
    spoil(folder)
    if case == "a ledger that is gone":
        assert (folder / f"{LEDGER}.head").is_file()
        folder_found = recompute(folder, [("north", folder / LEDGER)])
    else:
        folder_found = recompute(folder)
    assert code in codes(folder_found, "input"), folder_found.findings
    assert folder_found.exit_code in (BAD_INPUT, FOUND)
    result = fedft("audit", "recompute", folder)
    assert result.exit_code in (BAD_INPUT, FOUND)
    assert "every figure holds" not in result.stdout
    assert "Traceback" not in result.output


def test_a_ledger_from_elsewhere_is_taken_in_place_of_the_folders(tmp_path: Path) -> None:
    folder = Audited().write(tmp_path / "run")
    mine = tmp_path / "mine.sqlite"
    (folder / "institutions" / "north").rename(tmp_path / "north")
    for suffix in ("", ".head"):
        (tmp_path / "north" / f"ledger.sqlite{suffix}").rename(tmp_path / f"mine.sqlite{suffix}")
    for option in (f"north={mine}", str(mine)):
        result = fedft("audit", "recompute", folder, "--ledger", option, "--json")
        assert result.exit_code == HOLDS, result.output
        assert set(json.loads(result.stdout)["ledgers"]) == {"north", "south"}
    result = fedft("audit", "recompute", folder, "--ledger", f"south={mine}", "--json")
    found = {finding["code"] for finding in json.loads(result.stdout)["findings"]}
    assert {"ledger-of-another", "ledger-missing"} <= found
    twice = recompute(folder, [("north", mine), ("north", mine)])
    assert "ledger-twice" in codes(twice, "input")


def test_a_ledger_that_its_owner_writes_to_can_be_read(tmp_path: Path) -> None:
    folder = Audited().write(tmp_path / "run")
    with Ledger.open(ledger_of(folder, "north")) as ledger:
        ledger.record_refusal(run="wards/next", round=1, dataset="north", reason="budget-exhausted")
        found = recompute(folder)
    assert (found.exit_code, found.findings) == (HOLDS, ())


def test_ledgers_that_the_configuration_keeps_elsewhere_are_found(tmp_path: Path) -> None:
    run = Audited()
    set_in(run.config, "simulation.ledger_dir", str(tmp_path / "kept"))
    kept, run.charges = run.charges, {}
    for name, charges in kept.items():
        write_ledger(tmp_path / "kept" / f"{name}.sqlite", charges)
    found = recompute(run.write(tmp_path / "run"))
    assert (found.exit_code, found.findings) == (HOLDS, ())


EVENTS = st.one_of(
    st.builds(
        DpSgdRound,
        st.floats(1e-300, 1e300),
        st.floats(0, 1, exclude_min=True),
        st.integers(1, 1000),
    ),
    st.builds(GaussianRelease, st.floats(1e-300, 1e300)),
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(event=EVENTS)
def test_no_event_that_a_ledger_can_hold_makes_it_raise_or_confirm(event: PrivacyEvent, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    run = Audited()
    run.charges["north"] = [replace(charge, event=event) for charge in charges_of("north")]
    assert recompute(run.write(folder)).exit_code != HOLDS


def test_more_steps_than_any_run_takes_are_not_composed(tmp_path: Path) -> None:
    run = Audited()
    run.charges["north"] = [replace(one, event=DpSgdRound(1.0, 0.05, 10**9)) for one in charges_of("north")]
    assert codes(recompute(run.write(tmp_path / "run")), "input") == {"too-many-steps"}


def test_an_accountant_that_stumbles_confirms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(events: object, delta: float) -> float:
        raise OverflowError("math range error")

    monkeypatch.setattr("fedft.audit.accounts.epsilon_of", stumble)
    found = recompute(Audited().write(tmp_path / "run"))
    assert codes(found, "input") == {"not-computed"}
    assert found.exit_code == BAD_INPUT


JUNK = st.sampled_from([None, True, -1, 0, 3, 1e400, "x", "", [], [1], {}, {"a": 1}, math.nan, "0.1.0", 2**70])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_in_a_folder_makes_it_raise(data: st.DataObject, tmp_path: Path) -> None:
    run = Audited(charges={"north": charges_of("north")[:1]})
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    target = data.draw(st.sampled_from([run.config, run.summary, run.records[0]]))
    assert isinstance(target, dict)
    while True:
        key = data.draw(st.sampled_from(sorted(target)))
        inner = target[key]
        if not isinstance(inner, dict) or not inner or data.draw(st.booleans()):
            break
        target = inner
    if data.draw(st.booleans()):
        del target[key]
    else:
        target[key] = data.draw(JUNK)
    assert isinstance(recompute(run.write(folder)).exit_code, int)
