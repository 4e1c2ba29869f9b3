"""Whether what a coordinator gets under secure aggregation is uniform: chi-square tests of stored masked updates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import chisquare

from fedft.errors import ConfigError, UpdateError
from fedft.ledger.chain import KEPT_ROUNDS
from fedft.ledger.store import Ledger
from fedft.rounds.member import stored_upload
from fedft.secagg.context import RoundContext
from fedft.secagg.encoding import packed_bytes, unpack
from fedft.secagg.institution import unframed
from fedft.secagg.masking import Ring
from fedft.secagg.messages import UPLOAD_MAGIC
from fedft.update.release import UPDATE_PURPOSE

SIGNIFICANCE = 1e-3
"""Of all tests of a run together."""

LARGEST_BINS = 256
VALUES_IN_A_BIN = 16
"""On average, at least: chi-square's distribution is one of many values."""


@dataclass(frozen=True)
class UploadsCheck:
    """uploads: how many were tested, each at both ends of its values. smallest: p-value, times the number of tests."""

    uploads: int
    values: int
    smallest: float
    uniform: bool


def check_uploads(run_folder: Path) -> UploadsCheck:
    """Of every masked update that the ledgers of a simulated run still hold.

    Guarantee: of uniform vectors, ``uniform`` is False with a probability of at most SIGNIFICANCE. A vector that is not
    masked has values near 0, modulo the ring, and fails.

    Raises
    ------
    ConfigError
        There is none: a run without secure aggregation, or no run.
    """
    vectors = [vector for file in sorted(run_folder.glob("institutions/*/ledger.sqlite")) for vector in _stored(file)]
    if not vectors:
        raise ConfigError(
            f"expected masked updates in the ledgers of {run_folder}, found none: name the folder of a run with "
            "secure_aggregation.enabled = true"
        )
    found = [p for vector, bits in vectors for p in p_values(vector, bits)]
    smallest = min(1.0, min(found) * len(found))
    return UploadsCheck(len(vectors), sum(len(v) for v, _ in vectors), smallest, smallest > SIGNIFICANCE)


def p_values(vector: Ring, ring_bits: int) -> tuple[float, float]:
    """Of the hypothesis that the values are uniform modulo 2^ring_bits: by their highest and by their lowest bits."""
    bins = LARGEST_BINS
    while bins > 2 and len(vector) < VALUES_IN_A_BIN * bins:
        bins //= 2
    values, width = vector.astype(np.uint64), bins.bit_length() - 1
    high, low = values >> np.uint64(ring_bits - width), values & np.uint64(bins - 1)
    first, second = (
        float(chisquare(np.bincount(side.astype(np.int64), minlength=bins)).pvalue) for side in (high, low)
    )
    return first, second


def _stored(file: Path) -> list[tuple[Ring, int]]:
    found = []
    with Ledger.open(file, read_only=True) as ledger:
        intents = [
            e.fields for e in ledger.entries() if e.kind == "intent" and "secagg_context" in e.fields["evidence"]
        ]
        for fields in intents[-KEPT_ROUNDS:]:
            payload = ledger.stored_release(fields["run"], fields["round"], UPDATE_PURPOSE)
            if payload is not None:
                found.append(_vector(payload))
    return found


def _vector(payload: bytes) -> tuple[Ring, int]:
    """The masked vector of an upload; who signed it is not asked here."""
    context, upload = RoundContext.from_bytes(unframed(payload)[0]), stored_upload(payload)
    if upload[:8] != UPLOAD_MAGIC:
        raise UpdateError("expected an upload behind its context, found something else: the ledger was altered")
    start = 12 + int.from_bytes(upload[8:12], "big")
    packed = upload[start : start + packed_bytes(context.size, context.ring_bits)]
    return unpack(packed, context.size, context.ring_bits), context.ring_bits
