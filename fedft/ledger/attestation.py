"""What an institution signs beside each answer: how far its ledger has come, and the answer. docs/SPEC.md, "Answer".

Guarantee: open_attestation returns only what the institution's key signed, and require_answer raises for any other run,
round or answer than the one it was made for.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from fedft.errors import IdentityError, LedgerCorrupt
from fedft.identity.keys import PublicKey
from fedft.identity.notes import open_note
from fedft.ledger.chain import Head, Signer
from fedft.types import Digest

_LAST = re.compile(r"([A-Za-z0-9][A-Za-z0-9._:/-]{0,127}) (0|[1-9][0-9]{0,9}) ([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class Attestation:
    """head: of the ledger when it answered. round: 0 in reply to a notice. sha256: of the answer, or of the notice."""

    head: Head
    run: str
    round: int
    sha256: Digest

    def as_text(self) -> str:
        return f"{self.head.as_text()}{self.run} {self.round} {self.sha256}\n"

    def require_answer(self, *, run: str, round: int, answer: bytes) -> None:
        """Raise IdentityError unless this is of ``answer`` to ``round``."""
        if (self.run, self.round, self.sha256) != (run, round, hashlib.sha256(answer).hexdigest()):
            raise IdentityError(f"expected what was signed beside this answer to round {round}, found another's")


def attest(head: Head, *, run: str, round: int, answer: bytes, signer: Signer) -> str:
    """The signed note."""
    digest = Digest(hashlib.sha256(answer).hexdigest())
    return signer.signed(Attestation(head, run, round, digest).as_text())


def open_attestation(note: str, name: str, key: PublicKey) -> Attestation:
    """What ``name`` signed with ``key``. Raises IdentityError for anything else."""
    text = open_note(note, name, key)
    start, _, last = text[:-1].rpartition("\n")
    found = _LAST.fullmatch(last)
    try:
        head = Head.from_text(start + "\n")
    except LedgerCorrupt:
        found = None
    if found is None:
        raise IdentityError("expected the attestation of an answer, found another note: docs/SPEC.md has its form")
    return Attestation(head, found[1], int(found[2]), Digest(found[3]))
