"""A run folder with ledgers that hold together, written by hand: no training, no model. Tests spoil one thing each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from fedft import __version__, strict_json
from fedft.audit.recompute import Recomputed, recompute
from fedft.ledger.store import Ledger
from fedft.privacy.accountant import calibrate, epsilon_of
from fedft.privacy.events import DpSgdRound, PrivacyEvent

UNITS = {"north": 400, "south": 250}
RUN, BATCH, ROUNDS, STEPS = "wards/0123456789abcdef", 20, 3, 4
EPSILON, DELTA, CLIP = 3.0, 1e-3, 1.0


@cache
def noise_of(units: int) -> float:
    return calibrate(epsilon=EPSILON, delta=DELTA, sampling_rate=BATCH / units, steps=ROUNDS * STEPS)


@dataclass(frozen=True)
class Charged:
    """One intent, and whether something left under it."""

    round: int
    event: PrivacyEvent
    evidence: dict[str, Any]
    purpose: str = "update"
    dataset: str = "north"
    run: str = RUN
    released: bool = True

    def but(self, **evidence: Any) -> Charged:
        """With other evidence; None: without."""
        changed = {**self.evidence, **evidence}
        return replace(self, evidence={key: value for key, value in changed.items() if value is not None})


def charges_of(name: str) -> list[Charged]:
    units = UNITS[name]
    event = DpSgdRound(noise_of(units), BATCH / units, STEPS)
    evidence = {
        "institution": name, "fingerprint": f"{name}-rows", "units": units, "unit": "patient", "batch_size": BATCH,
        "clip_norm": CLIP, "delta": DELTA, "cap": EPSILON,
    }  # fmt: skip
    return [Charged(number, event, evidence, dataset=name) for number in range(1, ROUNDS + 1)]


def epsilon_spent(charges: list[Charged]) -> float:
    return epsilon_of([charge.event for charge in charges], DELTA)


def ledger_of(folder: Path, name: str) -> Path:
    return folder / "institutions" / name / "ledger.sqlite"


def write_ledger(path: Path, charges: list[Charged]) -> Path:
    with Ledger.open(path) as ledger:
        for charge in charges:
            intent = ledger.record_intent(
                run=charge.run, round=charge.round, purpose=charge.purpose, dataset=charge.dataset,
                plan_digest="0" * 64, event=charge.event, evidence=charge.evidence,
            )  # fmt: skip
            if charge.released:
                ledger.record_release(intent, f"{charge.run} {charge.round} {charge.purpose}".encode())
    return path


def set_in(body: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for key in path:
        body = body[key]
    body[last] = value


def codes(found: Recomputed, kind: str) -> set[str]:
    return {finding.code for finding in found.findings if finding.kind == kind}


def _config() -> dict[str, Any]:
    return {
        "fedft_version": __version__,
        "run": RUN,
        "federation": {"name": "wards", "rounds": ROUNDS},
        "data": {"unit": "patient"},
        "training": {"local_steps": STEPS, "batch_size": BATCH},
        "privacy": {"mode": "dp-sgd", "epsilon": EPSILON, "delta": DELTA, "clip_norm": CLIP},
        "continual": {"method": "none", "fisher": "public", "tasks": [], "rounds_per_task": []},
        "secure_aggregation": {"enabled": False},
        "simulation": {"ledger_dir": None},
        "institutions": [{"name": name, "dataset": None, "epsilon": None, "batch_size": None} for name in UNITS],
        "variants": {},
    }


def _summary() -> dict[str, Any]:
    institutions = {
        name: {
            "epsilon": epsilon_spent(charges_of(name)), "epsilon_infinite": False, "delta": DELTA, "cap": EPSILON,
            "noise_multiplier": noise_of(units), "units": units, "sampling_rate": BATCH / units,
        }
        for name, units in UNITS.items()
    }  # fmt: skip
    return {"run": RUN, "engine": "local", "rounds_done": ROUNDS, "institutions": institutions}


def _records() -> list[dict[str, Any]]:
    return [
        {"round": number, "task": "default", "updates": sorted(UNITS), "refused": {}, "missing": []}
        for number in range(1, ROUNDS + 1)
    ]


@dataclass
class Audited:
    """What is written; change it before ``write``."""

    charges: dict[str, list[Charged]] = field(default_factory=lambda: {name: charges_of(name) for name in UNITS})
    config: dict[str, Any] = field(default_factory=_config)
    summary: dict[str, Any] | None = field(default_factory=_summary)
    records: list[dict[str, Any]] = field(default_factory=_records)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(strict_json.dumps(self.config))
        (folder / "metrics.jsonl").write_text("".join(strict_json.dumps(line) + "\n" for line in self.records))
        if self.summary is not None:
            (folder / "summary.json").write_text(strict_json.dumps(self.summary))
        for name, charges in self.charges.items():
            write_ledger(ledger_of(folder, name), charges)
        return folder


Spoil = Callable[[Audited], object]


def found_in(folder: Path, spoil: Spoil = lambda run: None) -> Recomputed:
    run = Audited()
    spoil(run)
    return recompute(run.write(folder))


def each(run: Audited, change: Callable[[Charged], Charged], *, only: int | None = None) -> None:
    run.charges["north"] = [
        change(charge) if only in (None, charge.round) else charge for charge in run.charges["north"]
    ]


def event(**changes: Any) -> Callable[[Charged], Charged]:
    return lambda charge: replace(charge, event=replace(charge.event, **changes))


def evidence(**changes: Any) -> Callable[[Charged], Charged]:
    return lambda charge: charge.but(**changes)
