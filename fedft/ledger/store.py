"""The ledger of one institution: intents before training, releases before they leave. Spec: docs/SPEC.md.

Guarantees:
- When record_intent returns, the spend is on disk, synced; events() counts it from then on, after any crash, whether or
  not a release follows. The same intent asked for again is the same entry: nothing is counted twice.
- When record_release returns, its bytes are on disk, synced, and they are the first that were given for the intent.
- A hash tells nobody who guesses an intent's evidence whether it is right: coordinators see hashes.
- One process writes. Any number read meanwhile, and change nothing.
- open verifies every entry, every stored payload, and the head kept beside the database. What does not fit is
  LedgerCorrupt, names the first bad entry, and stays as it was found: nothing is repaired.

The chain finds damage, loss and partial edits. A forger who can write the files is found by what others keep: heads are
signed and coordinators keep them, and receipts here hold the coordinators' (docs/SPEC.md, "Audit log"). Epsilon is
nowhere in it; the accountant derives it from the events.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from fedft.errors import LedgerCorrupt, LedgerError
from fedft.identity.withdrawal import Withdrawal
from fedft.ledger import database, files
from fedft.ledger.chain import KEPT_ROUNDS, KEPT_RUNS, Chain, Head, Signer
from fedft.ledger.entries import SALT, Entry, Intent, Kind, Release, as_intent, intent_fields
from fedft.privacy.events import PrivacyEvent
from fedft.randomness import secure_bytes
from fedft.records.heads import LogHead

__all__ = ["Intent", "Ledger"]


class Ledger:
    """Open with Ledger.open, close with close() or a with block.

    Opened for reading it holds the history as it was at that moment and no file.
    """

    def __init__(self, path: Path, signer: Signer | None = None) -> None:
        self._path, self._signer = path, signer
        self._chain: Chain | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._guard = threading.RLock()
        self._process = os.getpid()
        self._version = 0
        self._synced: Head | None = None

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False, signer: Signer | None = None) -> Ledger:
        """Verify the whole ledger; create it where there is none, unless ``read_only``.

        signer: signs the heads from now on; a head that stands is signed anew. Signatures are not checked here.

        Raises
        ------
        LedgerLocked
            Another process writes. Not raised for a reader.
        LedgerCorrupt
            Truncated, altered, reordered, of a newer version, behind its head, or not a ledger.
        LedgerError
            ``read_only`` and there is none.
        StorageError
            The folder or the file cannot be read or written.
        """
        ledger = cls(Path(path).resolve(), signer)
        try:
            with ledger._named():
                if read_only:
                    ledger._load()
                else:
                    ledger._begin_writing()
        except BaseException:
            ledger.close()
            raise
        return ledger

    def close(self) -> None:
        """Idempotent. A closed ledger answers nothing."""
        if self._process != os.getpid():
            return  # a fork must not close what its parent writes to
        with self._guard:
            connection, self._connection, self._chain = self._connection, None, None
            if connection is not None:
                connection.close()
            lock, self._lock = self._lock, None
            if lock is not None:
                os.close(lock)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({str(self._path)!r})"

    def record_intent(
        self,
        *,
        run: str,
        round: int,
        purpose: str,
        dataset: str,
        plan_digest: str,
        event: PrivacyEvent,
        evidence: Mapping[str, str | int | float],
    ) -> Intent:
        """Charge ``event`` to ``dataset``, durably, before it happens.

        The same run, round and purpose with the same data set, plan and event is a retry: the stored intent comes back
        and nothing is charged again.

        Parameters
        ----------
        evidence : by name, what an auditor needs to check the event: digests, versions, sizes. Stays in the ledger.

        Raises
        ------
        LedgerError
            The round is charged already for another plan, event or data set; or a value is outside docs/SPEC.md.
        """
        salted = {**evidence, SALT: secure_bytes(16).hex()}
        fields = intent_fields(
            run=run,
            round=round,
            purpose=purpose,
            dataset=dataset,
            plan_digest=plan_digest,
            event=event,
            evidence=salted,
        )
        with self._writing() as chain:
            stored = chain.intent((run, round, purpose))
            if stored is None:
                return as_intent(self._append(chain, "intent", fields))
            if (stored.dataset, stored.plan_digest, stored.event) != (dataset, plan_digest, event):
                raise LedgerError(
                    f'expected the plan, event and data set charged for round {round} and purpose "{purpose}", '
                    "found others: ask for the round as it was first asked for, or start a new run"
                )
            return stored

    def find_intent(self, run: str, round: int, purpose: str) -> Intent | None:
        with self._reading() as chain:
            return chain.intent((run, round, purpose))

    def record_release(self, intent: Intent, payload: bytes, /) -> bytes:
        """Store ``payload`` durably under ``intent``, or return what is stored there: the first bytes win.

        Raises
        ------
        LedgerError
            The intent is not of this ledger; or its bytes are no longer kept.
        """
        with self._writing() as chain:
            if chain.intent(intent.key) != intent:
                raise LedgerError(
                    f'expected an intent of this ledger for round {intent.round} and purpose "{intent.purpose}", '
                    "found another: record the intent before training"
                )
            release = chain.release(intent.key)
            if release is not None:
                return self._payload(release)
            run, round, purpose = intent.key
            fields = {"run": run, "round": round, "purpose": purpose, "intent": intent.sequence}
            digest = hashlib.sha256(payload).hexdigest()
            self._append(chain, "release", {**fields, "bytes": len(payload), "sha256": digest}, payload)
            return payload

    def stored_release(self, run: str, round: int, purpose: str) -> bytes | None:
        """The bytes that left, None when none did. Raises LedgerError when they left and are no longer kept."""
        with self._reading() as chain:
            release = chain.release((run, round, purpose))
            return None if release is None else self._payload(release)

    def record_refusal(self, *, run: str, round: int, dataset: str, reason: str) -> None:
        """Note that a round was refused, and the word that was said. The same refusal again adds nothing."""
        fields = {"run": run, "round": round, "dataset": dataset, "reason": reason}
        with self._writing() as chain:
            if not chain.is_refused(fields):
                self._append(chain, "refusal", fields)

    def record_receipt(self, head: str, /) -> None:
        """Keep a coordinator's signed head. One that is kept adds nothing.

        Raises LedgerError for another that counts no more entries than the newest of its run.
        """
        told = LogHead.claimed(head)
        with self._writing() as chain:
            kept = chain.receipts(told.run)
            if told in kept:
                return
            if kept and told.count <= kept[-1].count:
                raise LedgerError(
                    f"expected a head of more than {kept[-1].count} entries, found another history of {told.count}: "
                    "the coordinator went back; ask its people why"
                )
            self._append(chain, "receipt", {"run": told.run, "head": head})

    def record_withdrawal(self, statement: str, /) -> None:
        """Keep the institution's signed withdrawal; a second under the same key adds nothing. LedgerError if none."""
        told = Withdrawal.open(statement)
        with self._writing() as chain:
            if chain.withdrawal(told.federation, told.key) is None:
                self._append(chain, "withdrawal", {"statement": statement})

    def withdrawal(self, federation: str, key: str) -> Withdrawal | None:
        """The one from ``federation`` of the institution with this public key; None while it is a member."""
        with self._reading() as chain:
            return chain.withdrawal(federation, key)

    def events(self, dataset: str) -> tuple[PrivacyEvent, ...]:
        """Every intent's event for ``dataset``, all runs, in order: what the accountant composes."""
        with self._reading() as chain:
            return chain.events(dataset)

    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets that were charged, sorted."""
        with self._reading() as chain:
            return chain.datasets()

    def last_round(self, run: str) -> int:
        """The highest round of ``run`` with an intent; 0 when there is none."""
        with self._reading() as chain:
            return chain.last_round(run)

    def entries(self) -> tuple[Entry, ...]:
        with self._reading() as chain:
            return chain.entries

    @property
    def head(self) -> Head:
        with self._reading() as chain:
            return chain.head

    def _begin_writing(self) -> None:
        with files.storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = files.lock_for_writing(self._path)
            if not self._path.exists() and files.read_head(self._path) is None:
                database.create(self._path, Chain().make("start", _now(), {"ledger": uuid.uuid4().hex}))
        # Verified through a connection that changes nothing, so that a bad ledger stays as it was found.
        self._load()
        self._connection = database.connect_for_writing(self._path)
        self._version = database.data_version(self._connection)
        self._sync_head(again=self._signer is not None)

    def _load(self) -> None:
        """Read what is on disk: the head first, so that a writer's next entries do not look like missing ones."""
        with files.storage_errors(self._path):
            head = files.read_head(self._path)
            if not self._path.exists():
                raise LedgerError(f"expected a ledger at {self._path}, found no file") if head is None else _gone(head)
            with self._snapshot() as connection:
                self._chain = database.read_verified(connection, head)
        self._synced = head

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        with ExitStack() as stack:
            quiet = self._lock is not None or stack.enter_context(files.no_writer(self._path))
            yield stack.enter_context(database.read_only(self._path, no_writer=quiet))

    @contextmanager
    def _reading(self) -> Iterator[Chain]:
        if self._process != os.getpid():
            raise LedgerError("expected the process that opened the ledger, found a fork of it: open the ledger there")
        with self._guard, self._named():
            if self._chain is None and self._connection is not None:
                # An append failed: what is on disk counts, not what memory thinks of it.
                with database.sqlite_errors():
                    self._chain = database.read_verified(self._connection, self._synced)
            if self._chain is None:
                raise LedgerError(f"expected an open ledger, found that {self._path} was closed: open it again")
            yield self._chain

    @contextmanager
    def _writing(self) -> Iterator[Chain]:
        with self._reading() as chain:
            if database.data_version(self._writer) != self._version:
                raise LedgerCorrupt("expected to be the only writer, found that another program changed the ledger")
            self._sync_head()  # an earlier write of the head may have failed
            yield chain

    def _append(self, chain: Chain, kind: Kind, fields: Mapping[str, Any], payload: bytes | None = None) -> Entry:
        entry = chain.make(kind, _now(), fields)
        self._chain = None  # until the commit has returned
        chain.add(entry)
        database.append(self._writer, entry, payload, chain.kept_releases())
        self._chain = chain
        self._sync_head()
        return entry

    @property
    def _writer(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LedgerError(f"expected a writer, found that {self._path} is open for reading: open it to write")
        return self._connection

    def _payload(self, release: Release) -> bytes:
        if self._connection is not None:
            payload = database.payload_of(self._connection, release.sequence)
        else:
            with files.storage_errors(self._path), self._snapshot() as connection:
                payload = database.payload_of(connection, release.sequence)
        if payload is None:
            raise LedgerError(
                f"expected the bytes of the release of round {release.round}, found that they are no longer kept: "
                f"only the newest {KEPT_ROUNDS} rounds of the newest {KEPT_RUNS} runs are; go on from a later round"
            )
        database.require_payload(payload, release.bytes, release.sha256, release.sequence)
        return payload

    def _sync_head(self, *, again: bool = False) -> None:
        if self._chain is not None and (again or self._chain.head != self._synced):
            with files.storage_errors(self._path):
                files.write_head(self._path, self._chain.head, self._signer)
            self._synced = self._chain.head

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except LedgerCorrupt as error:
            raise LedgerCorrupt(
                f"{self._path}: {error}; nothing was changed: find out what happened to these files; "
                "an older copy put back would give spent budget back"
            ) from error


def _gone(head: Head) -> LedgerCorrupt:
    return LedgerCorrupt(f"entry 1: expected {head.count} entries as the head says, found no file")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
