"""An institution as witness of a run: it keeps the coordinator's signed heads, and signs its own beside each answer.

Guarantee: no round is answered without a head, and one that is kept was signed by the coordinator, is of the run that
was asked for, and goes on from those kept before; another history is refused before the round is charged. docs/SPEC.md,
"Receipts".
"""

from __future__ import annotations

from fedft.errors import IdentityError, LedgerError, RecordError
from fedft.identity.keys import PublicKey
from fedft.ledger.attestation import attest
from fedft.ledger.chain import Signer
from fedft.ledger.store import Ledger
from fedft.records.heads import LogHead
from fedft.rounds.messages import decode_notice, with_attestation


class Witness:
    """Of one institution. signer: its name and identity key, as the ledger's own."""

    def __init__(self, signer: Signer, *, coordinator: PublicKey, ledger: Ledger) -> None:
        self._signer, self._coordinator, self._ledger = signer, coordinator, ledger

    def accept(self, run: str, head: str) -> None:
        """Keep the head that came with a request of ``run``, as a receipt.

        Raises IdentityError for none, one that the coordinator did not sign, of another run, or of another history.
        """
        if not head:
            raise IdentityError("expected the head of the coordinator's log, found none: keep a log, and send its head")
        try:
            told = LogHead.open(head, self._coordinator)
        except RecordError as error:
            raise IdentityError(str(error)) from None
        if told.run != run:
            raise IdentityError("expected the head of this run's log, found another run's: send the run's own")
        try:
            self._ledger.record_receipt(head)
        except LedgerError as error:
            if type(error) is LedgerError:
                raise IdentityError(str(error)) from None
            raise

    def attested(self, answer: bytes, *, run: str, round: int) -> bytes:
        """``answer`` behind the signed head of the ledger as it stands."""
        return with_attestation(self._note(answer, run, round), answer)

    def notice(self, data: bytes) -> bytes:
        """Keep the head of a notice; the attestation's note to reply with. Raises as ``accept``, and ConfigError."""
        run, head = decode_notice(data)
        self.accept(run, head)
        return self._note(data, run, 0).encode()

    def _note(self, answer: bytes, run: str, round: int) -> str:
        return attest(self._ledger.head, run=run, round=round, answer=answer, signer=self._signer)
