"""What a run will cost before anything is trained: each institution's part; bytes and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedft.assembly.planning import InstitutionPlan, institution_plan
from fedft.config import FederationConfig
from fedft.simulation.setup import Setup
from fedft.update.envelope import largest_envelope
from fedft.update.wire import body_size


@dataclass(frozen=True)
class FederationPlan:
    name: str
    rounds: int
    steps_per_round: int
    mode: str
    aggregation: str
    roles: tuple[str, ...]
    parameters_base: int
    parameters_adapter: int
    parameters_trained: int
    bytes_up_per_update: int
    bytes_down_per_institution: int
    institutions: Mapping[str, InstitutionPlan]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_of(config: FederationConfig) -> FederationPlan:
    """Loads data and base model, trains nothing. Raises what loading raises, UnreachableEpsilon, and PrivacyError."""
    return plan_from(Setup(config))


def plan_from(setup: Setup) -> FederationPlan:
    config, layout = setup.config, setup.model.layout
    trained = layout.only(setup.aggregation.trains)
    return FederationPlan(
        name=config.federation.name,
        rounds=config.federation.rounds,
        steps_per_round=config.training.local_steps,
        mode=config.privacy.mode,
        aggregation=setup.aggregation.name,
        roles=setup.aggregation.trains,
        parameters_base=setup.model.base_parameters,
        parameters_adapter=layout.size,
        parameters_trained=trained.size,
        bytes_up_per_update=largest_envelope(trained.size, config.aggregation.encoding),
        bytes_down_per_institution=body_size("adapter", layout.size, config.aggregation.encoding),
        institutions={name: institution_plan(config, setup.institution(name)) for name in setup.institution_names},
    )
