"""A federation, and an institution's policy, as one TOML file each: frozen sections, every value checked once, here.

The only reader of TOML. Paths in a file are relative to that file. Unknown keys are refused with the nearest known one.
"""

from fedft.config.loading import load_config, parse_config, variant_config, with_overrides
from fedft.config.policy import InstitutionPolicy, load_policy, parse_policy, policy_template
from fedft.config.sections import (
    Adapter,
    Aggregation,
    Check,
    Continual,
    Data,
    Evaluation,
    Faults,
    Federation,
    FederationConfig,
    Institution,
    Model,
    Outcome,
    Partition,
    Privacy,
    Section,
    Simulation,
    Task,
    Training,
)
from fedft.config.template import template

__all__ = [
    "Adapter",
    "Aggregation",
    "Check",
    "Continual",
    "Data",
    "Evaluation",
    "Faults",
    "Federation",
    "FederationConfig",
    "Institution",
    "InstitutionPolicy",
    "Model",
    "Outcome",
    "Partition",
    "Privacy",
    "Section",
    "Simulation",
    "Task",
    "Training",
    "load_config",
    "load_policy",
    "parse_config",
    "parse_policy",
    "policy_template",
    "template",
    "variant_config",
    "with_overrides",
]
