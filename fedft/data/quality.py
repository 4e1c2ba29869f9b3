"""What an institution should know of its own rows before it trains. Counts only; the report stays where it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from fedft.data.examples import DataSet
from fedft.errors import DataError


def quality_report(
    data: DataSet, *, text_fields: Sequence[str], label_field: str | None, labels: Sequence[str] = ()
) -> dict[str, Any]:
    """Rows, units, duplicates, empties, label balance and lengths, ready for JSON.

    Guarantee: of a row's content only the label appears, and only where it is one of ``labels``, the task's public
    words; rows with another are counted together.
    """
    texts = [tuple(example.fields.get(field, "") for field in text_fields) for example in data.examples]
    per_unit = Counter(example.unit for example in data.examples)
    report: dict[str, Any] = {
        "rows": len(data.examples),
        "skipped": data.skipped,
        "units": len(per_unit),
        "rows_per_unit": _histogram(per_unit.values()),
        "exact_duplicates": len(texts) - len(set(texts)),
        "empty": {field: sum(not text[i].strip() for text in texts) for i, field in enumerate(text_fields)},
        "characters": _histogram(_power_of_two(sum(map(len, text))) for text in texts),
        "fingerprint": data.fingerprint,
    }
    if label_field is not None:
        counts = Counter(example.fields[label_field] for example in data.examples)
        report["labels"] = {label: counts[label] for label in sorted(labels)}
        report["other_labels"] = sum(count for label, count in counts.items() if label not in labels)
    return report


def require_trainable(data: DataSet, labels: Sequence[str] | None = None, *, label_field: str = "label") -> None:
    """Raise DataError when nothing can be learned: classification (``labels`` given) with fewer than two classes."""
    if labels is None:
        return
    found = {example.fields[label_field] for example in data.examples}
    if len(labels) < 2 or len(found) < 2:
        raise DataError(
            f"{data.name}: expected rows of at least two of the task's {len(labels)} classes, found one class only: "
            "a classifier cannot learn from it; add rows or leave this institution out"
        )


def require_batch(unit_count: int, batch_size: int, *, name: str = "data set") -> None:
    """Raise DataError unless there are at least as many units as a step takes on average."""
    if unit_count < batch_size:
        raise DataError(
            f"{name}: expected at least training.batch_size = {batch_size} privacy units, found fewer: "
            "lower the batch size, or the institution's own batch_size"
        )


def _histogram(values: Iterable[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _power_of_two(length: int) -> int:
    """The smallest power of two that is not less than ``length``: the bin's upper end."""
    return 1 << max(length - 1, 0).bit_length()
