"""A ledger as its owner reads it."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from fedft import strict_json
from fedft.display.ledger import find_ledgers, read_story, story_view
from fedft.errors import ConfigError, LedgerCorrupt
from fedft.ledger import Ledger
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.events import DpSgdRound, PrivacyEvent, UnprotectedRelease

EVENT = DpSgdRound(noise_multiplier=1.1, sampling_rate=0.1, steps=5)


def ledger_at(path: Path, *events: PrivacyEvent, delta: float | None = 1e-5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Ledger.open(path) as ledger:
        for round, event in enumerate(events, start=1):
            evidence = {} if delta is None else {"delta": delta}
            intent = ledger.record_intent(
                run="run", round=round, purpose="update", dataset="north", plan_digest="a" * 64, event=event,
                evidence=evidence,
            )  # fmt: skip
            ledger.record_release(intent, b"private bytes")
        ledger.record_refusal(run="run", round=9, dataset="north", reason="budget-exhausted")
    return path


def text_of(path: Path, delta: float | None = None) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(story_view(read_story("north", path, delta=delta)))
    return console.export_text()


def test_events_releases_and_refusals_in_order(tmp_path: Path) -> None:
    text = text_of(ledger_at(tmp_path / "ledger.sqlite", EVENT, EVENT))
    for words in ("update: 5 steps, noise 1.100, rate 0.100", "update: 13 bytes, ", "refused: budget-exhausted"):
        assert words in text
    assert "private bytes" not in text
    assert text.index("refused") > text.index("13 bytes") > text.index("5 steps")


def test_the_spent_epsilon_is_the_accountants_at_the_charged_delta(tmp_path: Path) -> None:
    path = ledger_at(tmp_path / "ledger.sqlite", EVENT, EVENT)
    (account,) = read_story("north", path).accounts
    assert (account.epsilon, account.delta, account.events) == (epsilon_of([EVENT, EVENT], 1e-5), 1e-5, 2)
    (other,) = read_story("north", path, delta=1e-3).accounts
    assert other.epsilon == epsilon_of([EVENT, EVENT], 1e-3)


def test_without_a_delta_no_epsilon_is_made_up(tmp_path: Path) -> None:
    path = ledger_at(tmp_path / "ledger.sqlite", EVENT, delta=None)
    assert read_story("north", path).accounts[0].epsilon is None
    assert "give --delta" in text_of(path)


def test_an_unprotected_release_has_no_guarantee(tmp_path: Path) -> None:
    path = ledger_at(tmp_path / "ledger.sqlite", EVENT, UnprotectedRelease(), delta=None)
    story = read_story("north", path)
    assert story.accounts[0].epsilon == math.inf
    assert json.loads(strict_json.dumps(story.as_json()))["accounts"] == [
        {
            "dataset": "north", "events": 2, "delta": None, "epsilon": None, "local_epsilon": None,
            "epsilon_infinite": True,
        }
    ]  # fmt: skip
    assert "no guarantee" in text_of(path)


def test_ledgers_are_found_in_runs_variants_and_shared_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    north = ledger_at(tmp_path / "run/institutions/north/ledger.sqlite", EVENT)
    south = ledger_at(tmp_path / "run/institutions/south/ledger.sqlite", EVENT)
    assert find_ledgers(tmp_path / "run") == {"north": north, "south": south}
    assert find_ledgers(tmp_path / "run", institution="south") == {"south": south}
    assert find_ledgers(north) == {"north": north}
    monkeypatch.chdir(north.parent)
    assert find_ledgers(Path("ledger.sqlite")) == {"north": Path("ledger.sqlite")}
    first = ledger_at(tmp_path / "two/a/institutions/north/ledger.sqlite", EVENT)
    second = ledger_at(tmp_path / "two/b/institutions/north/ledger.sqlite", EVENT)
    assert sorted(find_ledgers(tmp_path / "two").values()) == [first, second]
    shared = ledger_at(tmp_path / "shared/east.sqlite", EVENT)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/config.json").write_text(f'{{"simulation": {{"ledger_dir": "{tmp_path / "shared"}"}}}}')
    assert find_ledgers(tmp_path / "elsewhere") == {"east": shared}


def test_no_ledger_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    ledger_at(tmp_path / "institutions/north/ledger.sqlite", EVENT)
    with pytest.raises(ConfigError, match="of south .* found none but those of north"):
        find_ledgers(tmp_path, institution="south")
    with pytest.raises(ConfigError, match="found none: correct the path"):
        find_ledgers(tmp_path / "nowhere")


def test_another_file_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("not one")
    with pytest.raises(LedgerCorrupt):
        read_story("north", tmp_path / "ledger.sqlite")
