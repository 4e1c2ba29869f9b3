"""The attack from a federation file to its evidence, on three tiny institutions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedft.assembly.coordinator import PublicParts
from fedft.attack.canaries import CanarySetup, as_data_set, make_canaries, toss
from fedft.attack.evidence import CLAIM, CONTROL, read_evidence, write_evidence
from fedft.attack.pipeline import AttackTerms, attack
from fedft.attack.run import watch
from fedft.config import FederationConfig, parse_config
from fedft.errors import ConfigError
from fedft.rounds.institution import Institution
from tests.cli.commands import federation_file, fedft
from tests.federation import OFF, federation_body
from tests.simulation.test_distributed_runs import SHARED

SEED = "0123456789abcdef0123456789abcdef"
BASE = Path(__file__).resolve().parents[2] / "scenarios" / "model"
LEAKY = (
    f"model.base={BASE}",
    'adapter.target_modules=["up_proj", "down_proj"]',
    "adapter.rank=4",
    "federation.rounds=6",
    "training.batch_size=24",
    "training.optimizer=sgd",
    "training.learning_rate=0.5",
)
"""A base that tells rows apart, and steps enough for each canary to take part: without privacy it leaks."""


def config_in(folder: Path, *overrides: str) -> FederationConfig:
    return parse_config(federation_body(folder), folder=folder, overrides=overrides)


def terms(**changes: Any) -> AttackTerms:
    return AttackTerms(**{"seed": SEED, "canaries": 80, "least": 1.0, **changes})


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("attack")
    config = config_in(folder, *LEAKY, "data.reference=", "secure_aggregation.enabled=true")
    return attack(config, terms(references=1), scratch=folder / "scratch")


def test_without_privacy_the_canaries_are_found_and_with_it_they_are_not(evidence: dict[str, Any]) -> None:
    figures = evidence["figures"]
    assert evidence["verdict"] == "stands"
    assert figures[CONTROL]["epsilon"] >= 1.0
    assert figures[CONTROL]["scores"]["gradient"]["auroc"]["value"] > 0.9
    assert figures[CLAIM]["epsilon"] < 8.0
    assert not figures[CLAIM]["falsified"]
    assert set(figures[CLAIM]["scores"]) == {"gradient", "loss", "lira", "rmia"}
    assert evidence["uploads"]["uniform"]
    assert evidence["uploads"]["uploads"] == 3


def test_evidence_holds_coins_and_scores_and_gives_its_figures_again(evidence: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    write_evidence(evidence, file)
    assert read_evidence(file)["figures"] == evidence["figures"]
    coins = evidence["plays"][0]["coins"]
    assert coins == "".join("01"[int(c)] for c in toss(int(SEED, 16), CLAIM, 80))
    assert coins != evidence["plays"][1]["coins"]
    shown = fedft("audit", "attack", file)
    assert shown.exit_code == 0, shown.output
    assert "stands" in shown.stdout


@pytest.mark.parametrize("change", ["score", "coin", "verdict", "label"])
def test_altered_evidence_is_found(change: str, evidence: dict[str, Any], tmp_path: Path) -> None:
    altered = json.loads(json.dumps(evidence))
    play = altered["plays"][1]
    if change == "score":
        scores = play["scores"]["gradient"]
        scores[scores.index(max(scores))] = min(scores) - 1
    elif change == "coin":
        play["coins"] = play["coins"].translate(str.maketrans("01", "10"))
    else:
        altered[change] = "falsified"
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps(altered))
    result = fedft("audit", "attack", file)
    assert result.exit_code == 1
    assert "altered" in result.stderr or "something else" in result.stderr


def test_nothing_of_a_row_or_a_canary_is_in_the_evidence(evidence: dict[str, Any], tmp_path: Path) -> None:
    config = config_in(tmp_path)
    setup = CanarySetup(config, institution=None, canaries=(), coins=np.zeros(0, dtype=bool))
    canaries = make_canaries(setup, kind="random", count=80, seed=int(SEED, 16))
    text = json.dumps(evidence)
    for example in (*setup.own_rows.examples, *canaries):
        assert example.fields["text"] not in text


def test_noise_that_was_left_out_is_a_false_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DP-SGD whose noise is forgotten still writes its events: the ledger claims epsilon 1, the canaries say more."""
    monkeypatch.setattr("fedft.training.dp_sgd.gaussian", lambda stream, size, deviation: np.full(size, 1e-9))
    file = federation_file(tmp_path, extra="")
    options = [word for value in LEAKY for word in ("--set", value)]
    options += ["--set", "privacy.epsilon=0.5", "--canaries", "80", "--least", "1", "--seed", SEED]
    kept = tmp_path / "kept" / "evidence.json"
    result = fedft("audit", "attack", file, *options, "--evidence", kept)
    assert result.exit_code == 3, result.output
    assert read_evidence(kept)["verdict"] == "falsified"
    assert "the claim is false" in result.stdout


def test_a_control_that_does_not_leak_is_no_evidence(tmp_path: Path) -> None:
    """Nothing is learnt at a rate of next to nothing with one step: the audit says that it has no power."""
    file = federation_file(tmp_path, extra="")
    options = ["--set", "training.learning_rate=1e-12", "--set", "federation.rounds=1", "--canaries", "40"]
    result = fedft("audit", "attack", file, *options, "--least", "1.5", "--seed", SEED, "--json")
    assert result.exit_code == 4, result.output
    assert json.loads(result.stdout.splitlines()[-1])["verdict"] == "no-power"


def test_without_privacy_in_the_file_there_is_no_claim(tmp_path: Path) -> None:
    config = config_in(tmp_path, *OFF)
    found = attack(config, terms(least=0.0), scratch=tmp_path / "scratch")
    assert [play["name"] for play in found["plays"]] == [CONTROL]
    assert found["verdict"] == "unprotected"
    assert found["plays"][0]["epsilon"] is None


def test_the_ledger_of_the_file_is_not_touched_and_the_canaries_are_units(tmp_path: Path) -> None:
    config = config_in(tmp_path, f"simulation.ledger_dir={tmp_path / 'ledgers'}")
    parts = PublicParts(config)
    canaries = make_canaries(parts, kind="random", count=20, seed=1)
    coins = toss(1, "claim", 20)
    seen = watch(config, institution="south", canaries=canaries, coins=coins, folder=tmp_path / "run")
    with_canaries = seen.setup.institution("south").units
    assert with_canaries - len({e.unit for e in seen.setup.own_rows.examples}) == int(coins.sum())
    assert len({canary.unit for canary in canaries}) == 20
    assert (sorted(seen.updates), len(seen.adapters), len(seen.events)) == ([1, 2], 3, 2)
    attack(config_in(tmp_path, f"simulation.ledger_dir={tmp_path / 'own'}"), terms(least=0.0), scratch=tmp_path / "s")
    assert not (tmp_path / "own").exists()


def test_what_is_seen_is_what_the_institution_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {}
    answer = Institution.answer

    def keeping(self: Institution, request: Any) -> Any:
        sent[request.plan.round] = request.adapter
        return answer(self, request)

    monkeypatch.setattr(Institution, "answer", keeping)
    config = config_in(tmp_path, "aggregation.encoding=mxint8")
    seen = watch(config, institution=None, canaries=(), coins=np.zeros(0, dtype=bool), folder=tmp_path / "run")
    assert seen.setup.planted_at == "north"
    for number, adapter in sent.items():
        assert np.array_equal(seen.adapters[number - 1], adapter)


def test_canaries_follow_from_their_seed_and_mislabelled_ones_are_public_rows(tmp_path: Path) -> None:
    parts = PublicParts(config_in(tmp_path))
    first, again = (make_canaries(parts, kind="random", count=5, seed=3) for _ in range(2))
    assert [c.fields for c in first] == [c.fields for c in again]
    assert [c.fields for c in first] != [c.fields for c in make_canaries(parts, kind="random", count=5, seed=4)]
    rows = (json.loads(line) for line in (tmp_path / "public.jsonl").read_text().splitlines())
    public = {(row["text"], row["label"]) for row in rows}
    texts = {text for text, _ in public}
    wrong = make_canaries(parts, kind="mislabelled", count=30, seed=3)
    assert all(canary.fields["text"] in texts for canary in wrong)
    assert sum((canary.fields["text"], canary.fields["label"]) in public for canary in wrong) < 10, "texts repeat"
    assert len(as_data_set(wrong).examples) == 30
    with pytest.raises(ConfigError, match="at most 40 canaries"):
        make_canaries(parts, kind="mislabelled", count=41, seed=3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"canaries": 20, "least": 3.0}, "use more"), ({"institution": "nowhere"}, "correct the name")],
)
def test_what_cannot_be_attacked_is_said(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        attack(config_in(tmp_path), terms(**changes), scratch=tmp_path / "scratch")


def test_noise_in_shares_is_not_one_institutions_claim(tmp_path: Path) -> None:
    shared = config_in(tmp_path, *SHARED)
    with pytest.raises(ConfigError, match="whose claim is about sums of several institutions"):
        attack(shared, terms(), scratch=tmp_path / "scratch")


def test_a_seed_is_of_its_form(tmp_path: Path) -> None:
    assert fedft("audit", "attack", federation_file(tmp_path), "--seed", "12").exit_code == 2
