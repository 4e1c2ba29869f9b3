"""The guarantees of fedft/update, sentence by sentence."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft import errors
from fedft.errors import BadRecord, FedftError, LedgerCorrupt, LedgerError, NonFiniteUpdate, UpdateError, UpdateTooLarge
from fedft.model.vector import AdapterLayout, TensorSpec
from fedft.types import Digest
from fedft.update.encoding import decode, encode
from fedft.update.envelope import MAGIC, open_envelope, seal
from fedft.update.release import refusal_for, release_update
from fedft.update.screening import screen

LAYOUT = AdapterLayout(Digest("b" * 64), (TensorSpec("q.lora_B", (3, 1), "lora_B"),), 1.0)
FIELDS: dict[str, Any] = dict(
    run="run-1", round=3, institution="clinic", plan_digest="1" * 64, layout_digest=str(LAYOUT.digest)
)
DELTA = np.array([1.0, -2.0, 0.5], np.float32)
CANARY = "CANARY-0042 chest pain"


@dataclass(frozen=True)
class Intent:
    run: str = "run-1"
    round: int = 3
    purpose: str = "update"


class FirstBytes:
    """Keeps the first payload of an intent in memory, as the ledger does on disk."""

    def __init__(self) -> None:
        self.stored: dict[Intent, bytes] = {}

    def record_release(self, intent: Intent, payload: bytes) -> bytes:
        return self.stored.setdefault(intent, payload)


def release(delta: npt.NDArray[np.float32], recorder: FirstBytes, **changes: Any) -> bytes:
    return release_update(delta, **{**FIELDS, "intent": Intent(), "recorder": recorder, **changes})


# encoding.py: "the same bit for bit in every order, and differs from the exact mean by at most ..."

WEIGHTED = st.lists(st.tuples(st.floats(-1000, 1000, width=32), st.floats(2.0**-10, 4)), min_size=1, max_size=12)


@settings(deadline=None)
@given(WEIGHTED, st.randoms(use_true_random=False))
def test_a_mean_does_not_depend_on_the_order(updates: list[tuple[float, float]], shuffle: Any) -> None:
    weight = float(sum(Fraction(w) for _, w in updates))
    once = decode(np.sum([encode(np.array([x]), w) for x, w in updates], axis=0), weight)
    shuffle.shuffle(updates)
    again = decode(np.sum([encode(np.array([x]), w) for x, w in updates], axis=0), weight)
    assert once.tobytes() == again.tobytes()


@settings(deadline=None)
@given(WEIGHTED)
def test_a_mean_is_as_near_as_stated(updates: list[tuple[float, float]]) -> None:
    weight = sum((Fraction(w) for _, w in updates), Fraction())
    exact = sum(Fraction(x) * Fraction(w) for x, w in updates) / weight
    total = np.sum([encode(np.array([x]), w) for x, w in updates], axis=0)
    result = Fraction(float(decode(total, float(weight))[0]))
    assert abs(result - exact) <= len(updates) * Fraction(2) ** -40 / weight + abs(result) / 2**23 + Fraction(2) ** -149


# envelope.py: "allocates nothing in proportion to a size that the bytes claim"


def claims() -> dict[str, bytes]:
    valid = seal(**FIELDS, delta=DELTA)
    (length,) = struct.unpack_from(">I", valid, 8)
    header, body = valid[12 : 12 + length], valid[12 + length :]
    table = b'{"delta":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    giant = struct.pack("<Q", len(table)) + table + body[-12:]
    named = json.dumps(
        {**json.loads(header), "sha256": hashlib.sha256(giant).hexdigest()}, sort_keys=True, separators=(",", ":")
    ).encode()
    return {
        "header of 4 GiB": MAGIC + b"\xff\xff\xff\xff" + header + body,
        "body header of 2^62 bytes": valid[: 12 + length] + struct.pack("<Q", 2**62) + body[8:],
        "tensor of 4 TiB": MAGIC + struct.pack(">I", len(named)) + named + giant,
        "32 MiB where 3 values belong": valid + bytes(2**25),
    }


@pytest.mark.parametrize("name", claims())
def test_hostile_bytes_are_refused_before_allocation(name: str) -> None:
    data = claims()[name]
    tracemalloc.start()
    try:
        with pytest.raises(UpdateError):
            open_envelope(data, expected_size=3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


@given(st.binary(max_size=300), st.integers(0, 10))
def test_open_envelope_returns_exactly_the_size_or_raises_update_error(data: bytes, size: int) -> None:
    with pytest.raises(UpdateError):
        open_envelope(MAGIC + data, expected_size=size)


# screening.py


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.001])
def test_a_screened_update_is_within_the_norm(scale: float) -> None:
    delta = (DELTA * (scale / np.linalg.norm(DELTA.astype(float)))).astype(np.float32)
    data = seal(**FIELDS, delta=delta)
    rules: dict[str, Any] = dict(run="run-1", round=3, plan_digest="1" * 64, layout=LAYOUT, cohort={"clinic"}, seen=())
    if scale > 1:
        with pytest.raises(UpdateTooLarge):
            screen(data, max_norm=1.0001, **rules)
    else:
        assert np.linalg.norm(screen(data, max_norm=1.0001, **rules).delta) <= 1.0001


# release.py


def test_only_stored_bytes_leave_and_a_retry_sends_the_first() -> None:
    recorder = FirstBytes()
    first = release(DELTA, recorder)
    second = release(DELTA * 2, recorder)
    assert second == first == recorder.stored[Intent()]
    assert open_envelope(second, expected_size=3).delta.tolist() == DELTA.tolist()


def test_when_recording_fails_nothing_leaves() -> None:
    class Full:
        def record_release(self, intent: Intent, payload: bytes) -> bytes:
            raise errors.StorageError("expected room on the disk, found none: make room")

    with pytest.raises(errors.StorageError):
        release(DELTA, Full())  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_a_non_finite_update_does_not_leave_and_is_not_recorded(value: float) -> None:
    recorder = FirstBytes()
    with pytest.raises(NonFiniteUpdate):
        release(np.array([1, value, 0], np.float32), recorder)
    assert not recorder.stored


@pytest.mark.parametrize("intent", [Intent(run="run-2"), Intent(round=2), Intent(purpose="fisher:triage")], ids=str)
def test_an_update_leaves_only_under_the_intent_of_its_round(intent: Intent) -> None:
    recorder = FirstBytes()
    with pytest.raises(LedgerError):
        release(DELTA, recorder, intent=intent)
    assert not recorder.stored


def test_stored_bytes_of_another_round_do_not_leave() -> None:
    recorder = FirstBytes()
    recorder.stored[Intent()] = seal(**{**FIELDS, "round": 2}, delta=DELTA)
    with pytest.raises(LedgerCorrupt):
        release(DELTA, recorder)


def planted() -> list[BaseException]:
    """Every error of the tree, and others, with a record's words in text, arguments, cause and notes."""

    def tree(cls: type[FedftError]) -> list[type[FedftError]]:
        return [cls, *(deeper for child in cls.__subclasses__() for deeper in tree(child))]

    made: list[BaseException] = [
        BadRecord(CANARY, 3, CANARY, CANARY) if cls is BadRecord else cls(CANARY) for cls in tree(FedftError)
    ]
    made += [OSError(2, CANARY, CANARY), KeyError(CANARY), UnicodeEncodeError("ascii", CANARY, 0, 1, CANARY)]
    for error in made:
        error.__cause__ = ValueError(CANARY)
        error.add_note(CANARY)
    return made


@pytest.mark.parametrize("error", planted(), ids=lambda error: type(error).__name__)
def test_a_refusal_never_carries_the_text_of_an_error(error: BaseException) -> None:
    refusal = refusal_for(error, institution="clinic", run="run-1", round=3)
    said = repr(refusal) + json.dumps(vars(refusal))
    assert not any(word in said for word in CANARY.split())
