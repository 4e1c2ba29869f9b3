"""Part 1: which run this is, what software and model, who took part in which role."""

from __future__ import annotations

import hashlib

from fedft.audit.folder import number, pick
from fedft.errors import StorageError
from fedft.identity.keys import PublicKey
from fedft.records.lineage import Parent
from fedft.report.facts import Identity, Party
from fedft.report.form import Document
from fedft.report.page import bullets, cell, paragraph, section, table
from fedft.report.sources import Sources
from fedft.report.words import rounds_done

TITLE = "Identity"
_NO_TERMS = hashlib.sha256(b"").hexdigest()
_DIGESTS = (
    "Digests of modules and packages are computed as docs/SPEC.md says, so that a commit and a lock file can be "
    "compared with them; all digests but the adapter's are from the coordinator's signed log."
)
_STATEMENTS = (
    "What the parties say of roles, legal basis, purpose, data and retention is copied from the policies that "
    "institutions gave; nobody checked it."
)
_HEADS = ("Responsibility", "Legal basis", "Purpose", "Data", "Retention")


def facts(sources: Sources) -> Identity:
    run, log, start = sources.run, sources.log, sources.log.start
    rounds = [entry.fields for entry in log.rounds]
    codes = {str(found["code"]) for found in rounds} | ({str(start["code"])} if start else set())
    return {
        "run": str(run.config.get("run") or run.summary.get("run") or ""),
        "federation": str(pick(run.config, "federation.name") or run.summary.get("name") or ""),
        "engine": str(run.summary.get("engine") or ""),
        "finished": bool(run.summary),
        "rounds_done": rounds_done(run),
        "rounds_planned": int(number(pick(run.config, "federation.rounds")) or 0),
        "first_utc": log.first_utc,
        "last_utc": log.last_utc,
        "task": str(pick(run.config, "task.kind") or ""),
        "base_model": str(pick(run.config, "model.base") or "").rstrip("/").rsplit("/", 1)[-1],
        "base_model_sha256": str(start.get("base_model", "")),
        "adapter_layout_sha256": str(start.get("layout", "")),
        "adapter_sha256": str(rounds[-1]["adapter"]) if rounds else "",
        "config_sha256": str(start.get("config", "")),
        "terms_sha256": "" if start.get("terms") == _NO_TERMS else str(start.get("terms", "")),
        "begun_from": _begun_from(sources),
        "software": {
            "fedft_version": str(start.get("version") or run.config.get("fedft_version") or ""),
            "code_sha256": str(start.get("code", "")),
            "packages_sha256": str(start.get("packages", "")),
            "one_version": len(codes) <= 1,
        },
        "parties": _parties(sources),
    }


def _begun_from(sources: Sources) -> str:
    """The run whose state this one goes on from, and who was left out."""
    try:
        parent = Parent.of_config(sources.run.config)
    except StorageError:
        return "a run that cannot be read"
    if parent is None:
        return ""
    state = f"the state after round {parent.round}" if parent.round else "the start"
    return f"{state} of {parent.run}, without {', '.join(parent.without)}"


def _parties(sources: Sources) -> list[Party]:
    coordinator = str(sources.log.start.get("coordinator", ""))
    found = [_party(sources, "coordinator", coordinator, is_coordinator=True)]
    return found + [_party(sources, name, sources.log.keys.get(name, "")) for name in sources.institutions]


def _party(sources: Sources, name: str, key: str, *, is_coordinator: bool = False) -> Party:
    policy = None if is_coordinator else sources.policies.get(name)
    said = {} if policy is None else policy.processing.model_dump()
    return {
        "name": name,
        "role": "coordinator" if is_coordinator else "institution",
        "key": key,
        "fingerprint": PublicKey(key).fingerprint if key else "",
        "responsibility": said.get("responsibility", ""),
        "legal_basis": said.get("legal_basis", ""),
        "purpose": said.get("purpose", ""),
        "data_categories": said.get("data_categories", ""),
        "retention": said.get("retention", ""),
        "policy_sha256": "" if policy is None else policy.sha256,
    }


def view(document: Document) -> str:
    identity = document["parts"]["identity"]
    software = identity["software"]
    rows = [
        ("Run", identity["run"]),
        ("Federation", identity["federation"]),
        ("Begun from", identity["begun_from"] or "the start that the configuration gives"),
        ("From, to (UTC)", f"{identity['first_utc']} to {identity['last_utc']}" if identity["first_utc"] else ""),
        ("Task", identity["task"]),
        ("Base model with its tokenizer", f"{identity['base_model']}, SHA-256 {identity['base_model_sha256'] or '–'}"),
        ("Adapter's layout, SHA-256", identity["adapter_layout_sha256"]),
        ("Adapter at the end, SHA-256", identity["adapter_sha256"]),
        ("Configuration, SHA-256", identity["config_sha256"]),
        ("Terms sent to institutions, SHA-256", identity["terms_sha256"] or "none on record"),
        ("fedft", f"{software['fedft_version']}, modules SHA-256 {software['code_sha256'] or '–'}"),
        ("Installed packages, SHA-256", software["packages_sha256"]),
    ]
    words = [_DIGESTS, _STATEMENTS]
    if not software["one_version"]:
        words.insert(0, "Not all rounds were played by the same code: the run was resumed with another version.")
    return section(
        TITLE,
        table(("What", "Value"), [[cell(name), cell(value or None)] for name, value in rows]),
        _party_tables(document),
        bullets(words),
        number=1,
    )


def _party_tables(document: Document) -> str:
    parties = document["parts"]["identity"]["parties"]
    keys = [
        [cell(party["name"]), cell(party["role"]), f"<code>{cell(party['fingerprint'] or None)}</code>"]
        for party in parties
    ]
    stated = [
        [cell(party["name"]), *(cell(text or "not stated") for text in _statements(party))]
        for party in parties
        if any(_statements(party))
    ]
    tables = "<h3>Parties</h3>" + table(("Party", "Role", "Fingerprint of its key"), keys)
    if not stated:
        return tables + paragraph(
            "Controller and processor, legal basis, purpose, data categories and retention: not stated. An "
            "institution's policy states them in [processing]; give it with --policy.",
            "note",
        )
    return tables + table(("Party", *_HEADS), stated)


def _statements(party: Party) -> tuple[str, ...]:
    """In the order of _HEADS."""
    return (
        party["responsibility"],
        party["legal_basis"],
        party["purpose"],
        party["data_categories"],
        party["retention"],
    )
