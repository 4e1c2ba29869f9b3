"""What the generators share: a stream of choices that is the same on every machine, and a way to write rows.

The stream is SHA-256 in counter mode, so that the committed files can be made again byte for byte whatever the version
of Python or NumPy. Every name, number and fact that comes out of it is invented.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Row = dict[str, str]


class Draw:
    """A stream of choices, fixed by its names."""

    def __init__(self, *names: str | int) -> None:
        self._key = hashlib.sha256("/".join(map(str, names)).encode()).digest()
        self._block, self._pool = 0, b""

    def below(self, n: int) -> int:
        """A whole number in [0, n)."""
        if not self._pool:
            self._pool = hashlib.sha256(self._key + self._block.to_bytes(8, "big")).digest()
            self._block += 1
        word, self._pool = self._pool[:4], self._pool[4:]
        return (int.from_bytes(word, "big") * n) >> 32

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def one(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def some(self, choices: Sequence[T], count: int) -> list[T]:
        """``count`` different choices, in random order."""
        left = list(choices)
        return [left.pop(self.below(len(left))) for _ in range(min(count, len(left)))]

    def weighted(self, weights: Mapping[T, int]) -> T:
        mark = self.below(sum(weights.values()))
        for choice, weight in weights.items():
            mark -= weight
            if mark < 0:
                return choice
        raise ValueError("expected at least one positive weight, found none: give a weight above 0")

    def early(self, choices: Sequence[T]) -> T:
        """A choice that prefers the front of the list: common things are common."""
        return choices[min(self.below(len(choices)), self.below(len(choices)))]


def misspell(draw: Draw, text: str, percent: int) -> str:
    """Swap two inner letters in about ``percent`` of the words longer than four letters."""
    words = text.split(" ")
    for index, word in enumerate(words):
        if len(word) > 4 and word.isalpha() and draw.chance(percent):
            at = 1 + draw.below(len(word) - 3)
            words[index] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def table(text: str) -> list[tuple[str, ...]]:
    """Lines of ``a | b | c`` as tuples."""
    return [tuple(cell.strip() for cell in line.split("|")) for line in text.strip().splitlines() if line.strip()]


def write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, separators=(",", ":"), ensure_ascii=True) + "\n" for row in rows)
    path.write_bytes("".join(lines).encode())
