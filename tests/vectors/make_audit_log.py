"""Write audit_log.json: a coordinator's log with its head, attestations, and hostile ones of each, with their errors.

    python tests/vectors/make_audit_log.py

Made from docs/SPEC.md with hashlib and json, and with signatures of the script beside this one, so that the vectors
check fedft and not the reverse. The keys are seeds that everyone knows: never use them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import runpy
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("audit_log.json")
SIGNATURES = runpy.run_path(str(Path(__file__).with_name("make_signatures.py")))
COORDINATOR, NORTH, STRANGER = (SIGNATURES[name] for name in ("COORDINATOR", "NORTH", "STRANGER"))
canonical, document, ed25519, public, text = (
    SIGNATURES[name] for name in ("canonical", "document", "ed25519", "public", "text")
)

RUN, TIME, ZEROS = "hospitals-1", "2026-01-31T23:59:58Z", "0" * 64
LEDGER, UPDATE = "5a" * 16, b"FEDFTUPD..."


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def note(seed: bytes, name: str, signed: str, key_name: str | None = None) -> str:
    """C2SP signed-note with one signature."""
    key_id = hashlib.sha256((key_name or name).encode() + b"\n\x01" + public(seed)).digest()[:4]
    encoded = base64.b64encode(key_id + ed25519(seed, signed.encode())).decode()
    return f"{signed}\n\u2014 {name} {encoded}\n"


def head_text(count: Any, last: str, run: str = RUN) -> str:
    return f"fedft/v1/audit-log/{run}\n{count}\n{base64.b64encode(bytes.fromhex(last)).decode()}\n"


def attestation_text(answer: bytes = UPDATE, run: str = RUN, number: Any = 1, count: Any = 4) -> str:
    return f"fedft/v1/ledger-head\n{LEDGER}\n{count}\n{'ab' * 32}\n{run} {number} {digest(answer)}\n"


def start() -> dict[str, Any]:
    digests = {name: digest(name.encode()) for name in ("base_model", "code", "config", "layout", "packages", "terms")}
    return {"kind": "start", "run": RUN, "coordinator": text(COORDINATOR), "version": "0.1.0", **digests}


def roster() -> dict[str, Any]:
    return {"kind": "roster", "keys": {"north": text(NORTH)}, "sha256": ""}


def one_round(number: int = 1, **changes: Any) -> dict[str, Any]:
    update = {"bytes": len(UPDATE), "sha256": digest(UPDATE), "released": digest(UPDATE)}
    digests = {name: digest(name.encode()) for name in ("adapter", "checkpoint", "code", "plan", "record")}
    return {
        "kind": "round", "round": number, "cohort": ["north", "south"], "updates": {"north": update},
        "refused": {"south": "budget-exhausted"}, "missing": [], "masking": None, "quorum": True,
        "heads": {"north": note(NORTH, "north", attestation_text())}, "aggregation": "fed_svd", "version": "0.1.0",
        **digests, **changes,
    }  # fmt: skip


def end(**changes: Any) -> dict[str, Any]:
    files = {"config.json": {"bytes": 6, "sha256": digest(b"config")}}
    return {"kind": "end", "rounds": 1, "best_round": 1, "heads": {}, "files": files, **changes}


def statement(seed: bytes = NORTH, signers: tuple[bytes, ...] = (), **changes: Any) -> str:
    """Of an institution that leaves, signed by the key that it names or by others."""
    fields = {
        "label": "fedft/v1/withdrawal", "federation": "hospitals", "coordinator": text(COORDINATOR), "name": "north",
        "key": text(seed), "ledger": LEDGER, "entries": 4, "head": "ab" * 32, "time_utc": TIME, **changes,
    }  # fmt: skip
    return str(document(fields, signers or (seed,), "fedft/v1/withdrawal").decode())


def withdrawal(told: str | None = None, **changes: Any) -> dict[str, Any]:
    fields = {"institution": "north", "last_round": 1, "statement": statement() if told is None else told}
    return {"kind": "withdrawal", **fields, **changes}


def parent(**changes: Any) -> dict[str, Any]:
    """Of a run that trains another anew without south."""
    fields = {"run": "hospitals-0", "round": 2, "without": ["south"], "contributed": {"north": [1, 2]}, "head": ""}
    return {"kind": "parent", **fields, "checkpoint": digest(b"checkpoint"), **changes}


def gone() -> dict[str, Any]:
    """The roster without north."""
    return {"kind": "roster", "keys": {}, "sha256": ""}


def chained(*entries: dict[str, Any]) -> list[str]:
    """Lines of a log without their ends."""
    previous, lines = ZEROS, []
    for number, fields in enumerate(entries, start=1):
        own = {"label": "fedft/v1/audit-entry", "sequence": number, "previous": previous, "time_utc": TIME}
        line = canonical({**own, **fields})
        previous = digest(line)
        lines.append(line.decode())
    return lines


HONEST = chained(start(), roster(), one_round(), end())
WITHOUT = one_round(2, cohort=["north", "south"], updates={}, heads={}, quorum=False)
LEFT = chained(start(), roster(), one_round(), withdrawal(), gone(), WITHOUT, end(rounds=2))
ANEW = chained(start(), parent(), roster(), one_round(3), end(rounds=3))
LAST = digest(HONEST[-1].encode())


def one_entry(fields: dict[str, Any], **changes: Any) -> str:
    made = {"label": "fedft/v1/audit-entry", "sequence": 1, "previous": ZEROS, "time_utc": TIME, **fields, **changes}
    return str(canonical({name: value for name, value in made.items() if value is not None}).decode())


def entries() -> dict[str, str]:
    """Lines that are no entry."""
    update = {"bytes": 1, "sha256": digest(b""), "released": digest(b"")}
    return {
        "empty": "",
        "spaces": json.dumps(json.loads(one_entry(start())), sort_keys=True),
        "key twice": one_entry(start())[:-1] + ',"version":"0.1.0"}',
        "deep nesting": "[" * 5000,
        "next version": one_entry(start(), label="fedft/v2/audit-entry"),
        "unknown kind": one_entry(start(), kind="note"),
        "a field too many": one_entry(start(), loss=0.25),
        "a field missing": one_entry(start(), terms=None),
        "sequence true": one_entry(start(), sequence=True),
        "sequence 0": one_entry(start(), sequence=0),
        "free text for a time": one_entry(start(), time_utc="yesterday"),
        "a run with a path": one_entry(start(), run="../run"),
        "a digest in capitals": one_entry(start(), config="AB" * 32),
        "a count of examples": one_entry(one_round(updates={"north": {**update, "examples": 1200}})),
        "a word with spaces": one_entry(one_round(refused={"south": "patient 17"})),
        "quorum of 1": one_entry(one_round(quorum=1)),
        "a path from the root": one_entry(end(files={"/etc/passwd": {"bytes": 1, "sha256": digest(b"")}})),
        "a parent with a loss": one_entry(parent(loss=0.25)),
        "a parent's round of no number": one_entry(parent(round="2")),
        "a parent's rounds from 0": one_entry(parent(contributed={"north": [0, 1]})),
        "a withdrawal of words": one_entry(withdrawal("north leaves")),
        "a withdrawal that a stranger signed": one_entry(withdrawal(statement(signers=(STRANGER,)))),
        "a withdrawal that two signed": one_entry(withdrawal(statement(signers=(NORTH, STRANGER)))),
        "a withdrawal with a reason": one_entry(withdrawal(statement(reason="patient 17"))),
        "a withdrawal before round -1": one_entry(withdrawal(last_round=-1)),
        "NaN": one_entry(end())[:-1].replace('"best_round":1', '"best_round":NaN') + "}",
    }


def logs() -> dict[str, list[str]]:
    """Entries that each have their form, in an order that no log has."""
    entry = HONEST
    return {
        "does not begin": entry[1:],
        "an entry left out": [entry[0], *entry[2:]],
        "an entry twice": [entry[0], entry[0], *entry[1:]],
        "in another order": [entry[0], entry[2], entry[1]],
        "a second start": chained(start(), start()),
        "a round left out": chained(start(), roster(), one_round(2)),
        "a round twice": chained(start(), roster(), one_round(), one_round()),
        "a parent later": chained(start(), roster(), parent()),
        "two parents": chained(start(), parent(), parent()),
        "a parent that nobody is left out of": chained(start(), parent(without=[])),
        "a parent with an update of who is left out": chained(start(), parent(contributed={"south": [2]})),
        "a parent with an update after its state": chained(start(), parent(contributed={"north": [3]})),
        "a parent's rounds in another order": chained(start(), parent(contributed={"north": [2, 1]})),
        "a round of the parent again": chained(start(), parent(), roster(), one_round(2)),
        "an update of who is left out": chained(
            start(), parent(without=["north"], contributed={}), roster(), one_round(3)
        ),
        "left twice": chained(start(), roster(), one_round(), withdrawal(), withdrawal()),
        "left before it was a member": chained(start(), withdrawal(last_round=0)),
        "left, of another key": chained(start(), roster(), one_round(), withdrawal(statement(STRANGER))),
        "left another's federation": chained(
            start(), roster(), one_round(), withdrawal(statement(coordinator=text(STRANGER)))
        ),
        "another left than is named": chained(start(), roster(), one_round(), withdrawal(institution="south")),
        "left after a round too few": chained(start(), roster(), one_round(), withdrawal(last_round=0)),
        "left after a round too many": chained(start(), roster(), one_round(), withdrawal(last_round=2)),
        "an update after it left": chained(start(), roster(), one_round(), withdrawal(), one_round(2)),
        "after the end": chained(start(), roster(), end(rounds=0), one_round()),
        "another entry before": [entry[0], *chained(start() | {"version": "0.1.1"}, roster())[1:]],
    }


def heads() -> dict[str, tuple[str, str]]:
    """Notes that are no head of this log by its coordinator, and the error."""
    honest = note(COORDINATOR, "coordinator", head_text(4, LAST))
    return {
        "unsigned": (head_text(4, LAST), "IdentityError"),
        "a stranger's": (note(STRANGER, "coordinator", head_text(4, LAST)), "IdentityError"),
        "another name": (note(COORDINATOR, "north", head_text(4, LAST)), "IdentityError"),
        "the id of another name": (note(COORDINATOR, "coordinator", head_text(4, LAST), "north"), "IdentityError"),
        "altered count": (honest.replace("\n4\n", "\n5\n"), "IdentityError"),
        "signed twice": (honest + honest.split("\n\n")[1], "IdentityError"),
        "a line more": (note(COORDINATOR, "coordinator", head_text(4, LAST) + "more\n"), "RecordError"),
        "count with a zero": (note(COORDINATOR, "coordinator", head_text("04", LAST)), "RecordError"),
        "no run": (note(COORDINATOR, "coordinator", head_text(4, LAST, run="")), "RecordError"),
        "a ledger's head": (note(COORDINATOR, "coordinator", attestation_text()), "RecordError"),
        "carriage return": (honest.replace("\n\n", "\r\n\n"), "IdentityError"),
        "no line end": (honest[:-1], "IdentityError"),
        "too long": (note(COORDINATOR, "coordinator", head_text(4, LAST) + "x" * 1024 + "\n"), "IdentityError"),
    }


def attestations() -> dict[str, str]:
    """Notes that are no attestation of north's."""
    honest = note(NORTH, "north", attestation_text())
    return {
        "a stranger's": note(STRANGER, "north", attestation_text()),
        "another name": note(NORTH, "south", attestation_text()),
        "a head alone": note(NORTH, "north", attestation_text().rpartition(RUN)[0]),
        "altered digest": honest.replace(digest(UPDATE), digest(b"")),
        "round 01": note(NORTH, "north", attestation_text(number="01")),
        "a loss": note(NORTH, "north", attestation_text().rstrip("\n") + " 0.25\n"),
        "count of -1": note(NORTH, "north", attestation_text(count=-1)),
    }


def vectors() -> dict[str, Any]:
    return {
        "coordinator": text(COORDINATOR),
        "north": text(NORTH),
        "log": HONEST,
        "log_with_withdrawal": LEFT,
        "log_with_parent": ANEW,
        "head": note(COORDINATOR, "coordinator", head_text(4, LAST)),
        "attestation": note(NORTH, "north", attestation_text()),
        "answer": UPDATE.decode(),
        "hostile_entries": entries(),
        "hostile_logs": logs(),
        "hostile_heads": {name: {"note": made, "raises": error} for name, (made, error) in heads().items()},
        "hostile_attestations": attestations(),
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(vectors(), indent=1) + "\n")
