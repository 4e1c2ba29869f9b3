"""A ledger made in memory and written in one transaction: the entries and bytes that fedft's own would have."""

from __future__ import annotations

import hashlib
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from fedft.ledger import database, files
from fedft.ledger.chain import Chain, Head, Signer
from fedft.ledger.entries import SALT, Entry, Intent, Kind, as_intent, intent_fields
from fedft.randomness import secure_bytes
from fedft.records.heads import LogHead

TIME = "2026-01-31T23:59:58Z"


class BulkLedger:
    """What MadeRun asks of a Ledger. close writes it, where Ledger.open then finds it."""

    def __init__(self, path: Path, signer: Signer) -> None:
        self._path, self._signer, self._chain = path, signer, Chain()
        self._payloads: dict[int, bytes] = {}
        self._add("start", {"ledger": uuid.uuid4().hex})

    @property
    def head(self) -> Head:
        return self._chain.head

    def record_receipt(self, head: str, /) -> None:
        self._add("receipt", {"run": LogHead.claimed(head).run, "head": head})

    def record_intent(self, *, evidence: dict[str, Any], **fields: Any) -> Intent:
        salted = {**evidence, SALT: secure_bytes(16).hex()}
        return as_intent(self._add("intent", intent_fields(**fields, evidence=salted)))

    def record_release(self, intent: Intent, payload: bytes, /) -> bytes:
        run, number, purpose = intent.key
        digest = hashlib.sha256(payload).hexdigest()
        about = {"run": run, "round": number, "purpose": purpose, "intent": intent.sequence}
        entry = self._add("release", {**about, "bytes": len(payload), "sha256": digest})
        self._payloads[entry.sequence] = payload
        return payload

    def close(self) -> None:
        entries, kept = self._chain.entries, self._chain.kept_releases()
        self._path.parent.mkdir(parents=True)
        database.create(self._path, entries[0])
        with closing(database.connect_for_writing(self._path)) as connection, database.transaction(connection):
            rows = [(entry.sequence, entry.body.decode(), entry.hash) for entry in entries[1:]]
            connection.executemany("INSERT INTO entry VALUES (?, ?, ?)", rows)
            payloads = [(sequence, self._payloads[sequence]) for sequence in sorted(kept)]
            connection.executemany("INSERT INTO payload VALUES (?, ?)", payloads)
        files.lock_path(self._path).touch()
        files.write_head(self._path, self._chain.head, self._signer)

    def __enter__(self) -> BulkLedger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, kind: Kind, fields: dict[str, Any]) -> Entry:
        entry = self._chain.make(kind, TIME, fields)
        self._chain.add(entry)
        return entry
