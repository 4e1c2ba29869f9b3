"""From a federation file to what a simulated run is made of: the coordinator's parts, and every institution's rows."""

from __future__ import annotations

from collections.abc import Sequence

from fedft.assembly.coordinator import PublicParts
from fedft.assembly.institution import training_terms
from fedft.assembly.rows import InstitutionData, institution_data
from fedft.assembly.shares import deal
from fedft.config import FederationConfig
from fedft.config import Institution as InstitutionSection
from fedft.data.quality import quality_report
from fedft.errors import ConfigError
from fedft.rounds.terms import TrainingTerms
from fedft.training.self_test import SelfTest


class Setup(PublicParts):
    """What every engine needs of a configuration, made once: labels, model, public rows, institutions.

    without: institutions that take no part; the others have the rows that they would have beside them. tested: what the
    one model's self-tests found, for all of them.
    """

    def __init__(self, config: FederationConfig, without: Sequence[str] = ()) -> None:
        super().__init__(config)
        self.without = tuple(without)
        self._shares = {name: share for name, share in deal(config, self.labels).items() if name not in self.without}
        _require_quorum(config.federation.min_institutions, len(self._shares))
        self._institutions: dict[str, InstitutionData] = {}
        self.tested: dict[tuple[str, ...], SelfTest] = {}
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


def _require_quorum(wanted: int, found: int) -> None:
    """With a natural partition the data alone say how many there are; without a quorum all would train for nothing."""
    if wanted > found:
        raise ConfigError(
            f"expected federation.min_institutions to be at most the {found} institutions of the data, found {wanted}: "
            "lower it, or choose another data.partition.column"
        )
