"""An institution's signed statement that it leaves a federation. Form: docs/SPEC.md, "Withdrawal".

Guarantee: Withdrawal.open returns only what the key that the statement names has signed, alone; whether that key is a
member's is for the reader to say.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from fedft.errors import ConfigError, IdentityError
from fedft.identity.documents import read_document, write_document
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.roster import require_name

WITHDRAWAL_LABEL = "fedft/v1/withdrawal"
MAX_WITHDRAWAL = 2048
"""Bytes of a statement."""
_FORMS = {
    "coordinator": re.compile(r"ed25519:[0-9a-f]{64}"),
    "key": re.compile(r"ed25519:[0-9a-f]{64}"),
    "ledger": re.compile(r"[0-9a-f]{32}"),
    "head": re.compile(r"[0-9a-f]{64}"),
    "time_utc": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"),
}


@dataclass(frozen=True)
class Withdrawal:
    """Who leaves which federation, and when.

    coordinator, key: public texts of the federation's coordinator and of the institution. ledger, entries, head: how
    far its ledger had come: id, number of entries, hash of the last. time_utc: of its clock.
    """

    federation: str
    coordinator: str
    name: str
    key: str
    ledger: str
    entries: int
    head: str
    time_utc: str

    def sealed(self, key: PrivateKey) -> str:
        """The statement's file. Raises ConfigError unless ``key`` is the one that it names."""
        if key.public.text != self.key:
            raise ConfigError("expected the institution's own key to sign its withdrawal, found another: load that one")
        return write_document(WITHDRAWAL_LABEL, asdict(self), [key]).decode()

    @classmethod
    def open(cls, text: str) -> Withdrawal:
        """What a statement says. Raises IdentityError unless it is whole and the key that it names signed it alone."""
        if len(text) > MAX_WITHDRAWAL:
            raise IdentityError(f"expected a withdrawal of at most {MAX_WITHDRAWAL} bytes, found more: ask for its own")
        fields, signers = read_document(WITHDRAWAL_LABEL, text.encode("utf-8", "replace"))
        if fields.keys() != cls.__dataclass_fields__.keys() or not _well_formed(fields):
            raise IdentityError("expected a withdrawal as docs/SPEC.md has it, found other fields or values")
        if {signer.text for signer in signers} != {fields["key"]}:
            raise IdentityError("expected a withdrawal signed by the key that it names, found another signer")
        return cls(**fields)

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.key)


def _well_formed(fields: dict[str, object]) -> bool:
    try:
        for name in ("federation", "name"):
            require_name(fields[name])  # type: ignore[arg-type]  # it checks the type
    except ConfigError:
        return False
    entries = fields["entries"]
    texts = all(isinstance(fields[name], str) and form.fullmatch(str(fields[name])) for name, form in _FORMS.items())
    return texts and type(entries) is int and 1 <= entries < 2**53
