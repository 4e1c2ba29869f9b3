"""What a member of a federation could send instead of its update, made from what its agent really answered."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedft.identity.documents import canonical
from fedft.rounds.messages import REFUSAL_MAGIC
from fedft.rounds.plan import RoundPlan
from fedft.update.envelope import MAGIC, open_header, seal

TEN_GB = 10 * 10**9


@dataclass(frozen=True)
class Honest:
    """An update as it should be, and the one of the first round."""

    plan: RoundPlan
    update: bytes
    first: bytes
    size: int

    def sealed(self, delta: npt.NDArray[np.float32] | None = None, **changes: Any) -> bytes:
        header = open_header(self.update)
        fields = {key: getattr(header, key) for key in ("run", "round", "institution", "plan_digest", "layout_digest")}
        values = np.full(self.size, 1e-3, np.float32) if delta is None else delta
        return seal(**{**fields, **changes}, delta=values)


def framed(header: bytes, body: bytes) -> bytes:
    return MAGIC + struct.pack(">I", len(header)) + header + body


def a_giant(honest: Honest) -> bytes:
    """A body whose head says that ten gigabytes follow."""
    head = {"delta": {"dtype": "F32", "shape": [TEN_GB // 4], "data_offsets": [0, TEN_GB]}}
    text = json.dumps(head, separators=(",", ":")).encode()
    length = struct.unpack_from(">I", honest.update, len(MAGIC))[0]
    start = len(MAGIC) + 4
    return framed(honest.update[start : start + length], struct.pack("<Q", len(text)) + text + bytes(64))


def refusal_of(honest: Honest, **changes: Any) -> bytes:
    fields = {"run": honest.plan.run, "round": honest.plan.round, "institution": "west", "reason": "data"}
    return REFUSAL_MAGIC + canonical({"label": "fedft/v1/refusal", **fields, **changes})


def one_nan(honest: Honest) -> bytes:
    delta = np.full(honest.size, 1e-3, np.float32)
    delta[honest.size // 2] = np.nan
    return honest.sealed(delta)


UPDATES: dict[str, tuple[str, Callable[[Honest], bytes]]] = {
    "NaN": ("non-finite-update", one_nan),
    "infinity": ("non-finite-update", lambda h: h.sealed(np.full(h.size, np.inf, np.float32))),
    "norm 1e9": ("update-too-large", lambda h: h.sealed(np.full(h.size, 1e9 / np.sqrt(h.size), np.float32))),
    "another layout": ("layout-mismatch", lambda h: h.sealed(layout_digest="f" * 64)),
    "fewer values": ("update", lambda h: h.sealed(np.zeros(h.size - 1, np.float32))),
    "the first round's": ("stale-update", lambda h: h.first),
    "a later round": ("stale-update", lambda h: h.sealed(round=h.plan.round + 1)),
    "another run": ("stale-update", lambda h: h.sealed(run="tiny/0")),
    "another plan": ("stale-update", lambda h: h.sealed(plan_digest="f" * 64)),
    "in north's name": ("update", lambda h: h.sealed(institution="north")),
    "10 GB, it says": ("update", a_giant),
    "a header of 4 GB, it says": ("update", lambda h: MAGIC + b"\xff\xff\xff\xff" + bytes(64)),
    "longer than any update": ("update", lambda h: h.update + bytes(1 << 20)),
    "nested a thousandfold": ("update", lambda h: framed(b"[" * 4000, b"")),
    "a refusal nested a thousandfold": ("update", lambda h: REFUSAL_MAGIC + b'{"a":' * 600),
    "a refusal in north's name": ("update", lambda h: refusal_of(h, institution="north")),
    "a refusal of free text": ("update", lambda h: refusal_of(h, reason="row 7 says zq7")),
    "a pickle": ("update", lambda h: b"\x80\x04\x95" + bytes(40)),
    "nothing": ("update", lambda h: b""),
}
"""The code that is recorded -> the payload. West signs all of them with its own key."""
