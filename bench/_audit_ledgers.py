"""A run folder of many institutions and rounds whose ledgers hold together, made without training.

The entries go through the ledger's own chain and tables, in one transaction a ledger instead of one an entry: with a
sync each, 200,000 entries would take an hour.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fedft import __version__
from fedft.ledger import database, files
from fedft.ledger.chain import Chain
from fedft.ledger.entries import Entry, intent_fields
from fedft.privacy.accountant import calibrate, epsilon_of
from fedft.privacy.events import DpSgdRound

RUN, TIME = "bench/0123456789abcdef", "2026-11-30T12:00:00Z"
EPSILON, DELTA, CLIP, BATCH, STEPS = 8.0, 1e-5, 1.0, 96, 5


def make_run(folder: Path, *, institutions: int, rounds: int) -> Path:
    """Institutions of 1,500 units and more, each with its own size, noise and ledger; every round answered."""
    names = [f"institution-{number:03d}" for number in range(institutions)]
    figures = {name: _institution(folder, name, 1500 + 37 * number, rounds) for number, name in enumerate(names)}
    spent = {name: figure["epsilon"] for name, figure in figures.items()}
    config: dict[str, Any] = {
        "fedft_version": __version__, "run": RUN,
        "federation": {"name": "bench", "rounds": rounds},
        "data": {"unit": "patient"},
        "training": {"local_steps": STEPS, "batch_size": BATCH},
        "privacy": {"mode": "dp-sgd", "epsilon": EPSILON, "delta": DELTA, "clip_norm": CLIP},
        "institutions": [{"name": name} for name in names],
    }  # fmt: skip
    line = {"updates": names, "refused": {}, "missing": [], "epsilon": spent, "cap": dict.fromkeys(names, EPSILON)}
    lines = (json.dumps({"round": number, **line}) for number in range(1, rounds + 1))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(f"{text}\n" for text in lines))
    summary = {"run": RUN, "engine": "local", "rounds_done": rounds, "institutions": figures}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _institution(folder: Path, name: str, units: int, rounds: int) -> dict[str, Any]:
    rate = BATCH / units
    noise = calibrate(epsilon=EPSILON, delta=DELTA, sampling_rate=rate, steps=rounds * STEPS)
    evidence: dict[str, str | int | float] = {
        "institution": name, "fingerprint": hashlib.sha256(name.encode()).hexdigest(), "units": units,
        "unit": "patient", "batch_size": BATCH, "clip_norm": CLIP, "delta": DELTA, "cap": EPSILON,
    }  # fmt: skip
    _ledger(folder / "institutions" / name / "ledger.sqlite", name, DpSgdRound(noise, rate, STEPS), evidence, rounds)
    spent = epsilon_of([DpSgdRound(noise, rate, STEPS * rounds)], DELTA)
    return {"units": units, "epsilon": spent, "delta": DELTA, "cap": EPSILON, "noise_multiplier": noise}


def _ledger(path: Path, name: str, event: DpSgdRound, evidence: dict[str, str | int | float], rounds: int) -> None:
    path.parent.mkdir(parents=True)
    chain, payloads = Chain(), {}

    def add(kind: Any, fields: dict[str, Any]) -> Entry:
        entry = chain.make(kind, TIME, fields)
        chain.add(entry)
        return entry

    first = add("start", {"ledger": hashlib.sha256(name.encode()).hexdigest()[:32]})
    database.create(path, first)
    for number in range(1, rounds + 1):
        digest = hashlib.sha256(f"{name}/{number}".encode()).hexdigest()
        intent = intent_fields(
            run=RUN, round=number, purpose="update", dataset=name, plan_digest=digest, event=event, evidence=evidence
        )
        charged = add("intent", intent)
        payload = digest.encode() * 4
        about = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest(), "intent": charged.sequence}
        payloads[add("release", {"run": RUN, "round": number, "purpose": "update", **about}).sequence] = payload
    connection = database.connect_for_writing(path)
    with database.transaction(connection):
        rows = [(entry.sequence, entry.body.decode(), entry.hash) for entry in chain.entries[1:]]
        connection.executemany("INSERT INTO entry VALUES (?, ?, ?)", rows)
        kept = [(sequence, payloads[sequence]) for sequence in sorted(chain.kept_releases())]
        connection.executemany("INSERT INTO payload VALUES (?, ?)", kept)
    connection.close()
    files.write_head(path, chain.head)
