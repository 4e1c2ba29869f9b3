"""A cohort for the tests of tests/secagg: institutions, coordinator, context, a round with drop-outs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from fedft.identity.keys import PrivateKey
from fedft.secagg.context import RoundContext, gather_keys, read_keys
from fedft.secagg.coordinator import Coordinator
from fedft.secagg.encoding import Integers
from fedft.secagg.graph import shape_for
from fedft.secagg.institution import Institution, MemoryRecorder

RUN, DIGEST = "run-1", "0" * 64


@dataclass
class Cohort:
    """Set up once; rounds are numbered by who plays them."""

    size: int
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = [f"m{number:03d}" for number in range(self.size)]
        self.coordinator = PrivateKey.generate()
        self.identity = {name: PrivateKey.generate() for name in self.names}
        self.identities = {name: key.public for name, key in self.identity.items()}
        self.recorders = {name: MemoryRecorder() for name in self.names}
        self.members = {name: self.restarted(name) for name in self.names}
        messages = {name: member.key_message(RUN) for name, member in self.members.items()}
        self.key_list = gather_keys(RUN, messages, self.identities)
        self.keys, _ = read_keys(self.key_list, RUN, self.identities)
        for member in self.members.values():
            member.accept_keys(RUN, self.key_list)

    def restarted(self, name: str) -> Institution:
        """The member as it comes back: with its keys and what it recorded, and nothing else."""
        return Institution(name, self.identity[name], self.identities, self.coordinator.public, self.recorders[name])

    def context(
        self,
        number: int,
        *,
        size: int = 5,
        ring_bits: int = 32,
        threshold: int | None = None,
        names: Collection[str] | None = None,
        adapter_digest: str = DIGEST,
    ) -> RoundContext:
        names = self.names if names is None else names
        limit = (2 ** (ring_bits - 1) - 1) // len(names)
        chosen = shape_for(len(names), threshold).threshold
        limits = dict.fromkeys(names, limit)
        return RoundContext(RUN, number, adapter_digest, self.keys.digest, limits, size, ring_bits, 0, chosen)

    def collector(self, context: RoundContext) -> Coordinator:
        return Coordinator(context, self.coordinator, self.identities)


def values_of(context: RoundContext, name: str, seed: int) -> Integers:
    """Anything within the member's limit, its ends among it."""
    limit = context.limits[name]
    rng = np.random.default_rng([seed, *name.encode()])
    values = rng.integers(-limit, limit, size=context.size, endpoint=True)
    values[:2] = [limit, -limit][: context.size]
    return values


def uploads(cohort: Cohort, context: RoundContext, names: Collection[str], seed: int = 0) -> dict[str, bytes]:
    return {name: bytes(cohort.members[name].upload(context, values_of(context, name, seed))) for name in names}


def plain_sum(context: RoundContext, names: Collection[str], seed: int = 0) -> Integers:
    return sum((values_of(context, name, seed) for name in names), np.zeros(context.size, dtype=np.int64))
