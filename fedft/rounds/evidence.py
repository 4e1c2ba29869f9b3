"""What an intent says beside its event, so that an auditor can check it: docs/SPEC.md, "Evidence"."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedft.data.formats import EncodedDataSet
    from fedft.rounds.institution import Institution


def evidence_of(institution: Institution, data: EncodedDataSet) -> dict[str, str | int | float]:
    """Of every charge of ``institution`` for the rows ``data``: facts that are public, or its own."""
    found: dict[str, str | int | float] = {
        "institution": institution.name,
        "fingerprint": data.fingerprint,
        "units": data.unit_count,
        "batch_size": institution.terms.batch_size,
        **institution.about,
    }
    guarantee = institution.guarantee
    if guarantee is not None:
        found |= {"clip_norm": guarantee.clip_norm, "delta": guarantee.delta, "cap": guarantee.epsilon}
    return found
