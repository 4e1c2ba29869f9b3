"""A federation as one TOML file: frozen sections, every value checked once, here, and nowhere below.

The only reader of TOML. Paths in a file are relative to that file. Unknown keys are refused with the nearest known one.
"""

from fedft.config.loading import load_config, parse_config, variant_config, with_overrides
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
    "Model",
    "Outcome",
    "Partition",
    "Privacy",
    "Section",
    "Simulation",
    "Task",
    "Training",
    "load_config",
    "parse_config",
    "template",
    "variant_config",
    "with_overrides",
]
