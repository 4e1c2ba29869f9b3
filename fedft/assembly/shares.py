"""Who has which rows where a federation is played on one machine: each its own file, or its share of a common one."""

from __future__ import annotations

from fedft.assembly.partition import partition
from fedft.assembly.parts import Labels, load_rows
from fedft.config import FederationConfig
from fedft.config import Institution as InstitutionSection
from fedft.data.examples import DataSet
from fedft.errors import ConfigError


def deal(config: FederationConfig, labels: Labels) -> dict[str, tuple[InstitutionSection, DataSet]]:
    """Each institution's section and rows, by its name. Raises ConfigError and DataError."""
    sections = {section.name: section for section in config.institutions}
    if config.data.train is None or config.data.partition is None:
        _require_rows(config)
        return {
            name: (section, load_rows(config, str(section.data), labels=labels, private=True))
            for name, section in sections.items()
        }
    train = load_rows(config, config.data.train, labels=labels, private=True)
    label_field = config.task.label if config.task.kind == "classification" else None
    shares = partition(train, config.data.partition, label_field=label_field, seed=config.federation.seed)
    if sections and config.data.partition.method != "natural" and not sections.keys() & shares.keys():
        if len(sections) != len(shares):
            raise ConfigError(
                f"expected as many [[institutions]] as data.partition.institutions = {len(shares)}, "
                f"found {len(sections)}: change either"
            )
        shares = dict(zip(sections, shares.values(), strict=True))
    unknown = sections.keys() - shares.keys()
    if unknown:
        raise ConfigError(
            f"expected [[institutions]] among {', '.join(shares)}, found {', '.join(sorted(unknown))}: "
            "correct the names, or data.partition"
        )
    return {name: (sections.get(name) or InstitutionSection(name=name), rows) for name, rows in shares.items()}


def _require_rows(config: FederationConfig) -> None:
    """Across organisations the file names nobody's rows; on one machine each institution needs some."""
    without = [section.name for section in config.institutions if section.data is None]
    if without or not config.institutions:
        missing = (
            f"institutions.{without[0]}.data" if without else "data.train with data.partition, or [[institutions]]"
        )
        raise ConfigError(f"expected rows for every institution, found none: add {missing}")
