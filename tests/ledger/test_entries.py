"""The form of entries: one byte string for each, and nothing outside docs/SPEC.md."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import LedgerCorrupt, LedgerError
from fedft.ledger.entries import Entry, as_intent, as_release, intent_fields, make_entry, parse_entry
from fedft.privacy.events import DataIndependentRelease, DpSgdRound, GaussianRelease, PrivacyEvent, UnprotectedRelease
from fedft.types import Digest

TIME = "2026-01-31T23:59:58Z"
PREVIOUS = Digest("a" * 64)

EVENTS: st.SearchStrategy[PrivacyEvent] = st.one_of(
    st.builds(
        DpSgdRound,
        noise_multiplier=st.floats(1e-3, 1e3),
        sampling_rate=st.floats(1e-6, 1.0),
        steps=st.integers(1, 10**6),
    ),
    st.builds(GaussianRelease, noise_multiplier=st.floats(1e-3, 1e3)),
    st.just(UnprotectedRelease()),
    st.just(DataIndependentRelease()),
)
EVIDENCE = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True),
    st.one_of(st.integers(-(2**53) + 1, 2**53 - 1), st.floats(-1e9, 1e9), st.text(max_size=100)),
    max_size=8,
)


def fields(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "run": "hospitals-1",
        "round": 7,
        "purpose": "update",
        "dataset": "triage-notes",
        "plan_digest": "1" * 64,
        "event": DpSgdRound(1.1, 0.02, 10),
        "evidence": {"units": 640},
    }
    return intent_fields(**{**base, **changes})


def entry(**changes: Any) -> Entry:
    return make_entry("intent", sequence=2, previous=PREVIOUS, time_utc=TIME, fields=fields(**changes))


def test_the_form_is_fixed() -> None:
    """Ledgers are kept for years: a change of these bytes needs a new label."""
    made = entry()
    assert made.body.decode() == (
        '{"dataset":"triage-notes","event":{"kind":"dp-sgd-round","noise_multiplier":1.1,"sampling_rate":0.02,"steps":10},'
        '"evidence":{"units":640},"kind":"intent","label":"fedft/v1/ledger-entry","plan_digest":"' + "1" * 64 + '",'
        '"previous":"' + "a" * 64 + '","purpose":"update","round":7,"run":"hospitals-1","sequence":2,'
        '"time_utc":"2026-01-31T23:59:58Z"}'
    )
    assert made.hash == "301249b0858502409a37fd6ecf82175c964a104169b69472f59f58bed5e88f6a"


@given(EVENTS, EVIDENCE)
def test_an_intent_comes_back_as_it_was(event: PrivacyEvent, evidence: dict[str, str | int | float]) -> None:
    made = entry(event=event, evidence=evidence)
    back = parse_entry(made.body)
    assert (back, back.hash) == (made, made.hash)
    intent = as_intent(back)
    assert (intent.event, intent.evidence, intent.key) == (event, evidence, ("hospitals-1", 7, "update"))


def test_numbers_of_numpy_become_plain_ones() -> None:
    made = entry(evidence={"clip_norm": np.float64(0.5)}, event=GaussianRelease(np.float64(2.0)))
    assert made == entry(evidence={"clip_norm": 0.5}, event=GaussianRelease(2.0))


@given(st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_other_bytes_are_refused_or_another_entry(position: int, replacement: bytes) -> None:
    body = entry().body
    changed = body[:position] + replacement + body[position + len(replacement) :]
    try:
        assert parse_entry(changed).body == changed
    except LedgerCorrupt:
        return
    assert changed == body or parse_entry(changed).hash != entry().hash


@pytest.mark.parametrize(
    "change",
    [
        lambda b: {**b, "label": "fedft/v2/ledger-entry"},
        lambda b: {**b, "kind": "receipt"},
        lambda b: {**b, "epsilon": 3.2},
        lambda b: {k: v for k, v in b.items() if k != "evidence"},
        lambda b: {**b, "round": "7"},
        lambda b: {**b, "round": 7.0},
        lambda b: {**b, "round": True},
        lambda b: {**b, "round": 2**53},
        lambda b: {**b, "run": "two\nlines"},
        lambda b: {**b, "plan_digest": "A" * 64},
        lambda b: {**b, "time_utc": "2026-01-31 23:59:58"},
        lambda b: {**b, "event": {"kind": "dp-sgd-round", "noise_multiplier": 0, "sampling_rate": 0.1, "steps": 1}},
        lambda b: {**b, "event": {"kind": "other"}},
        lambda b: {**b, "event": {}},
        lambda b: {**b, "event": [1]},
        lambda b: {**b, "evidence": {"a": None}},
        lambda b: {**b, "evidence": {"a": {"b": 1}}},
        lambda b: {**b, "evidence": {"A": 1}},
        lambda b: {**b, "evidence": {f"a{n}": 1 for n in range(65)}},
    ],
)
def test_an_entry_outside_the_specification_is_refused(change: Any) -> None:
    raw = change(json.loads(entry().body))
    body = json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(LedgerCorrupt, match="expected"):
        parse_entry(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        entry().body + b"\n",
        entry().body.replace(b'"round":7', b'"round": 7'),
        entry().body.replace(b'"round":7', b'"round":7,"round":7'),
        entry().body.replace(b'"round":7', b'"round":' + b"7" * 5000),
        entry().body.replace(b"triage", b"\\u0074riage"),
        entry().body.replace(b"0.02", b"NaN"),
    ],
    ids=range(11),
)
def test_anything_but_canonical_json_is_refused(body: bytes) -> None:
    with pytest.raises(LedgerCorrupt, match="canonical JSON"):
        parse_entry(body)


def test_an_event_that_is_none_is_not_written() -> None:
    with pytest.raises(LedgerError, match="finite numbers"):
        fields(evidence={"clip_norm": float("inf")})
    with pytest.raises(LedgerError, match="finite numbers"):
        fields(evidence={"note": object()})


def test_a_release_comes_back_as_it_was() -> None:
    named = {"run": "r", "round": 1, "purpose": "update", "intent": 2, "bytes": 3000, "sha256": "b" * 64}
    release = as_release(make_entry("release", sequence=3, previous=PREVIOUS, time_utc=TIME, fields=named))
    assert (release.sequence, release.intent, release.bytes, release.sha256) == (3, 2, 3000, "b" * 64)
