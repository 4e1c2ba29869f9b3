"""The exception tree. Every error fedft raises on purpose is one of these.

::

    FedftError                       code      what went wrong
    ├── ConfigError                  config    a value in the TOML file or on the command line
    ├── DataError                    data      a data set cannot be used
    │   └── BadRecord                          one row, named by file, row number and field
    ├── ModelError                   model     a base model or an adapter cannot be used
    │   └── LayoutMismatch                     a vector does not belong to this adapter
    ├── PrivacyError                 privacy   a guarantee cannot be given
    │   ├── NotPrivate                         the set-up has no per-example gradient, or fails the self-test
    │   ├── UnreachableEpsilon                 no noise multiplier reaches the budget
    │   └── PrivacyBudgetExhausted             the next event would exceed the data set's budget
    ├── UpdateError                  update    a model update is refused
    │   ├── NonFiniteUpdate
    │   ├── UpdateTooLarge
    │   └── StaleUpdate                        wrong run or round, or a duplicate
    ├── LedgerError                  ledger    the privacy ledger cannot be trusted or opened
    │   ├── LedgerLocked
    │   └── LedgerCorrupt
    ├── RecordError                  record    an audit log, or what it names, is not what was written
    ├── IdentityError                identity  a signature, a signer or a roster is not the one it should be
    ├── PolicyError                  policy    an institution's policy does not allow what a plan asks for
    │   └── Withdrawn                          the institution has left the federation
    ├── StorageError                 storage   a file cannot be written, or was written in part
    └── FederationError              federation  a round cannot go on
        └── QuorumNotReached

Messages say what was expected, what was found and what to do. They never hold a record's content: Flower sends the
text of a client's exception to the coordinator, and terminals and logs are read by many. What may cross to the
coordinator is ``code`` alone.
"""

from __future__ import annotations

from typing import ClassVar


class FedftError(Exception):
    """Root of the tree. ``code`` is a fixed word, safe to send to anyone."""

    code: ClassVar[str] = "error"


class ConfigError(FedftError):
    code = "config"


class DataError(FedftError):
    code = "data"


class BadRecord(DataError):
    """One row cannot be used. Names file, row number (from 1) and field, never content."""

    code = "bad-record"

    def __init__(self, file: str, row: int, field: str, problem: str) -> None:
        self.file, self.row, self.field, self.problem = file, row, field, problem
        super().__init__(
            f'{file}, row {row}, field "{field}": {problem}; '
            'correct the row, or set data.on_bad_record = "skip" to count and leave out such rows'
        )

    def __reduce__(self) -> tuple[type[BadRecord], tuple[str, int, str, str]]:
        return BadRecord, (self.file, self.row, self.field, self.problem)  # it crosses process borders under Ray


class ModelError(FedftError):
    code = "model"


class LayoutMismatch(ModelError):
    code = "layout-mismatch"


class PrivacyError(FedftError):
    code = "privacy"


class NotPrivate(PrivacyError):
    code = "not-private"


class UnreachableEpsilon(PrivacyError):
    code = "unreachable-epsilon"


class PrivacyBudgetExhausted(PrivacyError):
    code = "budget-exhausted"


class UpdateError(FedftError):
    code = "update"


class NonFiniteUpdate(UpdateError):
    code = "non-finite-update"


class UpdateTooLarge(UpdateError):
    code = "update-too-large"


class StaleUpdate(UpdateError):
    code = "stale-update"


class LedgerError(FedftError):
    code = "ledger"


class LedgerLocked(LedgerError):
    code = "ledger-locked"


class LedgerCorrupt(LedgerError):
    code = "ledger-corrupt"


class RecordError(FedftError):
    code = "record"


class IdentityError(FedftError):
    code = "identity"


class PolicyError(FedftError):
    code = "policy"


class Withdrawn(PolicyError):
    code = "withdrawn"


class StorageError(FedftError):
    code = "storage"


class FederationError(FedftError):
    code = "federation"


class QuorumNotReached(FederationError):
    code = "quorum-not-reached"
