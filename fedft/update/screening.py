"""What a coordinator checks before an update may touch the sum.

Guarantee: screen returns an update of this run, round, plan and layout, from an institution of the cohort that has not
been heard yet, with finite values and ‖delta‖₂ <= max_norm; anything else raises and leaves no trace.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from fedft.errors import LayoutMismatch, NonFiniteUpdate, StaleUpdate, UpdateError, UpdateTooLarge
from fedft.model.vector import AdapterLayout
from fedft.types import AdapterVector
from fedft.update.envelope import Envelope, Header, open_envelope, open_header
from fedft.update.wire import Encoding


def screen(
    envelope_bytes: bytes,
    *,
    run: str,
    round: int,
    plan_digest: str,
    layout: AdapterLayout,
    encoding: Encoding = "float32",
    max_norm: float,
    cohort: Collection[str],
    seen: Collection[str],
    sender: str | None = None,
) -> Envelope:
    """Open one institution's update if it belongs to this round.

    Parameters
    ----------
    layout : of the trained part, ``plan layout.only(roles)``
    encoding : how the plan asks for the values
    max_norm : largest L2 norm accepted
    seen : institutions whose update of this round was accepted already
    sender : who the transport says sent the bytes; must be the institution the header names

    Raises
    ------
    UpdateError
        Malformed bytes, or an institution outside the cohort, or another than the sender.
    StaleUpdate
        Another run, round or plan, or a second update.
    LayoutMismatch
        Made for another adapter.
    NonFiniteUpdate, UpdateTooLarge
        A NaN or infinity; a norm above max_norm.
    """
    header = open_header(envelope_bytes)
    _require_this_round(header, run, round, plan_digest)
    _require_member(header.institution, cohort, seen, sender)
    if header.layout_digest != layout.digest:
        raise LayoutMismatch(
            f"expected an update of layout {layout.digest[:12]}, found {header.layout_digest[:12]}: "
            f"{header.institution} has another base model or adapter configuration; compare [model] and [adapter]"
        )
    if header.dtype != encoding:
        raise UpdateError(f"expected values as {encoding}, found {header.dtype}: answer the plan as it asks")
    envelope = open_envelope(envelope_bytes, expected_size=layout.size)
    _require_norm(envelope.delta, max_norm)
    return envelope


def l2_norm(vector: AdapterVector, *, block: int = 1 << 16) -> float:
    """In float64, by blocks: float32 squares overflow above 1.8e19. NaN or infinite when a value is."""
    total = 0.0
    for start in range(0, vector.size, block):
        values = vector[start : start + block].astype(np.float64)
        total += float(values @ values)
    return math.sqrt(total)


def _require_this_round(header: Header, run: str, round: int, plan_digest: str) -> None:
    if header.run != run:
        raise StaleUpdate("expected an update of this run, found one of another: restart the institution with this run")
    if header.round != round:
        raise StaleUpdate(f"expected an update of round {round}, found round {header.round}: it came too late")
    if header.plan_digest != plan_digest:
        raise StaleUpdate(
            f"expected an update for plan {plan_digest[:12]} of round {round}, found {header.plan_digest[:12]}: "
            "the round was planned again; answer the newest plan"
        )


def _require_member(institution: str, cohort: Collection[str], seen: Collection[str], sender: str | None) -> None:
    if sender is not None and institution != sender:
        raise UpdateError(f"expected an update of {sender}, found one in the name of {institution}: refused")
    if institution not in cohort:
        raise UpdateError(
            f"expected an institution of this round's cohort, found {institution}: add it to the federation"
        )
    if institution in seen:
        raise StaleUpdate(f"expected one update of {institution} in this round, found a second: the first one counts")


def _require_norm(delta: AdapterVector, max_norm: float) -> None:
    norm = l2_norm(delta)
    if not math.isfinite(norm):
        raise NonFiniteUpdate(
            "expected finite values, found NaN or infinity: the institution should lower its learning rate"
        )
    if norm > max_norm:
        raise UpdateTooLarge(
            f"expected an L2 norm of at most {max_norm:g}, found {norm:.3g}: raise aggregation.max_update_norm if such "
            "updates are meant, or have the institution lower its learning rate"
        )
