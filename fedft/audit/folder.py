"""What a run left in its folder, read and nothing else: configuration, rounds, summary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedft.errors import StorageError

Body = Mapping[str, Any]
LARGEST_FILE = 2**27
"""Bytes of a file that is read whole; 1,000 rounds of 100 institutions come to a tenth of it."""


@dataclass(frozen=True)
class Run:
    """One run folder. Parts that are not there are empty; ``cut_line``: metrics.jsonl ends within a line."""

    folder: Path
    config: Body
    rounds: tuple[Body, ...]
    summary: Body
    cut_line: bool

    @property
    def institutions(self) -> tuple[str, ...]:
        """Every name that the summary or a round mentions, in that order."""
        names: dict[str, None] = dict.fromkeys(part(self.summary, "institutions"))
        for record in self.rounds:
            for key in ("epsilon", "updates", "refused", "missing"):
                told = record.get(key)
                names.update(dict.fromkeys(filter(_is_name, told if isinstance(told, list | Mapping) else ())))
        return tuple(names)

    @property
    def is_unprotected(self) -> bool:
        """Privacy was switched off, or nothing says that it was on."""
        private = ("dp-sgd", "distributed")
        return pick(self.config, "privacy.mode") not in private and self.summary.get("privacy_mode") not in private

    @property
    def shares_noise(self) -> bool:
        """Each institution's noise is a share: its epsilon holds while secure aggregation does."""
        return "distributed" in (pick(self.config, "privacy.mode"), self.summary.get("privacy_mode"))

    @property
    def is_elsewhere(self) -> bool:
        """Played across organisations: what each has spent is in its own ledger, and not here."""
        return self.summary.get("engine") == "superlink"

    @property
    def metric(self) -> str | None:
        """The metric that picked the best round."""
        named = self.summary.get("metric")
        if isinstance(named, str):
            return named
        evaluated = (name for record in self.rounds for name in part(record, "evaluation"))
        return next(evaluated, None)


def read_files(folder: Path) -> Run:
    """Raises StorageError when this is no run folder or a file in it is not what fedft writes."""
    config, summary = _read_json(folder / "config.json"), _read_json(folder / "summary.json")
    rounds, cut_line = _read_lines(folder / "metrics.jsonl")
    if not config and not summary and not rounds:
        raise StorageError(
            f"expected a run folder with config.json, metrics.jsonl or summary.json, found none of them in {folder}: "
            "give the folder that fedft simulate wrote"
        )
    for line, record in enumerate(rounds, start=1):
        _require_names(record, ("updates", "missing", "epsilon_infinite"), f"line {line} of metrics.jsonl")
    if not isinstance(summary.get("checks") or [], list):
        raise StorageError('expected a list under "checks" in summary.json, found something else: it was altered')
    return Run(folder, config, rounds, summary, cut_line)


def _require_names(record: Body, keys: tuple[str, ...], where: str) -> None:
    if not isinstance(record.get("refused") or {}, Mapping):
        raise StorageError(f'expected words by institution under "refused" in {where}, found others: it was altered')
    for key in keys:
        told = record.get(key) or []
        if not isinstance(told, list) or not all(map(_is_name, told)):
            raise StorageError(
                f'expected names of institutions under "{key}" in {where}, found something else: it was altered'
            )


def part(body: Body, key: str) -> Body:
    """The object under ``key``, or an empty one."""
    value = body.get(key)
    return value if isinstance(value, Mapping) else {}


def pick(body: Body, dotted: str) -> Any:
    """The value at a dotted path, or None."""
    value: Any = body
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_name(value: object) -> bool:
    return isinstance(value, str)


def number(value: object) -> float | None:
    """``value`` as a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def sections(config: Body) -> dict[str, Body]:
    """The configuration's [[institutions]] by name."""
    listed = config.get("institutions")
    bodies = [body for body in listed if isinstance(body, Mapping)] if isinstance(listed, list) else []
    return {body["name"]: body for body in bodies if isinstance(body.get("name"), str)}


def dataset_of(config: Body, institution: str) -> str:
    """The name that the institution's budget belongs to: its own unless the configuration gives another."""
    return str(sections(config).get(institution, {}).get("dataset") or institution)


def _read_json(path: Path) -> Body:
    if not path.is_file():
        return {}
    return _as_object(_read(path), path, "a JSON object")


def _read_lines(path: Path) -> tuple[tuple[Body, ...], bool]:
    """Objects of a .jsonl file, and whether an interrupted write left its last line without an end."""
    if not path.is_file():
        return (), False
    lines = _read(path).split("\n")
    whole = [line for line in lines[:-1] if line.strip()]
    records = tuple(_as_object(line, path, f"a JSON object in line {i}") for i, line in enumerate(whole, start=1))
    return records, bool(lines[-1].strip())


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise StorageError(f"expected {path} to have at most {LARGEST_FILE:,} bytes, found more: nothing was read")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(
            f"expected {path} to be readable UTF-8, found {type(error).__name__}: check the file"
        ) from None


def _as_object(text: str, path: Path, expected: str) -> Body:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise StorageError(f"expected {expected} in {path}, found something else: the file was altered or cut")
    return body
