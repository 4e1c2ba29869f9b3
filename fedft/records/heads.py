"""The head of a coordinator's audit log: how far a run has come, signed. Form: docs/SPEC.md, "Audit log"."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from fedft.errors import IdentityError, RecordError
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.notes import COORDINATOR, claimed, open_note, sign_note
from fedft.types import Digest

ORIGIN = "fedft/v1/audit-log/"
_TEXT = re.compile(
    re.escape(ORIGIN) + r"([A-Za-z0-9][A-Za-z0-9._:/-]{0,127})\n([1-9][0-9]{0,15})\n([A-Za-z0-9+/]{43}=)\n", re.ASCII
)


@dataclass(frozen=True)
class LogHead:
    """Run, number of entries, hash of the last."""

    run: str
    count: int
    hash: Digest

    def as_text(self) -> str:
        return f"{ORIGIN}{self.run}\n{self.count}\n{base64.b64encode(bytes.fromhex(self.hash)).decode()}\n"

    @classmethod
    def from_text(cls, text: str) -> LogHead:
        """Inverse of as_text. Raises RecordError for any other text."""
        found = _TEXT.fullmatch(text)
        if found is not None:
            head = cls(found[1], int(found[2]), Digest(base64.b64decode(found[3]).hex()))
            if head.as_text() == text:
                return head
        raise RecordError(f'expected the head of a log, "{ORIGIN}...", found something else: give the log\'s own')

    def signed(self, key: PrivateKey) -> str:
        return sign_note(self.as_text(), COORDINATOR, key)

    @classmethod
    def open(cls, note: str, key: PublicKey) -> LogHead:
        """What a signed head says. Raises IdentityError unless ``key`` signed it, RecordError for another note."""
        return cls.from_text(open_note(note, COORDINATOR, key))

    @classmethod
    def claimed(cls, note: str) -> LogHead:
        """What a note says that may be signed by anyone. Raises RecordError for what is no head."""
        try:
            text, signer = claimed(note)
        except IdentityError as error:
            raise RecordError(str(error)) from None
        if signer != COORDINATOR:
            raise RecordError(f"expected a head signed by a coordinator, found one by {signer}: give the log's own")
        return cls.from_text(text)
