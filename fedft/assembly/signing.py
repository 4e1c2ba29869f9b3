"""With what a coordinator signs, and the audit log of a run that it signs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedft.aggregation.base import Aggregation
from fedft.identity.keys import PrivateKey
from fedft.model.vector import AdapterLayout
from fedft.records.log import AuditLog
from fedft.rounds.plan import terms_digest
from fedft.rounds.run_folder import RunFolder
from fedft.rounds.trail import Trail
from fedft.secagg.context import Identities


@dataclass(frozen=True)
class Signer:
    """A coordinator's key, and whose signatures it believes, as they stand at each call. roster: its digest, or "".

    withdrawals: signed statements of those who have left.
    """

    identity: PrivateKey
    identities: Callable[[], Identities]
    roster: Callable[[], str] = str
    withdrawals: Callable[[], Sequence[str]] = tuple


def trail_of(
    signer: Signer | None,
    aggregation: Aggregation,
    *,
    run: str,
    store: RunFolder,
    terms: str,
    layout: AdapterLayout,
) -> Trail | None:
    """The trail in the run's folder, begun where it was not; None without a key.

    Raises what AuditLog.open raises, and ConfigError where the folder holds no run.
    """
    if signer is None:
        return None
    log = AuditLog.open(store.path, run=run, key=signer.identity)
    trail = Trail(
        log,
        lambda: (signer.identities(), signer.roster()),
        aggregation=aggregation.name,
        withdrawals=signer.withdrawals,
    )
    trail.begin(
        coordinator=signer.identity.public.text,
        config=store.config_bytes(),
        terms=terms_digest(terms),
        base_model=layout.base_digest,
        layout=layout.digest,
        parent=store.parent(),
    )
    return trail
