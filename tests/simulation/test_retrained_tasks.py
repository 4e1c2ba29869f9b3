"""A run along tasks is trained anew without an institution, with what the others had consolidated before it came."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fedft.assembly.retraining import begin_without
from fedft.assembly.runs import resume_config
from fedft.audit.findings import HOLDS
from fedft.audit.recompute import recompute
from fedft.audit.verify import verify_run
from fedft.config import FederationConfig, parse_config
from fedft.ledger.store import Ledger
from fedft.rounds.run_folder import RunFolder
from fedft.simulation.run import play
from tests.federation import OFF, adapter_of, federation_body

TASKS = (
    "data.task_column=hospital", 'continual.tasks=["north", "south"]', "continual.rounds_per_task=[2, 3]",
    "federation.rounds=5", "continual.method=ewc", "continual.strength=5.0", "training.batch_size=4",
)  # fmt: skip
PUBLIC = (*TASKS, *OFF)
PRIVATE = (
    *TASKS, "continual.fisher=private-dp", "continual.fisher_noise_multiplier=20", "privacy.epsilon=3",
    "aggregation.method=ffa_lora",
)  # fmt: skip
FROM = {"in the first task": 1, "where the second begins": 2, "in the second task": 3}
"""The state that is trained on from: west's first update comes in the round after it."""


def late(folder: Path, missing: int, *overrides: str) -> FederationConfig:
    """West is not there in the first rounds."""
    body = federation_body(folder)
    body["institutions"][2]["faults"] = {"drop_rounds": list(range(1, missing + 1))}
    return parse_config(body, folder=folder, overrides=overrides)


def anew(run: Path, folder: Path, **options: Any) -> Path:
    assert begin_without(["west"], parent=run, folder=folder, **options).without == ("west",)
    play(resume_config(folder), folder=folder, resume=True)
    return folder


@pytest.fixture(scope="module")
def never(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("never")
    play(late(folder / "data", 5, *PUBLIC), folder=folder / "run")
    return folder / "run"


@pytest.mark.parametrize("place", FROM)
def test_it_ends_as_if_the_institution_had_never_been_there(place: str, never: Path, tmp_path: Path) -> None:
    """Anchor and Fisher of the task that it begins in are those of the first run, where they have no update of west."""
    play(late(tmp_path / "data", FROM[place], *PUBLIC), folder=tmp_path / "run")
    child = anew(tmp_path / "run", tmp_path / "child")
    assert adapter_of(child).tobytes() == adapter_of(never).tobytes()
    assert adapter_of(child).tobytes() != adapter_of(tmp_path / "run").tobytes()
    assert verify_run(child).finding is None


def looks(ledger: Path) -> Counter[tuple[str, str]]:
    """How often each run was charged for a private Fisher, and released it."""
    with Ledger.open(ledger, read_only=True) as opened:
        entries = [entry for entry in opened.entries() if entry.kind in ("intent", "release")]
    return Counter((e.kind, e.fields["run"]) for e in entries if str(e.fields["purpose"]).startswith("fisher"))


@pytest.mark.parametrize("place", FROM)
def test_a_private_fisher_is_paid_once_where_it_still_holds_and_anew_where_it_does_not(
    place: str, tmp_path: Path
) -> None:
    play(late(tmp_path / "data", FROM[place], *PRIVATE), folder=tmp_path / "run")
    child = anew(tmp_path / "run", tmp_path / "child", overrides=["privacy.epsilon=9"])
    run, trained = (RunFolder(folder).config()["run"] for folder in (tmp_path / "run", child))
    first = {("intent", run): 1, ("release", run): 1}
    holds = FROM[place] >= 2  # made of a state without an update of west
    for name in ("north", "south"):
        found = looks(child / "institutions" / name / "ledger.sqlite")
        assert found == (first if holds else {**first, ("intent", trained): 1, ("release", trained): 1})
    for folder in (tmp_path / "run", child):
        assert verify_run(folder).finding is None
        computed = recompute(folder)
        assert computed.exit_code == HOLDS, computed.findings
