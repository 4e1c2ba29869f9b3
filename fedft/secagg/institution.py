"""An institution's side: setup -> upload -> unmask. docs/SPEC.md, "Secure aggregation". After Bonawitz et al. 2017.

Guarantees, for any coordinator and also across restarts, as long as the Recorder keeps what it is given:
- Under one run and round at most one vector is masked, once; asked again, the stored bytes are returned.
- Under one run and round one set is answered. Of it, for each member i that uploaded: the share of b_i, and those of
  the masks of i, as dealt by i, with members that did not. Never both kinds for one value; of a member that the
  coordinator says did not upload, nothing that it dealt.
- Nothing is revealed for a set below the least number of uploads, with strangers, or without this institution.
- Everything is stored before it is returned.
"""

from __future__ import annotations

from typing import Literal, Protocol

from fedft.errors import IdentityError, PolicyError, QuorumNotReached, StaleUpdate, StorageError, UpdateError
from fedft.identity.documents import canonical
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.randomness import secure_bytes
from fedft.secagg.context import (
    Identities,
    KeyList,
    RoundContext,
    identity_of,
    read_keys,
    require_keys,
    require_run,
    write_key,
)
from fedft.secagg.encoding import Encoded, to_ring
from fedft.secagg.graph import LEAST_COHORT
from fedft.secagg.key_agreement import AgreementKey, commitment, mask_key, open_shares, pair_key, seal_shares
from fedft.secagg.masking import KEY_BYTES, Ring, add_masks
from fedft.secagg.messages import (
    Question,
    package_plain_bytes,
    read_question,
    read_shares,
    read_upload_head,
    revealed,
    write_answer,
    write_upload,
)
from fedft.secagg.shamir import split, to_bytes

Step = Literal["key", "keys", "upload", "answer"]


class Recorder(Protocol):
    """What outlives a restart. ``key`` holds a private key: where only its owner reads.

    ``upload`` is framed behind the context's bytes, ``answer`` behind the canonical JSON of ``uploaded``.
    """

    def stored(self, run: str, round_number: int, step: Step) -> bytes | None:
        """What was stored there, or None."""

    def store(self, run: str, round_number: int, step: Step, content: bytes) -> None:
        """Durable when it returns. Raises StorageError: the disk refuses, or something is stored there already."""


class MemoryRecorder:
    """A Recorder for one process: of a simulation, and of tests."""

    def __init__(self) -> None:
        self._stored: dict[tuple[str, int, Step], bytes] = {}

    def stored(self, run: str, round_number: int, step: Step) -> bytes | None:
        return self._stored.get((run, round_number, step))

    def store(self, run: str, round_number: int, step: Step, content: bytes) -> None:
        if (run, round_number, step) in self._stored:
            raise StorageError(f'expected nothing stored as "{step}" of round {round_number}, found something')
        self._stored[run, round_number, step] = content


class Institution:
    """One member, in all its runs.

    identities: the roster's, pinned here and not taken from a message. least_cohort: a coordinator that may choose the
    cohort could otherwise choose one member and those who collude with it.
    """

    def __init__(
        self,
        name: str,
        identity: PrivateKey,
        identities: Identities,
        coordinator: PublicKey,
        recorder: Recorder,
        *,
        least_cohort: int = LEAST_COHORT,
    ) -> None:
        self.name, self.least_cohort = name, least_cohort
        self._identity, self._identities, self._coordinator = identity, identities, coordinator
        self._recorder = recorder
        self._agreement: dict[str, AgreementKey] = {}
        self._pairs: dict[tuple[str, str], bytes] = {}
        self._keys: dict[str, KeyList] = {}

    def key_message(self, run: str) -> bytes:
        """This institution's X25519 key for the run, sealed; made and stored the first time."""
        if self._recorder.stored(require_run(run), 0, "key") is None:
            self._recorder.store(run, 0, "key", secure_bytes(KEY_BYTES))
        return write_key(run, self.name, self._own_key(run).public, self._identity)

    def accept_keys(self, run: str, data: bytes) -> None:
        """Take the run's list of keys. Raises IdentityError, ConfigError; StaleUpdate for a second, other list."""
        known = self._recorder.stored(run, 0, "keys")
        if known is not None and known != data:
            raise StaleUpdate("expected the list of keys that this run began with, found another: set up a new run")
        keys, _ = read_keys(data, run, self._identities)
        if keys.keys.get(self.name) != self._own_key(run).public:
            raise IdentityError("expected this institution's own key in the list, found another or none: set up again")
        if known is None:
            self._recorder.store(run, 0, "keys", data)
        self._keys[run] = keys

    def require(self, context: RoundContext) -> None:
        """Return if this institution would take part: for whoever pays for a vector before it is there.

        Raises
        ------
        StaleUpdate
            Another context of this run and round was answered; another list of keys; a cohort without this member.
        IdentityError, PolicyError
            A cohort with strangers; one smaller than least_cohort.
        """
        known = self._upload_of(context.run, context.round)
        if known is not None and known[0] != context:
            raise StaleUpdate(
                f"expected the context that round {context.round} was answered in, found another: one vector is "
                "masked in a round, and never a second one"
            )
        keys = self._keys_of(context.run)
        if context.keys_digest != keys.digest or self.name not in context.limits:
            raise StaleUpdate("expected a cohort with this institution and its run's keys, found another: set up again")
        require_keys(context.cohort, keys)
        if len(context.cohort) < self.least_cohort:
            raise PolicyError(
                f"expected a cohort of at least {self.least_cohort}, found {len(context.cohort)}: wait for more members"
            )

    def upload(self, context: RoundContext, values: Encoded) -> memoryview:
        """The masked vector of encoded ``values``, shape (size,), with the shares of its masks.

        It lies in what was stored. Asked again in the same context it is that again, whatever ``values`` are.

        Raises
        ------
        UpdateTooLarge, UpdateError
            A value beyond this member's limit; another number of values.
        StaleUpdate, IdentityError, PolicyError
            As ``require``.
        """
        self.require(context)
        known = self._upload_of(context.run, context.round)
        if known is not None:
            return known[1]
        if values.shape != (context.size,):
            raise UpdateError(f"expected {context.size} values, found shape {values.shape}: of another adapter")
        described = framed(context.to_bytes(), b"")
        content = self._masked(context, to_ring(values, context.ring_bits, context.limits[self.name]), described)
        self._recorder.store(context.run, context.round, "upload", content)
        return memoryview(content)[len(described) :]

    def unmask(self, run: str, round_number: int, data: bytes) -> bytes:
        """The answer to a question that names who uploaded.

        Raises
        ------
        StaleUpdate
            This institution uploaded nothing in that round, or answered for another set.
        IdentityError, UpdateError
            Another signer; strangers; a set without this institution; heads or packages that do not open.
        QuorumNotReached
            Too few uploaded, or too few around a member.
        """
        known = self._upload_of(run, round_number)
        if known is None:
            raise StaleUpdate(f"expected a question of a round that was answered, found round {round_number}: too late")
        context = known[0]
        question = read_question(data, context, self.name, self._coordinator)
        named = canonical({"uploaded": list(question.uploaded)})
        answered = self._recorder.stored(run, round_number, "answer")
        if answered is not None:
            before, answer = unframed(answered)
            if before != named:
                raise StaleUpdate(
                    f"expected the set that round {round_number} was answered for, found another: one set is answered"
                )
            return answer
        require_unmaskable(context, question.uploaded)
        if self.name not in question.uploaded:
            raise UpdateError("expected a set with this institution, which uploaded, found one without: it came late")
        shares = self._shares(context, question)
        answer = write_answer(context, self.name, question.uploaded, shares, self._identity)
        self._recorder.store(run, round_number, "answer", framed(named, answer))
        return answer

    def _masked(self, context: RoundContext, total: Ring, before: bytes) -> bytes:
        neighbours = context.graph.neighbours(self.name)
        own = secure_bytes(KEY_BYTES)
        masks = {other: mask_key(self._pair(context.run, other), context.digest) for other in neighbours}
        plus = [own, *(key for other, key in masks.items() if other > self.name)]
        add_masks(total, plus, [key for other, key in masks.items() if other < self.name])
        secrets = [own, *masks.values()]
        dealt = [split(secret, context.shape.threshold, context.shape.holders) for secret in secrets]
        packages = [
            seal_shares(
                self._pair(context.run, holder), context.digest, self.name, holder, b"".join(map(to_bytes, shares))
            )
            for holder, shares in zip(context.graph.holders, zip(*dealt, strict=True), strict=True)
        ]
        commitments = [commitment(secret, context.digest) for secret in secrets]
        return write_upload(context, self.name, total, commitments, packages, self._identity, before=before)

    def _shares(self, context: RoundContext, question: Question) -> bytes:
        if self.name not in context.graph.holders:
            raise UpdateError("expected a question to a holder of this round, found one to another member: ask those")
        chosen, dropped = [], revealed(context, question.uploaded)
        for name, head, package in zip(question.uploaded, question.heads, question.packages, strict=True):
            read_upload_head(head, context, name, identity_of(self._identities, name))
            plain = open_shares(self._pair(context.run, name), context.digest, name, self.name, package)
            if len(plain) != package_plain_bytes(context):
                raise UpdateError(f'expected a share of each secret of "{name}", found another number: leave it out')
            own, *masks = read_shares(plain)
            by_neighbour = dict(zip(context.graph.neighbours(name), masks, strict=True))
            chosen += [own, *(by_neighbour[other] for other in dropped[name])]
        return b"".join(map(to_bytes, chosen))

    def _upload_of(self, run: str, round_number: int) -> tuple[RoundContext, memoryview] | None:
        content = self._recorder.stored(run, round_number, "upload")
        if content is None:
            return None
        end = 4 + int.from_bytes(content[:4], "big")
        return RoundContext.from_bytes(content[4:end]), memoryview(content)[end:]

    def _own_key(self, run: str) -> AgreementKey:
        if run not in self._agreement:
            raw = self._recorder.stored(run, 0, "key")
            if raw is None:
                raise StaleUpdate("expected a run that this institution made a key for, found another: set up first")
            self._agreement[run] = AgreementKey(raw)
        return self._agreement[run]

    def _keys_of(self, run: str) -> KeyList:
        if run not in self._keys:
            data = self._recorder.stored(run, 0, "keys")
            if data is None:
                raise StaleUpdate("expected a run whose list of keys was taken, found another: set up first")
            self._keys[run], _ = read_keys(data, run, self._identities)
        return self._keys[run]

    def _pair(self, run: str, other: str) -> bytes:
        if (run, other) not in self._pairs:
            public = self._keys_of(run).keys[other]
            self._pairs[run, other] = pair_key(self._own_key(run), run, self.name, other, public)
        return self._pairs[run, other]


def framed(head: bytes, body: bytes) -> bytes:
    return len(head).to_bytes(4, "big") + head + body


def unframed(content: bytes) -> tuple[bytes, bytes]:
    end = 4 + int.from_bytes(content[:4], "big")
    return content[4:end], content[end:]


def require_unmaskable(context: RoundContext, uploaded: tuple[str, ...]) -> None:
    """Raise QuorumNotReached unless enough uploaded, and enough around each of them."""
    shape, there = context.shape, set(uploaded)
    if len(there) < shape.least_uploads:
        raise QuorumNotReached(
            f"expected at least {shape.least_uploads} uploads of {shape.members}, found {len(there)}: the round is "
            "abandoned, and nothing is revealed"
        )
    for name in uploaded:
        around = 1 + sum(other in there for other in context.graph.neighbours(name))
        if around < shape.least_around:
            raise QuorumNotReached(
                f'expected at least {shape.least_around} of "{name}" and its neighbours to upload, found {around}: the '
                "round is abandoned, and nothing is revealed"
            )
