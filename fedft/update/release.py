"""The only exit of an institution: a recorded update, or a refusal of one word.

Guarantees:
- release_update, release_masked, release_share and release_document return only bytes that were stored, so nothing
  leaves unrecorded and a retried round sends its first bytes again.
- A NaN or infinity does not leave: NonFiniteUpdate, and nothing is recorded.
- An update leaves only under the intent of its own run and round.
- A Refusal carries a fixed word and the names of institution, run and round; nothing of the error's text.

Outside this module and the ledger go, signed: beside each answer an attestation (ledger/attestation.py: the ledger's
random id, the number of its entries over all its runs and federations, the hash of the last, and the digest of the
answer), and in reply to a roll call the institution's name and its public key for masks. They have no further field
(tests/contracts/test_rounds.py); docs/SPEC.md, "Answer", says what they tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, get_args

import numpy as np

from fedft import errors
from fedft.errors import LedgerCorrupt, LedgerError, NonFiniteUpdate, UpdateError
from fedft.secagg.encoding import Encoded
from fedft.types import AdapterVector
from fedft.update.envelope import open_header, require_identity, seal
from fedft.update.wire import Encoding, Uniform

UPDATE_PURPOSE = "update"

Reason = Literal[
    "budget-exhausted",
    "stale-round",
    "not-private",
    "wrong-plan",
    "data",
    "storage",
    "ledger",
    "policy",
    "identity",
    "busy",
    "too-few",
    "withdrawn",
    "internal",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class IntentLike(Protocol):
    """The ledger's entry that was synced before training."""

    @property
    def run(self) -> str: ...
    @property
    def round(self) -> int: ...
    @property
    def purpose(self) -> str: ...


AnyIntent = TypeVar("AnyIntent", bound=IntentLike)
_Intent = TypeVar("_Intent", bound=IntentLike, contravariant=True)


class Recorder(Protocol[_Intent]):
    """Stores a release durably, at most one per intent, and returns the bytes it holds: the first ones."""

    def record_release(self, intent: _Intent, payload: bytes, /) -> bytes: ...


def release_update(
    delta: AdapterVector,
    *,
    run: str,
    round: int,
    institution: str,
    plan_digest: str,
    layout_digest: str,
    intent: AnyIntent,
    recorder: Recorder[AnyIntent],
    encoding: Encoding = "float32",
    uniform: Uniform | None = None,
) -> bytes:
    """Check, seal, record, and return the stored bytes: what may be sent.

    Parameters
    ----------
    delta : float32, shape (d,), in the order of the trained part's layout
    layout_digest : digest of the trained part's layout
    intent : the ledger's intent for this run, round and purpose "update"
    encoding, uniform : how the values travel, and draws for rounding them without bias; it follows the noise

    Raises
    ------
    NonFiniteUpdate
        A value is NaN or infinite. Nothing is recorded.
    LedgerError
        The intent is another round's, or the stored bytes are.
    """
    _require_intent(intent, run, round)
    _require_finite(delta, round)
    payload = seal(
        run=run,
        round=round,
        institution=institution,
        plan_digest=plan_digest,
        layout_digest=layout_digest,
        delta=delta,
        encoding=encoding,
        uniform=uniform,
    )
    stored = recorder.record_release(intent, payload)
    _require_same_round(stored, payload)
    return stored


def release_masked(
    delta: AdapterVector,
    *,
    run: str,
    round: int,
    intent: IntentLike,
    bound: float,
    encode: Callable[[AdapterVector], Encoded],
    mask: Callable[[Encoded], bytes],
) -> bytes:
    """Check, cut off beyond ``bound``, encode, mask, and return what may be sent.

    Cutting and rounding come after the noise and look at nothing else: post-processing.

    Parameters
    ----------
    delta : float32, shape (d,)
    encode : to integers, shape (d,)
    mask : stores what it returns, under ``intent``, before it returns it, or raises; rounds/member.py

    Raises
    ------
    NonFiniteUpdate
        A value is NaN or infinite. Nothing is recorded.
    LedgerError
        The intent is another round's.
    """
    _require_intent(intent, run, round)
    _require_finite(delta, round)
    return mask(encode(np.clip(delta, -bound, bound)))


def release_share(
    values: Encoded, *, run: str, round: int, intent: IntentLike, mask: Callable[[Encoded], bytes]
) -> bytes:
    """Mask integers that carry their share of the noise already (privacy/distributed.py); return what may be sent.

    Nothing is cut off: what lies beyond this institution's limit raises in ``mask``, as release_masked's may.

    Raises LedgerError when the intent is another round's.
    """
    _require_intent(intent, run, round)
    return mask(values)


def release_document(
    payload: bytes, *, run: str, round: int, purpose: str, intent: AnyIntent, recorder: Recorder[AnyIntent]
) -> bytes:
    """Record a signed document and return the stored bytes: the first ones, whatever ``payload`` is by now.

    Raises LedgerError when the intent is another round's, or for another purpose.
    """
    _require_intent(intent, run, round, purpose)
    return recorder.record_release(intent, payload)


@dataclass(frozen=True)
class Refusal:
    """An institution's no. Raises UpdateError for any reason outside REASONS and any name that could be free text."""

    institution: str
    run: str
    round: int
    reason: Reason

    def __post_init__(self) -> None:
        require_identity(run=self.run, round=self.round, institution=self.institution)
        if self.reason not in REASONS:
            raise UpdateError(
                f"expected one of {', '.join(REASONS)} as a reason, found something else: send one of them"
            )


_WORDS: dict[type[BaseException], Reason] = {
    errors.PrivacyBudgetExhausted: "budget-exhausted",
    errors.UnreachableEpsilon: "budget-exhausted",
    errors.PrivacyError: "not-private",
    errors.StaleUpdate: "stale-round",
    errors.ConfigError: "wrong-plan",
    errors.ModelError: "wrong-plan",
    errors.DataError: "data",
    errors.LedgerError: "ledger",
    errors.PolicyError: "policy",
    errors.Withdrawn: "withdrawn",
    errors.IdentityError: "identity",
    errors.QuorumNotReached: "too-few",
    errors.StorageError: "storage",
    OSError: "storage",
    BaseException: "internal",
}


def reason_for(error: BaseException) -> Reason:
    """The word of the error's nearest class in the table; "internal" for all that is not listed."""
    return next(_WORDS[cls] for cls in type(error).__mro__ if cls in _WORDS)


def refusal_for(error: BaseException, *, institution: str, run: str, round: int) -> Refusal:
    """What the coordinator may hear about ``error``: never its text, cause or traceback."""
    return Refusal(institution=institution, run=run, round=round, reason=reason_for(error))


def _require_intent(intent: IntentLike, run: str, round: int, purpose: str = UPDATE_PURPOSE) -> None:
    if (intent.run, intent.round, intent.purpose) != (run, round, purpose):
        raise LedgerError(
            f'expected an intent for round {round} of this run and purpose "{purpose}", found one for round '
            f'{intent.round} and "{intent.purpose}": record the intent before training'
        )


def _require_finite(delta: AdapterVector, round: int) -> None:
    if not np.isfinite(delta).all():
        raise NonFiniteUpdate(
            f"expected finite values in the update of round {round}, found NaN or infinity: nothing was released; "
            "lower training.learning_rate"
        )


def _require_same_round(stored: bytes, payload: bytes) -> None:
    if stored == payload:
        return
    kept, made = open_header(stored), open_header(payload)
    if (kept.run, kept.round, kept.institution) != (made.run, made.round, made.institution):
        raise LedgerCorrupt(
            f"expected the stored release of round {made.round}, found one of round {kept.round}: "
            "the ledger was altered; restore it from a backup"
        )
