"""An institution leaves: its signed statement, the entry in its ledger, and what its agent makes of them.

::

    STATE/withdrawal.json             the statement, for the coordinator too; STATE is the policy's agent.state

Guarantees:
- When withdraw returns, the statement is on disk, synced; an agent that runs takes it before its next answer, without a
  restart, and so does one that is started later.
- What an agent has taken is in its ledger: without the file, too, it stays withdrawn under this key.
"""

from __future__ import annotations

from pathlib import Path

from fedft.config import InstitutionPolicy
from fedft.durable import write_whole
from fedft.errors import IdentityError, LedgerLocked, StorageError, Withdrawn
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.withdrawal import MAX_WITHDRAWAL, Withdrawal
from fedft.ledger.chain import Signer
from fedft.ledger.store import Ledger
from fedft.model.checkpoint import storage_errors
from fedft.records.log import now

FILE = "withdrawal.json"


class Departure:
    """As an agent sees it: whether its institution has left. For several threads, as the ledger is."""

    def __init__(self, policy: InstitutionPolicy, ledger: Ledger, own: PublicKey) -> None:
        self._policy, self._ledger, self._own = policy, ledger, own

    def require_member(self) -> None:
        """Return while the institution belongs to the federation.

        Raises
        ------
        Withdrawn
            It has left; that is in its ledger.
        IdentityError, LedgerError, StorageError
            There is a statement that is not this institution's own, or it cannot be kept: nothing goes out either.
        """
        federation = self._policy.institution.federation
        if self._ledger.withdrawal(federation, self._own.text) is None:
            text = _own_statement(self._policy, self._ledger, self._own)
            if text is None:
                return
            self._ledger.record_withdrawal(text)
        raise Withdrawn(
            f'expected a member of "{federation}", found that this institution has withdrawn: nothing is sent'
        )


def withdraw(policy: InstitutionPolicy) -> tuple[Withdrawal, bool]:
    """Leave the policy's federation: make the statement, unless there is one, and keep it; whether the ledger has it.

    A ledger that an agent works with takes it at the agent's next answer.

    Raises
    ------
    ConfigError
        No identity key, or others may read it.
    LedgerError
        There is no ledger, or it is damaged. StorageError: the disk refuses. Nothing has been declared then.
    """
    key = PrivateKey.load(policy.institution.identity)
    try:
        with Ledger.open(policy.agent.ledger, signer=Signer(policy.institution.name, key)) as ledger:
            text = _declared(policy, ledger, key)
            ledger.record_withdrawal(text)
            return Withdrawal.open(text), True
    except LedgerLocked:
        with Ledger.open(policy.agent.ledger, read_only=True) as ledger:
            return Withdrawal.open(_declared(policy, ledger, key)), False


def released(policy: InstitutionPolicy) -> dict[str, list[int]]:
    """By run, the rounds whose update left, as the ledger has it. Raises LedgerError."""
    rounds: dict[str, list[int]] = {}
    with Ledger.open(policy.agent.ledger, read_only=True) as ledger:
        for entry in ledger.entries():
            if entry.kind == "release" and entry.fields["purpose"] == "update":
                rounds.setdefault(entry.fields["run"], []).append(entry.fields["round"])
    return rounds


def statement_file(policy: InstitutionPolicy) -> Path:
    return policy.agent.state / FILE


def read_statement(policy: InstitutionPolicy) -> str | None:
    """The text of the statement's file, not checked; None where there is none. Raises StorageError, IdentityError."""
    place = statement_file(policy)
    try:
        with place.open("rb") as file:
            return file.read(MAX_WITHDRAWAL + 1).decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"expected to read {place}, found {error.strerror}: correct its permissions") from None
    except UnicodeDecodeError:
        raise IdentityError(f"expected a signed withdrawal in {place}, found something else: restore it") from None


def _declared(policy: InstitutionPolicy, ledger: Ledger, key: PrivateKey) -> str:
    """The statement as it stands in its file, made if it was not."""
    text = _own_statement(policy, ledger, key.public)
    if text is None:
        place, text = statement_file(policy), _statement(policy, ledger, key)
        with storage_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(place, text.encode())
    return text


def _own_statement(policy: InstitutionPolicy, ledger: Ledger, own: PublicKey) -> str | None:
    """The one in the file; None where there is none, or only that of an earlier membership, under another key."""
    text = read_statement(policy)
    found = None if text is None else Withdrawal.open(text)
    if found is None or (found.key != own.text and ledger.withdrawal(found.federation, found.key) is not None):
        return None
    _require_own(found, policy, own)
    return text


def _statement(policy: InstitutionPolicy, ledger: Ledger, key: PrivateKey) -> str:
    """With the ledger's head as it stands."""
    institution, head = policy.institution, ledger.head
    made = Withdrawal(
        federation=institution.federation,
        coordinator=institution.coordinator,
        name=institution.name,
        key=key.public.text,
        ledger=head.ledger,
        entries=head.count,
        head=head.hash,
        time_utc=now(),
    )
    return made.sealed(key)


def _require_own(found: Withdrawal, policy: InstitutionPolicy, own: PublicKey) -> None:
    institution = policy.institution
    expected = (institution.federation, institution.coordinator, institution.name, own.text)
    if (found.federation, found.coordinator, found.name, found.key) != expected:
        raise IdentityError(
            f"expected this institution's own withdrawal in {statement_file(policy)}, found another's: move it away"
        )
