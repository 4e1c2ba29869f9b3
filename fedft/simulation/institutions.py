"""A simulated institution as in real life: its data, its folder, its ledger, its terms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedft import strict_json
from fedft.assembly.institution import institution_of, public_fisher_on
from fedft.assembly.planning import InstitutionPlan
from fedft.config import FederationConfig
from fedft.errors import StorageError
from fedft.ledger.store import Ledger
from fedft.privacy.distributed import local_epsilon
from fedft.rounds.continual import PublicFisher
from fedft.rounds.institution import Institution
from fedft.simulation.faults import FaultyInstitution
from fedft.simulation.run_keys import ledger_signer, member_of, witness_of
from fedft.simulation.setup import Setup


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
    names, masked = setup.institution_names, setup.config.secure_aggregation.enabled
    return institution_of(
        setup.config,
        setup.model,
        setup.institution(name),
        plan,
        dataset=dataset_of(setup.config, name),
        home=institution_folder(folder, name),
        ledger=ledger,
        fisher=fisher,
        on_step=on_step,
        member=member_of(folder, name, names, ledger) if masked else None,
        tested=setup.tested,
    )


def public_fisher_of(setup: Setup) -> PublicFisher:
    return public_fisher_on(setup.config, setup.model, setup.reference)


def dataset_of(config: FederationConfig, name: str) -> str:
    return next((s.dataset for s in config.institutions if s.name == name and s.dataset), name)


def open_ledger(config: FederationConfig, folder: Path, name: str) -> Ledger:
    """To write, its heads signed by the institution's key of this run (run_keys.make_keys)."""
    path = ledger_path(config, folder, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"expected to make {path.parent}, found {error.strerror}: choose another folder") from error
    return Ledger.open(path, signer=ledger_signer(folder, name))


def epsilon_alone(config: FederationConfig, folder: Path, name: str) -> float | None:
    """What an institution's data set would have spent if secure aggregation failed; None without noise in shares."""
    if config.privacy.mode != "distributed" or config.privacy.delta is None:
        return None
    with Ledger.open(ledger_path(config, folder, name), read_only=True) as ledger:
        return local_epsilon(ledger.events(dataset_of(config, name)), config.privacy.delta)


def write_quality(setup: Setup, folder: Path, name: str) -> None:
    home = institution_folder(folder, name)
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / "quality.json").write_text(strict_json.dumps(setup.quality(name), indent=2) + "\n")
    except OSError as error:
        raise StorageError(f"expected to write {home}, found {error.strerror}: make room or choose another") from error


def with_faults(config: FederationConfig, institution: Institution, folder: Path) -> FaultyInstitution:
    """The institution as the run meets it: a witness of it, and with the faults of its section."""
    faults = next((section.faults for section in config.institutions if section.name == institution.name), None)
    witness = witness_of(folder, institution.name, institution.ledger)
    return FaultyInstitution(institution, faults, config.federation.seed, witness)
