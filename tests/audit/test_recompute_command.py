"""fedft audit recompute as a person and a program see it: accountants, another delta, words, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedft.audit.findings import HOLDS
from fedft.audit.recompute import recompute
from fedft.privacy import opinions
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.events import DpSgdRound
from tests.audit.audited import BATCH, EPSILON, ROUNDS, STEPS, UNITS, Audited, codes, noise_of
from tests.cli.commands import fedft


def test_another_delta_can_be_asked_for(tmp_path: Path) -> None:
    folder = Audited().write(tmp_path / "run")
    found = recompute(folder, delta=1e-6)
    assert found.exit_code == HOLDS
    units = UNITS["north"]
    expected = epsilon_of([DpSgdRound(noise_of(units), BATCH / units, STEPS * ROUNDS)], 1e-6)
    assert found.accounts[0].epsilon == expected > EPSILON


def test_a_disagreement_of_accountants_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Audited().write(tmp_path / "run")
    monkeypatch.setattr("fedft.audit.accounts.prv_bounds", lambda events, delta: (4.0, 4.02))
    assert codes(recompute(folder), "claim") == {"accountants-disagree"}
    monkeypatch.undo()
    monkeypatch.setattr("fedft.audit.accounts.rdp_epsilon", lambda events, delta: 2.0)
    assert codes(recompute(folder), "claim") == {"accountants-disagree"}


def test_without_opacus_a_wider_grid_takes_prvs_place_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Audited().write(tmp_path / "run")
    opinions._prv_accountant.cache_clear()
    opinions._prv_composition.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = recompute(folder)
    assert found.exit_code == HOLDS
    for account in found.accounts:
        assert account.prv is None
        assert "pip install --no-deps opacus" in (account.prv_problem or "")
        assert account.coarse == pytest.approx(account.epsilon, abs=0.01)


def test_the_command_shows_whom_it_cost_how_much_under_which_cap(tmp_path: Path) -> None:
    folder = Audited().write(tmp_path / "run")
    result = fedft("audit", "recompute", folder)
    assert result.exit_code == HOLDS, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    (north,) = [row for row in rows if row[:1] == ["north"]]
    assert north[1:4] == ["400", "by", "patient"]
    assert north[-2:] == ["0.001", "3"]
    assert "every figure holds" in result.stdout
    assert fedft("audit", "recompute", folder, "--delta", "1").exit_code == 2


def test_the_json_has_the_same_figures(tmp_path: Path) -> None:
    folder = Audited().write(tmp_path / "run")
    body = json.loads(fedft("audit", "recompute", folder, "--json").stdout)
    found = recompute(folder)
    assert body["label"] == "fedft/v1/audit-recompute"
    assert [one["epsilon"] for one in body["accounts"]] == [account.epsilon for account in found.accounts]
    assert (body["findings"], body["exit_code"]) == ([], HOLDS)


def test_it_needs_no_deep_learning_stack(tmp_path: Path) -> None:
    folder = Audited().write(tmp_path / "run")
    check = (
        "import sys; from fedft.cli import app\n"
        f"try: app(['audit', 'recompute', {str(folder)!r}, '--json'])\n"
        "except SystemExit as end: print('ended', end.code)\n"
        "print(sorted({'torch', 'flwr', 'transformers', 'peft', 'opacus', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == ["ended 0", "[]"]
