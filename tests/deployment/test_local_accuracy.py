"""fedft local-accuracy: an institution's own release, charged first, within its policy, the same bytes again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import fedft.simulation.run
from fedft.assembly.saved_run import open_run
from fedft.audit.recompute import recompute
from fedft.audit.verify import verify_run
from fedft.config import InstitutionPolicy, load_policy
from fedft.config.policy import policy_template
from fedft.deployment.local_accuracy import local_accuracy
from fedft.deployment.withdrawal import withdraw
from fedft.errors import ConfigError, LedgerError, ModelError, PolicyError, PrivacyBudgetExhausted, Withdrawn
from fedft.identity.documents import read_document
from fedft.identity.keys import PrivateKey
from fedft.ledger.store import Ledger
from fedft.privacy.events import GaussianRelease
from fedft.report.document import report_of
from fedft.rounds.local_accuracy import LABEL, PURPOSE
from fedft.simulation.run import play
from tests.cli.commands import fedft as command
from tests.federation import federation

NOISE = 20.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and what the institution north has of its own: policy, key, ledger."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fedft.simulation.run, "delete_keys", lambda _: None)
        play(federation(folder, "federation.rounds=1", "privacy.epsilon=4"), folder=folder / "run")
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "home")
    own = tmp_path / "home" / "run" / "institutions" / "north"
    for name in ("ledger.sqlite", "ledger.sqlite.head", "identity.key"):
        shutil.copy(own / name, tmp_path / "home" / name)
    return tmp_path / "home"


def policy(home: Path, **changes: str) -> InstitutionPolicy:
    base = open_run(home / "run").layout.base_digest
    values = {
        "datasets.name": "north", "datasets.path": "north.jsonl", "datasets.unit": "patient", "datasets.delta": 1e-3,
        "datasets.epsilon": 8.0, "release.local_accuracy": True, "models.path": "base", "models.sha256": base,
    }  # fmt: skip
    text = policy_template("north", "tiny", "ed25519:" + "0" * 64, {**values, **changes})
    text = text.replace("# [[models]]", "[[models]]")
    (home / "policy.toml").write_text(text)
    (home / "policy.toml").chmod(0o600)
    return load_policy(home / "policy.toml")


def events(home: Path) -> tuple[object, ...]:
    with Ledger.open(home / "ledger.sqlite", read_only=True) as ledger:
        return ledger.events("north")


def test_it_is_charged_signed_stored_and_the_same_again(home: Path) -> None:
    own = policy(home)
    before = events(home)
    content = local_accuracy(home / "run", own, noise_multiplier=NOISE)
    fields, signers = read_document(LABEL, content)
    assert signers == {PrivateKey.load(home / "identity.key").public}
    assert events(home) == (*before, GaussianRelease(NOISE))
    with Ledger.open(home / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.stored_release(fields["run"], fields["round"], PURPOSE) == content
        intent = ledger.find_intent(fields["run"], fields["round"], PURPOSE)
    assert intent is not None
    assert intent.evidence["allowed_by"] == "release.local_accuracy = true"
    truth = open_run(home / "run").evaluate(str(home / "north.jsonl"))["accuracy"]
    assert abs(fields["accuracy"] - truth) < 6 * fields["standard_error"] + 0.2, "a unit counts once, a row does not"
    assert local_accuracy(home / "run", own, noise_multiplier=NOISE) == content
    assert events(home) == (*before, GaussianRelease(NOISE))
    with pytest.raises(LedgerError):
        local_accuracy(home / "run", own, noise_multiplier=NOISE + 1)


def test_an_auditor_counts_it_and_finds_nothing_wrong(home: Path) -> None:
    before = recompute(home / "run", [("north", home / "ledger.sqlite")])
    local_accuracy(home / "run", policy(home), noise_multiplier=NOISE)
    found = recompute(home / "run", [("north", home / "ledger.sqlite")])
    assert found.exit_code == 0, found.findings
    assert [finding.where for finding in found.findings if finding.code == "own-release"]
    (was,) = [one.epsilon for one in before.accounts if one.institution == "north"]
    (now,) = [one.epsilon for one in found.accounts if one.institution == "north"]
    assert was is not None
    assert now is not None
    assert now > was
    assert verify_run(home / "run", ledgers=[home / "ledger.sqlite"]).valid
    document = report_of(home / "run", ledgers=[("north", home / "ledger.sqlite")])
    assert "noised accuracies that institutions released themselves" in document["parts"]["guarantees"]["released"]
    assert [one for one in document["parts"]["security"]["left"] if one["purpose"] == PURPOSE]


@pytest.mark.parametrize(
    ("changes", "noise", "error", "words"),
    [
        ({"release.local_accuracy": False}, NOISE, PolicyError, "release.local_accuracy = true in the policy"),
        ({}, 0.1, PolicyError, "allow.min_noise_multiplier"),
        ({"datasets.epsilon": 4.0}, 0.5, PrivacyBudgetExhausted, "cap of epsilon 4"),
        ({"datasets.delta": 0.5}, NOISE, ConfigError, "delta"),
        ({"models.sha256": "0" * 64}, NOISE, ModelError, "among the policy's models"),
    ],
)
def test_what_is_not_allowed_is_not_charged(
    home: Path, changes: dict[str, str], noise: float, error: type[Exception], words: str
) -> None:
    own, before = policy(home, **changes), events(home)
    with pytest.raises(error, match=words):
        local_accuracy(home / "run", own, noise_multiplier=noise)
    assert events(home) == before


def test_after_a_withdrawal_that_no_agent_has_taken_yet_nothing_leaves(home: Path) -> None:
    own, before = policy(home), events(home)
    with Ledger.open(home / "ledger.sqlite"):  # as while an agent works: the statement is on disk, not in the ledger
        _, recorded = withdraw(own)
    assert not recorded
    with pytest.raises(Withdrawn):
        local_accuracy(home / "run", own, noise_multiplier=NOISE)
    assert events(home) == before


def test_another_federations_run_is_refused(home: Path) -> None:
    own = policy(home)
    changed = own.model_copy(update={"institution": own.institution.model_copy(update={"federation": "other"})})
    with pytest.raises(ConfigError, match='a run of federation "other"'):
        local_accuracy(home / "run", changed, noise_multiplier=NOISE)


def test_the_command_writes_a_new_file(home: Path) -> None:
    policy(home)
    given = ("local-accuracy", home / "run", "--policy", home / "policy.toml", "--noise-multiplier", "20")
    found = command(*given, "--to", home / "accuracy.json")
    assert (found.exit_code, found.stdout) == (0, f"wrote {home / 'accuracy.json'}\n"), found.output
    assert json.loads((home / "accuracy.json").read_text())["signed"]["units"] == 40
    assert command(*given, "--to", home / "accuracy.json").exit_code == 1
