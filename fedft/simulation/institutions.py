"""A simulated institution as in real life: its data, its folder, its ledger, its terms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fedft.assembly.coordinator import GENERAL
from fedft.assembly.planning import InstitutionPlan, guarantee_of
from fedft.config import FederationConfig
from fedft.errors import StorageError
from fedft.ledger.store import Ledger
from fedft.rounds.continual import OnlineEwc, PrivateFisherTerms, PublicFisher, shared_public_fisher
from fedft.rounds.institution import Institution
from fedft.simulation.faults import FaultyInstitution
from fedft.simulation.setup import Setup
from fedft.training.fisher import Fisher, public_fisher
from fedft.types import AdapterVector, InstitutionId


def institution_folder(run_folder: Path, name: str) -> Path:
    return run_folder / "institutions" / name


def ledger_path(config: FederationConfig, run_folder: Path, name: str) -> Path:
    """In the run's folder, or where budgets are kept across runs: under the data set's name, whoever it is lent to."""
    shared = config.simulation.ledger_dir
    if shared is None:
        return institution_folder(run_folder, name) / "ledger.sqlite"
    return Path(shared) / f"{dataset_of(config, name)}.sqlite"


def make_institution(
    setup: Setup,
    plan: InstitutionPlan,
    folder: Path,
    name: str,
    ledger: Ledger,
    fisher: PublicFisher,
    on_step: Callable[[int, int], None] | None = None,
) -> Institution:
    """One institution of the run, with its section's terms and the noise of its plan."""
    data, config = setup.institution(name), setup.config
    continual, consolidator = config.continual, None
    if continual.method == "ewc":
        private = PrivateFisherTerms(
            continual.fisher_clip_norm, continual.fisher_noise_multiplier, continual.fisher_detail or "matrix"
        )
        consolidator = OnlineEwc(
            institution_folder(folder, name),
            strength=continual.strength,
            decay=continual.decay,
            tasks=config.continual.tasks,
            source=private if continual.fisher == "private-dp" else fisher,
        )
    return Institution(
        InstitutionId(name),
        model=setup.model,
        data=data.encoded,
        dataset=dataset_of(config, name),
        ledger=ledger,
        terms=setup.terms(data.section),
        guarantee=guarantee_of(plan),
        seed=config.federation.seed,
        consolidator=consolidator,
        on_step=on_step,
    )


def public_fisher_of(setup: Setup) -> PublicFisher:
    """On public rows of what came before task k: the general reference before the first, then task k-1's own."""
    continual = setup.config.continual

    def compute(adapter: AdapterVector, task_index: int) -> Fisher | None:
        rows = setup.reference.get(GENERAL if task_index == 0 else setup.tasks[task_index - 1])
        if rows is None:
            return None
        setup.model.write_vector(adapter)
        return public_fisher(
            setup.model,
            rows,
            examples=continual.fisher_examples,
            seed=setup.config.federation.seed,
            detail=continual.fisher_detail or "entry",
        )

    return shared_public_fisher(compute)


def dataset_of(config: FederationConfig, name: str) -> str:
    return next((s.dataset for s in config.institutions if s.name == name and s.dataset), name)


def open_ledger(config: FederationConfig, folder: Path, name: str) -> Ledger:
    path = ledger_path(config, folder, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"expected to make {path.parent}, found {error.strerror}: choose another folder") from error
    return Ledger.open(path)


def write_quality(setup: Setup, folder: Path, name: str) -> None:
    home = institution_folder(folder, name)
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / "quality.json").write_text(json.dumps(setup.quality(name), indent=2) + "\n")
    except OSError as error:
        raise StorageError(f"expected to write {home}, found {error.strerror}: make room or choose another") from error


def with_faults(config: FederationConfig, institution: Institution) -> FaultyInstitution:
    faults = next((section.faults for section in config.institutions if section.name == institution.name), None)
    return FaultyInstitution(institution, faults, config.federation.seed)
