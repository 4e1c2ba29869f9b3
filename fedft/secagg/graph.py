"""Who shares masks with whom, who holds shares, and how many may be missing. docs/SPEC.md, "Roles and numbers".

Guarantee: for the shape that shape_for gives, ``colluders`` members may collude with a coordinator that tells different
sets to different holders, and it learns at most one sum, over at least two honest members; above 32 members except
with probability 2⁻⁶⁰. tests/secagg/test_graph.py recomputes both. After Bell et al. 2020 (sparse graph) and Ma et al.
2023 (Flamingo: one group of holders).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from fedft.errors import ConfigError
from fedft.identity.documents import canonical

LEAST_COHORT, COMPLETE_UP_TO, LARGEST_COHORT = 3, 32, 4096
SEED_LABEL = b"fedft/v1/secagg-graph\n"

SPARSE: tuple[tuple[int, int, int], ...] = (
    (128, 127, 64),
    (200, 70, 64),
    (300, 102, 75),
    (500, 178, 125),
    (1000, 238, 185),
    (2000, 282, 225),
    (4096, 302, 250),
)
"""Up to n members, k neighbours (n - 1 if that is less), m holders (n if that is less)."""


@dataclass(frozen=True)
class Shape:
    """The numbers of one cohort.

    members n, neighbours k, holders m; threshold t holders restore a secret; least_uploads T; least_around l, of a
    member and its neighbours.
    """

    members: int
    neighbours: int
    holders: int
    threshold: int
    least_uploads: int
    least_around: int

    @property
    def complete(self) -> bool:
        return self.neighbours == self.members - 1

    def least_honest_sum(self, colluding: int, colluding_holders: int) -> int:
        """Over how many honest members any sum goes that a lying coordinator learns; 0 where the proof does not hold.

        docs/SPEC.md, "What holds, and why".
        """
        n, m, t = self.members, self.holders, self.threshold
        if 2 * t <= m + colluding_holders:
            return 0
        left_out = (m - colluding_holders) * (n - self.least_uploads) // (t - colluding_holders)
        return max(n - colluding - left_out, 0)


def shape_for(members: int, threshold: int | None = None) -> Shape:
    """The shape of a cohort. threshold: of a cohort of up to 32; None takes the least, ⌊2n/3⌋ + 1.

    Raises ConfigError for a cohort of fewer than 3 or more than 4,096, and for a threshold out of its range.
    """
    if not LEAST_COHORT <= members <= LARGEST_COHORT:
        raise ConfigError(
            f"expected a cohort of {LEAST_COHORT} to {LARGEST_COHORT} for secure aggregation, found {members}: "
            "add institutions, or switch it off"
        )
    least = 2 * members // 3 + 1
    if members <= COMPLETE_UP_TO:
        chosen = least if threshold is None else threshold
        _require_threshold(chosen, least, members)
        return Shape(members, members - 1, members, chosen, chosen, chosen)
    _, neighbours, holders = next(row for row in SPARSE if members <= row[0])
    neighbours, holders = min(neighbours, members - 1), min(holders, members)
    chosen = -(-3 * holders // 4)
    _require_threshold(chosen if threshold is None else threshold, chosen, chosen)
    around = least if neighbours == members - 1 else -(-3 * (neighbours + 1) // 4)
    return Shape(members, neighbours, holders, chosen, least, around)


def colluders(shape: Shape) -> int:
    """The stated number of colluding members: the proof holds up to it."""
    if shape.members > COMPLETE_UP_TO:
        return shape.members // 20
    honest = [c for c in range(shape.members) if shape.least_honest_sum(c, c) >= 2]
    return max(honest, default=0)


class Graph:
    """Neighbours and holders of one round's cohort, the same for everyone who knows the list of keys."""

    def __init__(self, shape: Shape, cohort: Sequence[str], keys_digest: str, round_number: int) -> None:
        names = canonical({"cohort": list(cohort)})
        seed = hashlib.sha256(
            SEED_LABEL + bytes.fromhex(keys_digest) + round_number.to_bytes(4, "big") + hashlib.sha256(names).digest()
        ).digest()
        self.shape = shape
        self._near: dict[str, tuple[str, ...]] = {}
        self.cohort = tuple(cohort)
        self._ring = _shuffled(cohort, seed + b"ring\n")
        self._place = {name: place for place, name in enumerate(self._ring)}
        self.holders: tuple[str, ...] = tuple(sorted(_shuffled(cohort, seed + b"holder\n")[: shape.holders]))
        """In order; holder x is the x-th, from 1."""

    def neighbours(self, name: str) -> tuple[str, ...]:
        """In order of their names, without ``name``."""
        if name not in self._near:
            self._near[name] = self._found(name)
        return self._near[name]

    def _found(self, name: str) -> tuple[str, ...]:
        if self.shape.complete:
            return tuple(other for other in self.cohort if other != name)
        place, half, n = self._place[name], self.shape.neighbours // 2, len(self._ring)
        near = (self._ring[(place + step) % n] for step in range(-half, half + 1) if step)
        return tuple(sorted(near))


def _shuffled(names: Sequence[str], prefix: bytes) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(prefix + name.encode()).digest())


def _require_threshold(found: int, least: int, largest: int) -> None:
    if not least <= found <= largest:
        raise ConfigError(
            f"expected secure_aggregation.threshold from {least} to {largest} for this cohort, found {found}: "
            "more than two thirds must be needed, or a lying coordinator could open single updates"
        )
