"""What happened to a data set, as facts. Epsilon is never stored: it is derived from these."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fedft.errors import LedgerCorrupt


@dataclass(frozen=True)
class DpSgdRound:
    """``steps`` Poisson-subsampled Gaussian releases of a sum of clipped per-unit gradients.

    noise_multiplier: standard deviation of the noise over the clip norm. sampling_rate: probability of each unit in
    each step. Neighbouring relation: add or remove one unit. Source: Abadi et al. 2016, section 3.1.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int


@dataclass(frozen=True)
class GaussianRelease:
    """One Gaussian release of a sum over all units: noise_multiplier = standard deviation over L2 sensitivity."""

    noise_multiplier: float


PrivacyEvent = DpSgdRound | GaussianRelease

_KINDS: dict[str, type[DpSgdRound] | type[GaussianRelease]] = {
    "dp-sgd-round": DpSgdRound,
    "gaussian-release": GaussianRelease,
}


def event_as_json(event: PrivacyEvent) -> dict[str, Any]:
    kind = next(name for name, cls in _KINDS.items() if isinstance(event, cls))
    return {"kind": kind, **asdict(event)}


def event_from_json(body: dict[str, Any]) -> PrivacyEvent:
    """Inverse of event_as_json. Raises LedgerCorrupt on anything else."""
    fields = dict(body)
    try:
        return _KINDS[fields.pop("kind")](**fields)
    except (KeyError, TypeError) as error:
        raise LedgerCorrupt(
            f"expected a privacy event of kind {' or '.join(_KINDS)}, found fields {sorted(body)}: "
            "the ledger was written by another version or altered; restore it from a backup"
        ) from error
