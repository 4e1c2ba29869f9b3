"""An institution's rows, as they are and as tokens by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedft.assembly.coordinator import rows_by_task
from fedft.assembly.parts import Labels, encode_rows
from fedft.config import FederationConfig
from fedft.config import Institution as InstitutionSection
from fedft.data.examples import DataSet
from fedft.data.formats import EncodedDataSet
from fedft.data.quality import require_batch, require_trainable
from fedft.rounds.plan import DEFAULT_TASK


@dataclass(frozen=True, repr=False)
class InstitutionData:
    """One simulated institution: its section, raw rows, and rows as tokens by task."""

    section: InstitutionSection
    rows: DataSet
    encoded: Mapping[str, EncodedDataSet]

    @property
    def units(self) -> int:
        """Privacy units over all tasks; a unit with rows for two tasks counts once."""
        return len({example.unit for example in self.rows.examples})


def institution_data(
    config: FederationConfig, section: InstitutionSection, rows: DataSet, *, labels: Labels, tokenizer: Any
) -> InstitutionData:
    """Raises DataError when the rows cannot be trained on: one class only, too few for a batch."""
    if config.task.kind == "classification":
        require_trainable(rows, labels, label_field=config.task.label)
    parts = rows_by_task(config, rows, config.continual.tasks or (DEFAULT_TASK,))
    encoded = {task: encode_rows(config, part, tokenizer, labels=labels) for task, part in parts.items()}
    for data in encoded.values() if config.privacy.max_units is None else ():
        require_batch(data.unit_count, section.batch_size or config.training.batch_size, name=data.name)
    return InstitutionData(section, rows, encoded)
