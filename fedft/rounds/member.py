"""An institution's part in secure aggregation: its keys, its masked updates, its shares. docs/SPEC.md.

Guarantees, across restarts, as long as the ledger and the folder are kept:
- A round has one masked update, under whatever setup: the ledger holds one release for it, and those bytes are all that
  is ever sent.
- Whom to take part with is judged before the round is paid for.
- Shares are revealed once a round, for one set, and are in the ledger before they leave.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedft.durable import write_whole
from fedft.errors import ConfigError, FedftError, PolicyError, StaleUpdate, StorageError
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.secret_files import read_secret, write_secret
from fedft.ledger.store import Intent, Ledger
from fedft.model.checkpoint import storage_errors
from fedft.privacy.distributed import DistributedPlan, noisy_share
from fedft.privacy.events import DataIndependentRelease
from fedft.randomness import SecureStream
from fedft.rounds.masking import GradientCode, MaskingTerms, SumCode, UpdateCode, run_of
from fedft.rounds.plan import RoundPlan
from fedft.secagg.context import Identities, RoundContext, read_object
from fedft.secagg.encoding import Words
from fedft.secagg.graph import LEAST_COHORT
from fedft.secagg.institution import Institution, Step, unframed
from fedft.secagg.messages import MAX_UNMASK_HEAD, question_place
from fedft.types import AdapterVector
from fedft.update.release import UPDATE_PURPOSE, Refusal, refusal_for, release_masked, release_share

SHARES_PURPOSE = "secagg-shares"
KEPT_SETUPS = 8
"""Keys of older setups are deleted: what was masked under them can then not be opened with this institution's help."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Masked:
    """What a round's update is masked in: by whom, the context, and how this institution's values become integers."""

    member: Member
    context: RoundContext
    code: SumCode

    @property
    def noise(self) -> DistributedPlan | None:
        """Where the update is a sum of gradients: the share of the noise that it gets."""
        return self.code.scale if isinstance(self.code, GradientCode) else None

    @property
    def evidence(self) -> dict[str, str | int]:
        """For the ledger."""
        context = self.context
        return {
            "secagg_context": context.digest.hex(),
            "secagg_cohort": len(context.cohort),
            "secagg_threshold": context.threshold,
            "secagg_ring_bits": context.ring_bits,
        }


class Member:
    """One institution in all its runs.

    Parameters
    ----------
    identities
        The keys of everyone in the federation, from the institution's own roster.
    folder
        Of its own: keeps a private key and a list of public ones for each of the newest KEPT_SETUPS setups.
    least_cohort
        A cohort that is smaller is refused: a coordinator chooses who is in it.
    """

    def __init__(
        self,
        name: str,
        *,
        identity: PrivateKey,
        identities: Identities,
        coordinator: PublicKey,
        ledger: Ledger,
        folder: Path,
        least_cohort: int = LEAST_COHORT,
    ) -> None:
        self.name, self.seconds = name, 0.0
        self._ledger, self._coordinator = ledger, coordinator
        recorder = LedgerRecorder(ledger, folder)
        self._machine = Institution(name, identity, identities, coordinator, recorder, least_cohort=least_cohort)

    def key(self, setup: str) -> bytes:
        """This institution's key for a setup, sealed; made the first time. May be called while a round is trained."""
        return self._machine.key_message(setup)

    def join(self, plan: RoundPlan, keys: bytes, *, size: int, terms: MaskingTerms, weight: float) -> Masked:
        """Return if this institution takes part in the round as it is planned. size: values of an update.

        Raises
        ------
        PolicyError
            A cohort that is too small; weights under which this institution is more than half of the sum.
        ConfigError, IdentityError, StaleUpdate
            A context that is not this plan's, or has other terms or a list of keys that the roster does not bear out.
        """
        context = RoundContext.from_bytes(plan.masking.encode())
        code = terms.code_of(context, {self.name: weight})
        for what, expected, found in _bindings(plan, context, size, terms):
            if expected != found:
                raise ConfigError(f"expected a masked round of the plan's own {what}, found another: plan it anew")
        if self.name not in context.limits or not set(context.cohort) <= set(plan.cohort):
            raise ConfigError("expected to mask with this institution among the plan's cohort, found others: plan anew")
        if code.scale.limits[self.name] != context.limits[self.name]:
            raise ConfigError(
                "expected the limit that this institution's weight, range and scale come to, found another: use the "
                "coordinator's [secure_aggregation], [privacy] and aggregation.weights"
            )
        if 2 * context.limits[self.name] > sum(context.limits.values()):
            raise PolicyError(
                "expected weights under which this institution is at most half of the sum, found a larger share: its "
                "update would hide behind nobody's; use aggregation.weights that are nearer to each other"
            )
        self._machine.accept_keys(context.run, keys)
        self._machine.require(context)
        return Masked(self, context, code)

    def release(self, delta: AdapterVector, masked: Masked, intent: Intent, words: Words) -> tuple[bytes, int]:
        """What may be sent of an update, from the ledger, and how many of its values the range cut off.

        Raises ConfigError in a round of gradients, whose noise it would lack.
        """
        if not isinstance(masked.code, UpdateCode):
            raise ConfigError("expected a round of updates, found one of gradients with shares of noise: plan it anew")
        point = masked.code.scale
        with self._timed():
            payload = release_masked(
                delta,
                intent=intent,
                run=run_of(masked.context.run),
                round=masked.context.round,
                encode=lambda values: point.encode(values, self.name, words),
                mask=lambda values: bytes(self._machine.upload(masked.context, values)),
                bound=point.bound,
            )
        return payload, int(np.count_nonzero(np.abs(delta) > point.bound))

    def release_gradients(self, clipped_sum: npt.NDArray[np.float64], masked: Masked, intent: Intent) -> bytes:
        """What may be sent of a sum of clipped gradients, from the ledger: with this institution's share of the noise.

        Raises ConfigError in a round of updates, and what noisy_share and Institution.upload raise.
        """
        if masked.noise is None:
            raise ConfigError("expected a round of gradients, found one of updates: plan it anew")
        with self._timed():
            return release_share(
                noisy_share(masked.noise, clipped_sum, SecureStream()),
                intent=intent,
                run=run_of(masked.context.run),
                round=masked.context.round,
                mask=lambda values: bytes(self._machine.upload(masked.context, values)),
            )

    def place(self, question: bytes) -> tuple[str, int]:
        """Setup and round of a question. Raises IdentityError, UpdateError for what is none of the coordinator's."""
        return question_place(question, self._coordinator)

    def unmask(self, data: bytes) -> bytes | Refusal:
        """The sealed shares that a question asks for, or a refusal.

        Raises as ``place``.
        """
        setup, number = self.place(data)
        try:
            with self._timed():
                return self._machine.unmask(setup, number, data)
        except FedftError as error:
            log.warning("%s reveals nothing of round %d: %s", self.name, number, error)
            return refusal_for(error, institution=self.name, run=run_of(setup), round=number)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begun


def stored_upload(payload: bytes) -> bytes:
    """What is sent of a masked release as the ledger holds it."""
    return unframed(payload)[1]


class LedgerRecorder:
    """What secagg.institution wants kept: keys in files, the masked update and the shares in the ledger."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger, self._folder = ledger, folder

    def stored(self, run: str, round_number: int, step: Step) -> bytes | None:
        """``run``: the setup's name. Raises StaleUpdate for a round that was answered under another setup."""
        if step == "key":
            path = self._file(run, step)
            return read_secret(path) if path.exists() else None
        if step == "keys":
            path = self._file(run, step)
            return path.read_bytes() if path.exists() else None
        content = self._ledger.stored_release(run_of(run), round_number, _PURPOSES[step])
        if content is not None and step == "upload":
            _require_setup(unframed(content)[0], run, round_number)
        return content

    def store(self, run: str, round_number: int, step: Step, content: bytes) -> None:
        """Raises StorageError or LedgerError; StaleUpdate where another set was about to be answered."""
        if step == "key":
            self._make_folder()
            write_secret(self._file(run, step), content)
            self._forget()
            return
        if step == "keys":
            with storage_errors(self._folder):
                write_whole(self._file(run, step), content)
            return
        intent = self._ledger.find_intent(run_of(run), round_number, UPDATE_PURPOSE)
        if intent is None:
            raise StorageError(f"expected round {round_number} to be charged before it is masked, found no intent")
        if step == "answer":
            intent = self._intent_to_reveal(intent, content)
        if self._ledger.record_release(intent, content) != content:
            raise StorageError(f'expected nothing stored as "{step}" of round {round_number}, found something')

    def _intent_to_reveal(self, update: Intent, content: bytes) -> Intent:
        upload = self._ledger.stored_release(*update.key)
        cohort = RoundContext.from_bytes(unframed(upload or b"")[0]).cohort
        uploaded = read_object(unframed(content)[0], MAX_UNMASK_HEAD)["uploaded"]
        dropped = [name for name in cohort if name not in uploaded]
        evidence: dict[str, str | int | float] = {
            "uploaded": len(uploaded),
            "dropped": len(dropped),
            "names_dropped": _short(dropped),
        }
        intent = self._ledger.record_intent(
            run=update.run,
            round=update.round,
            purpose=SHARES_PURPOSE,
            dataset=update.dataset,
            plan_digest=update.plan_digest,
            event=DataIndependentRelease(),
            evidence=evidence,
        )
        if intent.evidence != evidence:
            raise StaleUpdate("expected the set that this round was about to be answered for, found another: too late")
        return intent

    def _make_folder(self) -> None:
        with storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _forget(self) -> None:
        keys = sorted(self._folder.glob("*.key"), key=lambda path: path.stat().st_mtime_ns)
        for old in keys[:-KEPT_SETUPS]:
            old.with_suffix(".keys").unlink(missing_ok=True)
            old.unlink()

    def _file(self, setup: str, step: Step) -> Path:
        """A setup's name may hold what a file's may not."""
        return self._folder / f"{hashlib.sha256(setup.encode()).hexdigest()[:32]}.{step}"


_PURPOSES: Mapping[Step, str] = {"upload": UPDATE_PURPOSE, "answer": SHARES_PURPOSE}
_LONGEST = 1000


def _short(names: list[str]) -> str:
    """As many of the names as evidence holds."""
    text = ",".join(names)
    return text if len(text) <= _LONGEST else text[:_LONGEST].rpartition(",")[0]


def _require_setup(described: bytes, setup: str, round_number: int) -> None:
    if RoundContext.from_bytes(described).run != setup:
        raise StaleUpdate(
            f"expected the setup in which round {round_number} was answered, found another: one vector is masked in a "
            "round, and never under two setups"
        )


def _bindings(plan: RoundPlan, context: RoundContext, size: int, terms: MaskingTerms) -> Iterator[tuple[str, Any, Any]]:
    """What a context must have in common with its plan and its terms: what, as it should be, as it is."""
    yield "run", plan.run, run_of(context.run)
    yield "round", plan.round, context.round
    yield "adapter", plan.adapter_digest, context.adapter_digest
    yield "number of values", size, context.size
    yield "secure_aggregation.ring_bits", terms.ring_bits, context.ring_bits
    yield "secure_aggregation.threshold", terms.shape(len(context.cohort)).threshold, context.threshold


def require_masking(asked: bool, agreed: bool) -> None:
    """Raise PolicyError when terms and plan do not agree on whether updates are masked."""
    if asked != agreed:
        word = {True: "masked", False: "bare"}
        raise PolicyError(
            f"expected a plan for {word[agreed]} updates, as the terms say, found one for {word[asked]} ones: plan anew"
        )
