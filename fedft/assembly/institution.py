"""An institution's side of a configuration: the terms it trains on, and the institution that answers rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from fedft.assembly.coordinator import GENERAL
from fedft.assembly.masking import masking_of
from fedft.assembly.planning import InstitutionPlan, guarantee_of
from fedft.assembly.rows import InstitutionData
from fedft.config import FederationConfig
from fedft.config import Institution as InstitutionSection
from fedft.data.formats import EncodedDataSet
from fedft.ledger.store import Ledger
from fedft.model.adapter import AdaptedModel
from fedft.rounds.continual import OnlineEwc, PrivateFisherTerms, PublicFisher, shared_public_fisher
from fedft.rounds.institution import Institution
from fedft.rounds.member import Member
from fedft.rounds.plan import DEFAULT_TASK
from fedft.rounds.terms import TrainingTerms
from fedft.training.fisher import Fisher, public_fisher
from fedft.training.self_test import SelfTest
from fedft.types import AdapterVector, InstitutionId


def training_terms(config: FederationConfig, section: InstitutionSection) -> TrainingTerms:
    training = config.training
    return TrainingTerms(
        batch_size=section.batch_size or training.batch_size,
        learning_rate=training.learning_rate,
        physical_batch_size=training.physical_batch_size,
        optimizer=training.optimizer,
        weight_decay=training.weight_decay,
        scheduler=training.scheduler,
        warmup_steps=training.warmup_steps,
        scheduler_options=training.scheduler_options,
        max_gradient_norm=training.max_gradient_norm,
        max_rows_per_unit=config.data.max_rows_per_unit,
        precision=training.precision,
    )


def institution_of(
    config: FederationConfig,
    model: AdaptedModel,
    data: InstitutionData,
    plan: InstitutionPlan,
    *,
    dataset: str,
    home: Path,
    ledger: Ledger,
    fisher: PublicFisher,
    on_step: Callable[[int, int], None] | None = None,
    member: Member | None = None,
    allowed_by: str = 'privacy.mode = "off"',
    tested: dict[tuple[str, ...], SelfTest] | None = None,
) -> Institution:
    """The institution that answers rounds. home: keeps what must outlive it; dataset: whose budget is spent.

    member: needed for secure aggregation. Raises ConfigError where it is asked for and there is none. allowed_by: the
    line that lets a run without privacy train; of the federation file, where no policy has one. tested: of one
    that shares its model with others.
    """
    guarantee = guarantee_of(plan)
    about = {"unit": config.data.unit or "", **({} if guarantee is not None else {"allowed_by": allowed_by})}
    return Institution(
        InstitutionId(data.section.name),
        model=model,
        data=data.encoded,
        dataset=dataset,
        ledger=ledger,
        terms=training_terms(config, data.section),
        guarantee=guarantee,
        seed=config.federation.seed,
        consolidator=_consolidator(config, home, fisher),
        on_step=on_step,
        note=lines_into(home / "log.txt"),
        masking=masking_of(config, data.section.name, member),
        about=about,
        tested=tested,
    )


def lines_into(file: Path) -> Callable[[str], None]:
    """Appends a line with its time to a file of the institution's own."""

    def note(words: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {words}\n")

    return note


def public_fisher_on(
    config: FederationConfig, model: AdaptedModel, reference: Mapping[str, EncodedDataSet]
) -> PublicFisher:
    """On public rows of what came before task k: the general reference before the first, then task k-1's own."""
    continual = config.continual
    tasks = continual.tasks or (DEFAULT_TASK,)

    def compute(adapter: AdapterVector, task_index: int) -> Fisher | None:
        rows = reference.get(GENERAL if task_index == 0 else tasks[task_index - 1])
        if rows is None:
            return None
        model.write_vector(adapter)
        return public_fisher(
            model,
            rows,
            examples=continual.fisher_examples,
            seed=config.federation.seed,
            detail=continual.fisher_detail or "entry",
        )

    return shared_public_fisher(compute)


def _consolidator(config: FederationConfig, home: Path, fisher: PublicFisher) -> OnlineEwc | None:
    continual = config.continual
    if continual.method == "none":
        return None
    private = PrivateFisherTerms(
        continual.fisher_clip_norm, continual.fisher_noise_multiplier, continual.fisher_detail or "matrix"
    )
    return OnlineEwc(
        home,
        strength=continual.strength,
        decay=continual.decay,
        tasks=continual.tasks,
        source=private if continual.fisher == "private-dp" else fisher,
    )
