"""What a run will cost before anything is trained: each institution's part; bytes and parameters.

Where the file names nobody's rows, as a coordinator's does: what is asked, and what that means for data sets of several
sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedft.assembly.coordinator import PublicParts
from fedft.assembly.masking import require_masks
from fedft.assembly.planning import (
    AssumedPlan,
    InstitutionPlan,
    assumed_plan,
    institution_plan,
    likely_units,
    promised_plan,
)
from fedft.config import FederationConfig
from fedft.simulation.setup import Setup
from fedft.update.envelope import largest_envelope
from fedft.update.wire import body_size


@dataclass(frozen=True)
class FederationPlan:
    """unit: the column that names the privacy unit; None: each row is one. tasks: where there are several.

    institutions: of those whose rows are at hand; else none, but asked, what each is asked to keep, and assumed, what
    that means for data sets of some sizes.
    """

    name: str
    rounds: int
    steps_per_round: int
    mode: str
    unit: str | None
    tasks: tuple[str, ...]
    aggregation: str
    roles: tuple[str, ...]
    parameters_base: int
    parameters_adapter: int
    parameters_trained: int
    bytes_up_per_update: int
    bytes_down_per_institution: int
    institutions: Mapping[str, InstitutionPlan]
    asked: InstitutionPlan | None = None
    assumed: tuple[AssumedPlan, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_of(config: FederationConfig, *, units: Sequence[int] = ()) -> FederationPlan:
    """Loads data and base model, trains nothing. Raises what loading raises, UnreachableEpsilon, and PrivacyError.

    units: sizes of data sets to assume. With them, and where the file names nobody's rows, no institution's are read.
    """
    if not units and _names_rows(config):
        return plan_from(Setup(config))
    parts = PublicParts(config)
    _ = parts.model, parts.evaluation, parts.reference  # what is wrong with them is said before anything is planned
    assumed = tuple(assumed_plan(config, count) for count in units or likely_units(config))
    return _plan(parts, {}, asked=promised_plan(config), assumed=assumed)


def plan_from(setup: Setup) -> FederationPlan:
    names = setup.institution_names
    size = setup.model.layout.only(setup.aggregation.trains).size
    require_masks(setup.config, setup.aggregation, cohort=names, size=size)
    plans = {name: institution_plan(setup.config, setup.institution(name), members=len(names)) for name in names}
    return _plan(setup, plans)


def _names_rows(config: FederationConfig) -> bool:
    return config.data.train is not None or any(section.data is not None for section in config.institutions)


def _plan(
    parts: PublicParts,
    institutions: Mapping[str, InstitutionPlan],
    *,
    asked: InstitutionPlan | None = None,
    assumed: tuple[AssumedPlan, ...] = (),
) -> FederationPlan:
    config, layout = parts.config, parts.model.layout
    trained = layout.only(parts.aggregation.trains)
    return FederationPlan(
        name=config.federation.name,
        rounds=config.federation.rounds,
        steps_per_round=config.training.local_steps,
        mode=config.privacy.mode,
        unit=config.data.unit,
        tasks=config.continual.tasks,
        aggregation=parts.aggregation.name,
        roles=parts.aggregation.trains,
        parameters_base=parts.model.base_parameters,
        parameters_adapter=layout.size,
        parameters_trained=trained.size,
        bytes_up_per_update=largest_envelope(trained.size, config.aggregation.encoding),
        bytes_down_per_institution=body_size("adapter", layout.size, config.aggregation.encoding),
        institutions=institutions,
        asked=asked,
        assumed=assumed,
    )
