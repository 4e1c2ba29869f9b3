"""The coordinator's part in secure aggregation: a setup for the run, and for each round a sum that it alone learns.

Guarantees:
- Of an update nothing is seen but its masked bytes; what comes out is the weighted mean over those that were named, or
  nothing.
- A run that is resumed goes on in its setup, and in a round that was begun with the set that was named: institutions
  answer with what they stored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fedft.errors import FedftError, QuorumNotReached, StaleUpdate, StorageError, UpdateTooLarge
from fedft.identity.keys import PrivateKey
from fedft.randomness import secure_bytes
from fedft.rounds.masking import MaskingTerms, SumCode
from fedft.rounds.run_folder import RunFolder
from fedft.secagg.context import Identities, KeyList, RoundContext, gather_keys
from fedft.secagg.coordinator import Coordinator
from fedft.secagg.messages import upload_bytes
from fedft.types import AdapterVector
from fedft.update.screening import l2_norm


@dataclass(frozen=True)
class _State:
    """What must outlive the coordinator's process. keys: the setup's list, once it is complete; named: whom a question
    named in round ``asked``, the newest that was asked for."""

    setup: str
    keys: str = ""
    asked: int = 0
    named: tuple[str, ...] = ()


class MaskedRounds:
    """Secure aggregation over one run.

    Parameters
    ----------
    weights
        Public constants by institution; 1 for those that are not listed.
    identities
        Called anew for each use: the roster as it stands now.

    Raises StorageError for a damaged secagg.json.
    """

    def __init__(
        self,
        terms: MaskingTerms,
        *,
        run: str,
        weights: Mapping[str, float],
        max_norm: float,
        identity: PrivateKey,
        identities: Callable[[], Identities],
        folder: RunFolder,
    ) -> None:
        self.terms, self._run, self._weights, self._max_norm = terms, run, dict(weights), max_norm
        self._identity, self._identities, self._folder = identity, identities, folder
        self._offered: dict[str, bytes] = {}
        self._changed: set[str] = set()
        kept = folder.masking()
        self._state = _State(f"{run}/{secure_bytes(8).hex()}") if kept is None else _read(kept)

    @property
    def setup(self) -> str:
        """Its name, as roll calls ask for keys."""
        return self._state.setup

    @property
    def members(self) -> tuple[str, ...]:
        """Who is in the setup's list of keys; nobody before it is complete."""
        return tuple(self._keys().keys) if self._state.keys else ()

    def offer(self, name: str, key: bytes) -> None:
        """Take the key that ``name`` sends. Raises IdentityError for one that is not signed by it, or of another setup.

        One that comes when the list is complete waits for the next setup.
        """
        told = json.loads(gather_keys(self.setup, {name: key}, self._identities()))
        self._offered[name] = key
        if name in self.members and told["keys"][name] != json.loads(self._state.keys)["keys"][name]:
            self._changed.add(name)

    def is_outdated(self, there: Collection[str], round_number: int) -> bool:
        """Whether the round should begin with a new setup: someone there has no key in the list, or another than it
        has, or a member is no longer in the roster. Never for a round that was asked for: nobody answers it twice."""
        if not self._state.keys or self._state.asked >= round_number:
            return False
        members, known = self.members, self._identities()
        return bool(self._changed or set(there) - set(members)) or any(name not in known for name in members)

    def renew(self) -> None:
        """Begin another setup, for which nobody has a key yet."""
        self._offered, self._changed = {}, set()
        self._state = _State(f"{self._run}/{secure_bytes(8).hex()}", asked=self._state.asked)

    def context(self, round_number: int, *, adapter_digest: str, size: int) -> tuple[RoundContext, bytes]:
        """The round's context, and the list of keys that goes with it: those who offered one by now, once for a setup.

        Raises
        ------
        QuorumNotReached
            Too few have offered a key.
        ConfigError
            A ring that does not hold the cohort's sum.
        """
        if not self._state.keys:
            self._complete()
        names = sorted(self.members)
        scale = self.terms.code({name: self._weights.get(name, 1.0) for name in names}, size=size).scale
        context = RoundContext(
            run=self.setup,
            round=round_number,
            adapter_digest=adapter_digest,
            keys_digest=self._keys().digest,
            limits=scale.limits,
            size=size,
            ring_bits=scale.ring_bits,
            fraction_bits=scale.fraction_bits,
            threshold=self.terms.shape(len(names)).threshold,
        )
        if self._state.asked < round_number:
            self._keep(replace(self._state, asked=round_number, named=()))
        return context, self._state.keys.encode()

    def open(self, context: RoundContext) -> MaskedSum:
        """The sum of a round whose context is this."""
        code = self.terms.code_of(context, {name: self._weights.get(name, 1.0) for name in context.cohort})
        machine = Coordinator(context, self._identity, self._identities())
        return MaskedSum(machine, code, self._max_norm, self._state.named, self._name)

    def _name(self, names: tuple[str, ...]) -> None:
        self._keep(replace(self._state, named=names))

    def _complete(self) -> None:
        offered, known = self._offered, self._identities()
        there = {name: key for name, key in sorted(offered.items()) if name in known}
        if len(there) < self.terms.least_cohort:
            raise QuorumNotReached(
                f"expected keys of at least {self.terms.least_cohort} institutions for secure aggregation, found "
                f"{len(there)}: wait until more are there, then resume"
            )
        self._keep(replace(self._state, keys=gather_keys(self.setup, there, known).decode()))

    def _keys(self) -> KeyList:
        return _own_list(self._state)

    def _keep(self, state: _State) -> None:
        self._folder.write_masking(asdict(state))
        self._state = state


class MaskedSum:
    """One round's uploads, and from the answers of those who hold shares their weighted mean."""

    def __init__(
        self,
        machine: Coordinator,
        code: SumCode,
        max_norm: float,
        named: tuple[str, ...],
        name: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._machine, self._code, self._max_norm = machine, code, max_norm
        self._named, self._name = named, name
        self._uploaded: set[str] = set()
        self._asked: tuple[str, ...] = ()
        self._answered: set[str] = set()
        self._lied: tuple[str, ...] = ()
        self._abandoned: str | None = None
        self._bytes_shares = self._seconds = 0.0

    @property
    def largest_upload(self) -> int:
        return upload_bytes(self._machine.context)

    def add(self, sender: str, update: bytes, *, seen: Collection[str]) -> None:
        """Raises StaleUpdate for a second upload, and for one that comes after the set was named; as add_upload."""
        if self._named and sender not in self._named:
            raise StaleUpdate("expected an upload of the set that was named, found another: it came late")
        with self._timed():
            self._machine.add_upload(sender, update)
        self._uploaded.add(sender)

    def questions(self) -> dict[str, bytes]:
        """For each holder that uploaded, the question who did; none where the round is abandoned."""
        try:
            with self._timed():
                if self._named and set(self._named) != self._uploaded:
                    raise QuorumNotReached("expected all of the set that was named to upload again, found fewer")
                questions = self._machine.name_set()
        except FedftError as error:
            self._abandoned = error.code
            return {}
        self._name(tuple(sorted(self._uploaded)))
        self._asked = tuple(questions)
        self._bytes_shares += sum(map(len, questions.values()))
        return questions

    def answer(self, holder: str, data: bytes) -> None:
        """Take a holder's shares. Raises as add_answer."""
        self._bytes_shares += len(data)
        with self._timed():
            self._machine.add_answer(holder, data)
        self._answered.add(holder)

    @property
    def is_answered(self) -> bool:
        """Whether there are enough answers; more of them would only help against one that lies."""
        return bool(self._asked) and len(self._answered) >= self._machine.context.shape.threshold

    def mean(self) -> AdapterVector | None:
        """Of the named set, float32; None where it was abandoned, or is no mean of updates of the norm that is allowed.

        To be asked for once.
        """
        if self._abandoned is not None:
            return None
        try:
            with self._timed():
                found = self._machine.finish()
                mean = self._code.mean(found.values, found.uploaded).astype(np.float32)
                self._require_norm(mean)
        except FedftError as error:
            self._abandoned = error.code
            return None
        self._lied = found.lied
        return mean

    def as_record(self) -> Mapping[str, Any]:
        """What the round's record says of it; seconds are the coordinator's, bytes those beside the vectors."""
        context = self._machine.context
        return {
            "secure_aggregation": {
                "context": context.digest.hex(),
                "cohort": list(context.cohort),
                "threshold": context.threshold,
                "ring_bits": context.ring_bits,
                "fraction_bits": context.fraction_bits,
                "uploaded": sorted(self._uploaded),
                "dropped": sorted(set(context.cohort) - self._uploaded),
                "silent": sorted(set(self._asked) - self._answered),
                "lied": list(self._lied),
                "abandoned": self._abandoned,
                "seconds": self._seconds,
                "bytes_vector": (context.size * context.ring_bits + 7) // 8,
                "bytes_shares": int(self._bytes_shares),
            }
        }

    def _require_norm(self, mean: AdapterVector) -> None:
        norm = l2_norm(mean)
        if norm > self._max_norm:
            raise UpdateTooLarge(
                f"expected a mean of norm at most {self._max_norm:g}, found {norm:.3g}: someone sent a larger update; "
                "the round is abandoned"
            )

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - begun


def _read(kept: Mapping[str, Any]) -> _State:
    try:
        state = _State(kept["setup"], kept["keys"], int(kept["asked"]), tuple(kept["named"]))
        if state.keys:
            _own_list(state)
    except (KeyError, TypeError, ValueError, FedftError):
        raise StorageError("expected secagg.json as it was written, found it damaged: restore it") from None
    return state


def _own_list(state: _State) -> KeyList:
    """As it was gathered, and checked, here: a member may have left the roster since."""
    entries = json.loads(state.keys)["keys"]
    return KeyList(state.setup, {name: bytes.fromhex(entry["key"]) for name, entry in entries.items()})
