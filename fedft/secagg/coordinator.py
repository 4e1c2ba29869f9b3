"""The coordinator's side of one round: collect, name the set, combine. docs/SPEC.md, "Secure aggregation".

Guarantees:
- The result is the exact integer sum of what the named members encoded, or an error; never another number: every
  restored secret is compared with its commitment, and the sum with its range.
- One masked vector is in memory beside the running sum, and none is kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fedft.errors import FederationError, IdentityError, QuorumNotReached, StaleUpdate
from fedft.identity.keys import PrivateKey
from fedft.randomness import reproducible_rng
from fedft.secagg.context import Identities, RoundContext
from fedft.secagg.encoding import Integers, from_ring
from fedft.secagg.institution import require_unmaskable
from fedft.secagg.key_agreement import commitment
from fedft.secagg.masking import add_masks, ring_zeros
from fedft.secagg.messages import Question, Upload, read_answer, read_upload, revealed, write_question
from fedft.secagg.shamir import PRIME, weighted, weights_at

MOST_SUBSETS = 2000
"""Groups of t answers that are tried before a secret counts as lost."""


@dataclass(frozen=True)
class Sum:
    """values, shape (size,): the sum over ``uploaded``. answered: the holders; lied: those whose shares
    did not fit, be it their own doing or that of a member who dealt them wrong ones."""

    values: Integers
    uploaded: tuple[str, ...]
    dropped: tuple[str, ...]
    answered: tuple[str, ...]
    lied: tuple[str, ...]


@dataclass
class _Kept:
    """Of an upload without its vector."""

    head: bytes
    commitments: tuple[bytes, ...]
    packages: tuple[bytes, ...]


@dataclass
class _Answers:
    """Shares by holder's number, in the order of the secrets, and who lied."""

    shares: dict[int, list[int]] = field(default_factory=dict)
    lied: set[int] = field(default_factory=set)


class Coordinator:
    """One round: add_upload for each that comes, name_set once, add_answer for each, finish."""

    def __init__(self, context: RoundContext, identity: PrivateKey, identities: Identities) -> None:
        self.context = context
        self._identity, self._identities = identity, identities
        self._total = ring_zeros(context.size, context.ring_bits)
        self._kept: dict[str, _Kept] = {}
        self._uploaded: tuple[str, ...] = ()
        self._answers = _Answers()
        self._finished = False

    def add_upload(self, name: str, data: bytes | memoryview) -> None:
        """Check the upload of ``name`` and add its vector. After an error the sum is as it was.

        Raises StaleUpdate for a second one, and after the set is named; else as read_upload.
        """
        if name not in self.context.limits or name not in self._identities:
            raise IdentityError("expected an upload of a member of the cohort, found a stranger's: leave it out")
        if self._uploaded or name in self._kept:
            raise StaleUpdate(f'expected one upload of "{name}" before the set is named, found another: leave it out')
        upload = read_upload(data, self.context, name, self._identities[name])
        self._total += upload.vector
        self._kept[name] = _without_vector(upload)

    def name_set(self) -> dict[str, bytes]:
        """Who uploaded, as a question for each holder among them. No upload is taken after it.

        Raises QuorumNotReached when too few uploaded, FederationError when two commit to different common masks.
        """
        if not self._uploaded:
            uploaded = tuple(sorted(self._kept))
            require_unmaskable(self.context, uploaded)
            self._require_agreement(uploaded)
            self._uploaded = uploaded
        questions = {}
        heads = tuple(self._kept[name].head for name in self._uploaded)
        for place, holder in enumerate(self.context.graph.holders):
            if holder in self._kept:
                packages = tuple(self._kept[name].packages[place] for name in self._uploaded)
                question = Question(holder, self._uploaded, heads, packages)
                questions[holder] = write_question(self.context, question, self._identity)
        return questions

    def add_answer(self, name: str, data: bytes) -> None:
        """Take a holder's shares. Raises StaleUpdate for a second answer; else as read_answer."""
        if name not in self._uploaded or name not in self.context.graph.holders:
            raise IdentityError("expected an answer of a holder that was asked, found another's: leave it out")
        number = self.context.graph.holders.index(name) + 1
        if number in self._answers.shares:
            raise StaleUpdate(f'expected one answer of "{name}", found another: leave it out')
        key = self._identities[name]
        self._answers.shares[number] = read_answer(data, self.context, name, self._uploaded, key)

    def finish(self) -> Sum:
        """The sum. Raises QuorumNotReached below t answers, FederationError, UpdateError; once."""
        shape = self.context.shape
        if self._finished or len(self._answers.shares) < shape.threshold:
            raise QuorumNotReached(
                f"expected at least {shape.threshold} answers, once, found {len(self._answers.shares)}: the round is "
                "abandoned, and its single vectors stay masked"
            )
        add, subtract = self._masks()
        self._finished = True
        add_masks(self._total, add, subtract)
        limit = sum(self.context.limits[name] for name in self._uploaded)
        values = from_ring(self._total, self.context.ring_bits, limit)
        holders, lied = self.context.graph.holders, sorted(self._answers.lied)
        return Sum(
            values,
            self._uploaded,
            tuple(name for name in self.context.cohort if name not in self._uploaded),
            tuple(holders[number - 1] for number in sorted(self._answers.shares)),
            tuple(holders[number - 1] for number in lied),
        )

    def _masks(self) -> tuple[list[bytes], list[bytes]]:
        """Keys of the masks to add to the sum, and of those to subtract."""
        add: list[bytes] = []
        subtract: list[bytes] = []
        place = 0
        restore = _Restorer(self._answers, self.context.shape.threshold)
        for name, dropped in revealed(self.context, self._uploaded).items():
            commitments, neighbours = self._kept[name].commitments, self.context.graph.neighbours(name)
            subtract.append(restore.secret(place, commitments[0], self.context.digest))
            place += 1
            for other in dropped:
                mask = restore.secret(place, commitments[1 + neighbours.index(other)], self.context.digest)
                (subtract if other > name else add).append(mask)
                place += 1
        return add, subtract

    def _require_agreement(self, uploaded: Sequence[str]) -> None:
        found: dict[tuple[str, str], bytes] = {}
        for name in uploaded:
            for other, commit in zip(
                self.context.graph.neighbours(name), self._kept[name].commitments[1:], strict=True
            ):
                if found.setdefault((min(name, other), max(name, other)), commit) != commit:
                    raise FederationError(
                        f'expected "{name}" and "{other}" to commit to one common mask, found two: one of them lies, '
                        "and their masks would not cancel; run the round without one"
                    )


class _Restorer:
    """Secrets from answers, leaving out who lies."""

    def __init__(self, answers: _Answers, threshold: int) -> None:
        self._answers, self._threshold = answers, threshold
        self._use(sorted(answers.shares)[:threshold])

    def _use(self, points: Sequence[int]) -> None:
        self._points, self._weights = list(points), weights_at(points)

    def secret(self, place: int, commit: bytes, context: bytes) -> bytes:
        found = self._fitting(place, commit, context)
        if found is not None:
            return found
        for points in self._subsets():
            self._use(points)
            found = self._fitting(place, commit, context)
            if found is not None:
                self._note_liars(place)
                return found
        raise FederationError(
            "expected shares that restore a secret as it was committed to, found none that do: holders altered theirs, "
            "or a member dealt wrong ones; the round is abandoned"
        )

    def _fitting(self, place: int, commit: bytes, context: bytes) -> bytes | None:
        try:
            found = weighted([self._answers.shares[point][place] for point in self._points], self._weights)
        except FederationError:
            return None
        return found if commitment(found, context) == commit else None

    def _subsets(self) -> Iterator[Sequence[int]]:
        honest = [point for point in sorted(self._answers.shares) if point not in self._answers.lied]
        if math.comb(len(honest), self._threshold) <= MOST_SUBSETS:
            yield from itertools.combinations(honest, self._threshold)
            return
        draw = reproducible_rng(0, "secagg-subsets")
        for _ in range(MOST_SUBSETS // 10):
            yield [int(point) for point in draw.choice(honest, self._threshold, replace=False)]

    def _note_liars(self, place: int) -> None:
        shares = self._answers.shares
        for point in set(shares) - set(self._points):
            weights = weights_at(self._points, point)
            value = sum(shares[own][place] * weight for own, weight in zip(self._points, weights, strict=True))
            if value % PRIME != shares[point][place]:
                self._answers.lied.add(point)


def _without_vector(upload: Upload) -> _Kept:
    return _Kept(upload.head, upload.commitments, upload.packages)
