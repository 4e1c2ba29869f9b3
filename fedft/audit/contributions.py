"""Whose updates are in which adapter of a run, and what it would take to be without one of them.

Guarantee: contributions_of looks at the run's folder alone and changes nothing. A round's sum has an institution's
update exactly when the round had a quorum and its record counts the update; every state from the first such round on
depends on it, and no state before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedft.audit.folder import Body, number, pick, read_files
from fedft.errors import StorageError
from fedft.records.lineage import Parent, is_summed

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Contribution:
    """Of one institution. rounds: whose sum has its update.

    Where the run goes on from another's state, that one's rounds are among them.

    best, final: whether the best adapter, which is the exported one, and that of the last round depend on it. free: the
    newest state without it that the folder has or that follows from the configuration: a round, 0 the start. again:
    rounds to train from there.
    """

    institution: str
    rounds: tuple[int, ...]
    best: bool
    final: bool
    free: int
    again: int

    @property
    def first(self) -> int | None:
        return self.rounds[0] if self.rounds else None


@dataclass(frozen=True)
class Contributions:
    """Of one run. rounds: how many are done. best_round: of the best adapter, 0 the start."""

    run: str
    rounds: int
    best_round: int
    institutions: tuple[Contribution, ...]

    def of(self, name: str) -> Contribution:
        """That of ``name``; one who is not mentioned anywhere has contributed nothing."""
        found = next((one for one in self.institutions if one.institution == name), None)
        return found or Contribution(name, (), best=False, final=False, free=self.rounds, again=0)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def contributions_of(folder: Path) -> Contributions:
    """Raises StorageError when ``folder`` holds no run, or a file in it is not what fedft writes."""
    run = read_files(folder)
    records = run.rounds
    names = sorted({name for record in records for name in _names(record)})
    parent = Parent.of_config(run.config)
    names = sorted({*names, *(() if parent is None else parent.contributed)})
    rounds = summed_rounds(records, {} if parent is None else parent.contributed)
    done = max((_round(record) for record in records), default=0 if parent is None else parent.round)
    best = _best_round(folder)
    kept = _kept(folder)
    return Contributions(
        run=str(pick(run.config, "run") or ""),
        rounds=done,
        best_round=best,
        institutions=tuple(_one(name, rounds.get(name, ()), done, best, kept) for name in names),
    )


def summed_rounds(
    records: Iterable[Mapping[str, Any]], before: Mapping[str, Iterable[int]]
) -> dict[str, tuple[int, ...]]:
    """By institution, the rounds of these records whose sum has its update, after those of ``before``."""
    found = {name: list(rounds) for name, rounds in before.items()}
    for record in filter(is_summed, records):
        for name in record["updates"]:
            found.setdefault(name, []).append(_round(record))
    return {name: tuple(sorted(rounds)) for name, rounds in found.items()}


def _one(name: str, rounds: tuple[int, ...], done: int, best: int, kept: frozenset[int]) -> Contribution:
    before = rounds[0] - 1 if rounds else done
    free = max((one for one in kept if one <= before), default=0)
    first = rounds[0] if rounds else done + 1
    return Contribution(name, rounds, best=first <= best, final=first <= done, free=free, again=done - free)


def _names(record: Body) -> Iterable[str]:
    for key in ("updates", "refused", "missing"):
        told = record.get(key)
        if not isinstance(told, list | Mapping):
            raise StorageError(f'expected "{key}" in each line of metrics.jsonl, found none: it was altered')
        yield from told


def _round(record: Mapping[str, Any]) -> int:
    found = number(record.get("round"))
    if found is None:
        raise StorageError("expected the number of the round in each line of metrics.jsonl, found none: it was altered")
    return int(found)


def _best_round(folder: Path) -> int:
    """Of checkpoints/best; 0 where there is none yet."""
    file = folder / "checkpoints" / "best" / _MANIFEST
    try:
        return int(json.loads(file.read_bytes())["manifest"]["round"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError):
        raise StorageError(f"expected the best round in {file}, found none: it was altered") from None


def _kept(folder: Path) -> frozenset[int]:
    """Rounds whose state is in the folder."""
    paths = (folder / "checkpoints").glob(f"round-*/{_MANIFEST}")
    return frozenset(int(digits) for path in paths if (digits := path.parent.name.removeprefix("round-")).isdigit())
