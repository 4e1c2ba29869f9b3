"""From a federation file to what a simulated run is made of: the coordinator's parts, and every institution's rows."""

from __future__ import annotations

from fedft.assembly.coordinator import PublicParts
from fedft.assembly.institution import training_terms
from fedft.assembly.parts import load_rows
from fedft.assembly.rows import InstitutionData, institution_data
from fedft.config import FederationConfig
from fedft.config import Institution as InstitutionSection
from fedft.data.examples import DataSet
from fedft.data.quality import quality_report
from fedft.errors import ConfigError
from fedft.rounds.institution import TrainingTerms
from fedft.simulation.partition import partition


class Setup(PublicParts):
    """What every engine needs of a configuration, made once: labels, model, public rows, institutions."""

    def __init__(self, config: FederationConfig) -> None:
        super().__init__(config)
        self._shares = self._deal()
        _require_quorum(config.federation.min_institutions, len(self._shares))
        self._institutions: dict[str, InstitutionData] = {}
        _ = self.model, self.evaluation, self.reference  # what is wrong with them is said before anything is planned

    @property
    def institution_names(self) -> tuple[str, ...]:
        return tuple(self._shares)

    def institution(self, name: str) -> InstitutionData:
        """Raises DataError when the rows cannot be trained on: one class only, too few for a batch."""
        if name not in self._institutions:
            section, rows = self._shares[name]
            self._institutions[name] = institution_data(
                self.config, section, rows, labels=self.labels, tokenizer=self.model.tokenizer
            )
        return self._institutions[name]

    def quality(self, name: str) -> dict[str, object]:
        """The report that stays with the institution."""
        task = self.config.task
        classification = task.kind == "classification"
        fields = (task.text,) if classification else ("instruction", "input", "output")
        label_field = task.label if classification else None
        rows = self._shares[name][1]
        return quality_report(rows, text_fields=fields, label_field=label_field, labels=self.labels or ())

    def terms(self, section: InstitutionSection) -> TrainingTerms:
        return training_terms(self.config, section)

    def _deal(self) -> dict[str, tuple[InstitutionSection, DataSet]]:
        config = self.config
        sections = {section.name: section for section in config.institutions}
        if config.data.train is None or config.data.partition is None:
            _require_rows(config)
            return {
                name: (section, load_rows(config, str(section.data), labels=self.labels, private=True))
                for name, section in sections.items()
            }
        train = load_rows(config, config.data.train, labels=self.labels, private=True)
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


def _require_quorum(wanted: int, found: int) -> None:
    """With a natural partition the data alone say how many there are; without a quorum all would train for nothing."""
    if wanted > found:
        raise ConfigError(
            f"expected federation.min_institutions to be at most the {found} institutions of the data, found {wanted}: "
            "lower it, or choose another data.partition.column"
        )
