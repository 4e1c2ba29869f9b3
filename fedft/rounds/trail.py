"""The coordinator's trail: what it writes into the audit log of a run, and the signed heads that it tells and is told.

Guarantees:
- Before a round is asked for, the entry of the one before is on disk under a signed head, and that head goes out with
  the request.
- A round has one entry. It follows from the round's checkpoint: a run that is resumed writes the entry that is missing,
  or finds the one that is there, or does not go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from fedft import __version__, strict_json
from fedft.errors import FederationError, IdentityError, StorageError
from fedft.identity.keys import PublicKey
from fedft.ledger.attestation import Attestation, open_attestation
from fedft.records.files import files_of
from fedft.records.lineage import Parent
from fedft.records.log import AuditLog, now
from fedft.records.software import code_digest, packages_digest
from fedft.rounds.messages import encode_notice
from fedft.rounds.open_round import OpenRound
from fedft.rounds.plan import RoundPlan
from fedft.secagg.context import Identities

Standing = Callable[[], tuple[Identities, str]]
"""The institutions' keys as they stand now, and the digest of the roster that they are from, "" where there is none."""

_MASKING = (
    "context", "cohort", "threshold", "ring_bits", "fraction_bits", "uploaded", "dropped", "silent", "lied",
    "abandoned",
)  # fmt: skip


class Trail:
    """Over one run's log. aggregation: the algorithm's name. withdrawals: statements of who left, at each call."""

    def __init__(
        self, log: AuditLog, standing: Standing, *, aggregation: str, withdrawals: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self._log, self._standing, self._aggregation, self._withdrawals = log, standing, aggregation, withdrawals
        self._heads: dict[str, str] = {}

    def begin(
        self, *, coordinator: str, config: bytes, terms: str, base_model: str, layout: str, parent: Parent | None = None
    ) -> None:
        """Write the first entry, unless it is there, and the one of the run that this one goes on from.

        coordinator: its key's text; config: of config.json.
        """
        if not self._log.count:
            self._start(coordinator, config, terms, base_model, layout)
        if parent is not None and self._log.count == 1:
            self._log.append("parent", parent.as_json())

    def _start(self, coordinator: str, config: bytes, terms: str, base_model: str, layout: str) -> None:
        fields = {
            "run": self._log.run,
            "coordinator": coordinator,
            "version": __version__,
            "code": code_digest(),
            "packages": packages_digest(),
            "config": hashlib.sha256(config).hexdigest(),
            "terms": terms,
            "base_model": base_model,
            "layout": layout,
        }
        self._log.append("start", fields)

    @property
    def members(self) -> Set[str]:
        """Who belongs to the federation now."""
        return self._standing()[0].keys()

    def before_round(self) -> str:
        """The signed head to send along, after it was noted who left, and the keys if they have changed."""
        self._note_withdrawals()
        identities, digest = self._standing()
        fields = {"keys": {name: key.text for name, key in identities.items()}, "sha256": digest}
        if "roster" not in self._log.last or self._log.last["roster"].fields != fields:
            self._log.append("roster", fields)
        return self._log.note

    def attested(self, name: str, note: str, answer: bytes, plan: RoundPlan) -> None:
        """Return if ``name`` signed ``note`` beside this answer to this plan. Raises IdentityError otherwise."""
        self._opened(name, note).require_answer(run=plan.run, round=plan.round, answer=answer)

    def entry_of(self, opened: OpenRound, record: Mapping[str, Any], adapter: str) -> dict[str, Any]:
        """What the round's entry will say, but for the checkpoint's digest; JSON, to be kept in the checkpoint."""
        masking = record.get("secure_aggregation")
        fields = {
            "round": opened.plan.round,
            "plan": opened.plan.digest,
            "cohort": list(opened.plan.cohort),
            "updates": {name: opened.digests[name] for name in sorted(opened.accepted)},
            "refused": dict(opened.refused),
            "missing": record["missing"],
            "heads": dict(opened.notes),
            "masking": None if masking is None else {name: masking[name] for name in _MASKING},
            "quorum": record["quorum"],
            "aggregation": self._aggregation,
            "version": __version__,
            "code": code_digest(),
            "adapter": adapter,
            "record": hashlib.sha256(strict_json.dumps(record).encode()).hexdigest(),
        }
        return {"time_utc": now(), "fields": fields}

    def commit(self, kept: Mapping[str, Any], checkpoint: str) -> None:
        """Write the entry of a round whose checkpoint is in place. kept: of entry_of."""
        self._log.append("round", {**kept["fields"], "checkpoint": checkpoint}, time_utc=kept["time_utc"])

    def resume(self, round: int, kept: Mapping[str, Any] | None, checkpoint: str) -> None:
        """Put the log right after a death between the checkpoint of ``round``, the newest, and its entry.

        Raises FederationError where checkpoints and log are not of one run's history.
        """
        if kept is not None and self._log.rounds == round - 1:
            self.commit(kept, checkpoint)
        last = self._log.last.get("round")
        if self._log.rounds != round or (last is not None and last.fields["checkpoint"] != checkpoint):
            raise FederationError(
                f"expected the state after round {self._log.rounds}, which the audit log counts, found another after "
                f"round {round}: restore the run's folder whole; no round is played twice"
            )

    def notice(self) -> bytes:
        """What institutions are sent after the last round."""
        return encode_notice(self._log.run, self._log.note)

    def noticed(self, name: str, notice: bytes, reply: bytes) -> None:
        """Keep the head that ``name`` replied with. Raises IdentityError for anything else."""
        try:
            note = reply.decode()
        except UnicodeDecodeError:
            raise IdentityError("expected the attestation of a notice, found something else: send it anew") from None
        self._opened(name, note).require_answer(run=self._log.run, round=0, answer=notice)
        self._heads[name] = note

    def end(self, *, best_round: int) -> None:
        """The last entry, over all files of the folder as they are now. Raises StorageError."""
        self._note_withdrawals()
        try:
            files = files_of(self._log.folder)
        except OSError as error:
            raise StorageError(
                f"expected to read the files of {self._log.folder}, found {error.strerror}: correct it, then resume"
            ) from error
        fields = {"rounds": self._log.rounds, "best_round": best_round, "heads": self._heads, "files": files}
        self._log.append("end", fields)

    def _note_withdrawals(self) -> None:
        """Before the keys of who left are gone from the log."""
        for statement in self._withdrawals():
            self._log.append_withdrawal(statement)

    def _opened(self, name: str, note: str) -> Attestation:
        """By the key that the log has: one that changed since the round was asked for counts from the next."""
        text = self._log.last["roster"].fields["keys"].get(name) if "roster" in self._log.last else None
        if text is None:
            raise IdentityError(f"expected a member of the federation, found {name}: admit it, or leave it out")
        return open_attestation(note, name, PublicKey(text))
