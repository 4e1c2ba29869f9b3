"""What an audit found: in a word, where, and in a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count, groupby
from typing import Literal

HOLDS, FOUND, BAD_INPUT = 0, 1, 2
"""Exit codes: every claim holds; one does not; something could not be read, and no claim was found false."""

Kind = Literal["claim", "input", "note"]


@dataclass(frozen=True)
class Finding:
    """claim: something stated or required that does not hold. input: something that cannot be read or is not there, so
    that what it would show is unknown. note: to be seen, and not wrong by itself."""

    kind: Kind
    code: str
    where: str
    text: str


def claim(code: str, where: str, text: str) -> Finding:
    return Finding("claim", code, where, text)


def bad_input(code: str, where: str, text: str) -> Finding:
    return Finding("input", code, where, text)


def note(code: str, where: str, text: str) -> Finding:
    return Finding("note", code, where, text)


def exit_code(findings: Iterable[Finding]) -> int:
    kinds = {finding.kind for finding in findings}
    return FOUND if "claim" in kinds else BAD_INPUT if "input" in kinds else HOLDS


def rounds_text(numbers: Iterable[int]) -> str:
    """ "round 3", "rounds 1-3, 7"."""
    known, position = sorted(set(numbers)), count()
    runs = [list(part) for _, part in groupby(known, lambda number: number - next(position))]
    words = [f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in runs]
    return f"round{'s' if len(known) != 1 else ''} {', '.join(words)}"
