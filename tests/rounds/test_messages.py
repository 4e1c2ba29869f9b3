"""What crosses: a request, an answer, a roll call; each comes back as it was, and everything else is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.errors import ConfigError, FedftError, StaleUpdate, UpdateError
from fedft.identity.documents import canonical
from fedft.rounds.messages import (
    MAX_REQUEST_HEADER,
    MAX_SMALL,
    decode_answer,
    decode_presence,
    decode_question,
    decode_request,
    decode_terms,
    encode_answer,
    encode_presence,
    encode_question,
    encode_request,
    fresh_nonce,
)
from fedft.rounds.plan import RoundRequest, terms_digest
from fedft.update.release import REASONS, Refusal
from tests.rounds.test_plan import PLAN

TERMS = '{"federation":{"name":"hospitals","rounds":3,"seed":0},"label":"fedft/v1/terms"}'
ADAPTER = np.array([0.0, -0.0, 1.5, np.float32(1e-45), 3e38, -2.25], dtype=np.float32)
REQUEST = RoundRequest(replace(PLAN, terms_digest=terms_digest(TERMS)), ADAPTER)
ENCODED = encode_request(REQUEST, TERMS)
REFUSAL = Refusal("north", "run-1", 2, "budget-exhausted")
NONCE = "5a" * 32


def header_of(data: bytes) -> tuple[dict[str, object], bytes]:
    (length,) = struct.unpack_from(">I", data, 8)
    return json.loads(data[12 : 12 + length]), data[12 + length :]


def framed(header: bytes, body: bytes) -> bytes:
    return b"FEDFTREQ" + struct.pack(">I", len(header)) + header + body


def test_a_request_comes_back_bit_for_bit() -> None:
    found, terms = decode_request(ENCODED)
    assert (found.plan, terms) == (REQUEST.plan, TERMS)
    assert found.adapter.tobytes() == ADAPTER.tobytes()
    assert found.adapter.dtype == np.float32
    found.adapter[0] = 1  # a copy of its own, that can be written to


def test_a_request_is_what_the_specification_says() -> None:
    header, body = header_of(ENCODED)
    assert ENCODED.startswith(b"FEDFTREQ")
    assert header.keys() == {"label", "plan", "terms", "keys", "head", "sha256"}
    assert (header["label"], header["plan"], header["terms"]) == ("fedft/v1/request", REQUEST.plan.as_json(), TERMS)
    assert safetensors.numpy.load(body)["adapter"].tobytes() == ADAPTER.tobytes()
    assert body == safetensors.numpy.save({"adapter": ADAPTER})


@pytest.mark.parametrize("size", [0, 1, 9, 10, 99, 1000, 4096])
def test_an_adapter_of_any_size_comes_back(size: int) -> None:
    adapter = np.arange(size, dtype=np.float32)
    found, _ = decode_request(encode_request(RoundRequest(REQUEST.plan, adapter), TERMS))
    assert found.adapter.tobytes() == adapter.tobytes()


def test_terms_and_plan_belong_together() -> None:
    with pytest.raises(ConfigError, match="terms_digest"):
        encode_request(REQUEST, TERMS + " ")
    header, body = header_of(ENCODED)
    with pytest.raises(ConfigError, match="terms_digest"):
        decode_request(framed(canonical({**header, "terms": "{}"}), body))


def test_a_header_that_no_reader_takes_is_not_written() -> None:
    cohort = tuple(f"institution-{number:05d}" for number in range(100_000))
    with pytest.raises(ConfigError, match=f"at most {MAX_REQUEST_HEADER}"):
        encode_request(RoundRequest(replace(PLAN, cohort=cohort), ADAPTER), "")


def altered(**changes: object) -> bytes:
    header, body = header_of(ENCODED)
    made = {key: value for key, value in {**header, **changes}.items() if value is not None}
    return framed(json.dumps(made, sort_keys=True, separators=(",", ":")).encode(), body)


HEADER, BODY = header_of(ENCODED)
ODD_REQUESTS: dict[str, bytes] = {
    "empty": b"",
    "another magic": b"FEDFTUPD" + ENCODED[8:],
    "nothing after the magic": ENCODED[:10],
    "a header of 4 GiB": ENCODED[:8] + b"\xff\xff\xff\xff" + ENCODED[12:],
    "a header longer than the message": ENCODED[:8] + struct.pack(">I", len(ENCODED)) + ENCODED[12:],
    "nested a thousandfold": framed(b"[" * 60_000, BODY),
    "a list": framed(b"[]", BODY),
    "spaces in it": framed(json.dumps(HEADER, sort_keys=True).encode(), BODY),
    "keys in another order": framed(json.dumps(dict(reversed(HEADER.items())), separators=(",", ":")).encode(), BODY),
    "a key twice": framed(canonical(HEADER)[:-1] + b',"terms":""}', BODY),
    "NaN": framed(b'{"label":NaN}', BODY),
    "UTF-16": framed(canonical(HEADER).decode().encode("utf-16"), BODY),
    "another label": altered(label="fedft/v2/request"),
    "a field more": altered(why="patient 17"),
    "a field less": altered(sha256=None),
    "a number as plan": altered(plan=1),
    "no plan": altered(plan="{}"),
    "a plan nested deeply": altered(plan="[" * 20_000),
    "half a letter as terms": altered(terms="\ud800"),
    "another body's hash": altered(sha256="0" * 64),
    "no body": framed(canonical(HEADER), b""),
    "a byte more": ENCODED + b"\0",
    "a value less": ENCODED[:-4],
    "a bit turned": ENCODED[:-1] + bytes([ENCODED[-1] ^ 1]),
    "a tensor of another name": ENCODED.replace(b'{"adapter":{"dtype"', b'{"adaptor":{"dtype"'),
    "a tensor of another type": ENCODED.replace(b'"F32"', b'"I32"'),
    "a tensor head of 2^62 bytes": framed(canonical(HEADER), struct.pack("<Q", 2**62) + BODY[8:]),
    "a tensor of 2^40 values": ENCODED.replace(b'"shape":[6]', b'"shape":[1099511627776]'),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_REQUESTS)
def test_any_other_request_is_refused_without_a_word_of_it(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_request(ODD_REQUESTS[name])
    assert "patient" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_adapter_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="finite"):
        decode_request(encode_request(RoundRequest(REQUEST.plan, np.array([1, value], np.float32)), TERMS))


def test_a_request_cut_short_anywhere_is_refused() -> None:
    for length in range(len(ENCODED)):
        with pytest.raises(ConfigError):
            decode_request(ENCODED[:length])


@settings(max_examples=300)
@given(st.integers(0, len(ENCODED) - 1), st.binary(max_size=12))
def test_changed_bytes_are_refused_or_are_no_change(position: int, replacement: bytes) -> None:
    changed = ENCODED[:position] + replacement + ENCODED[position + len(replacement) :]
    try:
        found, terms = decode_request(changed)
    except ConfigError:
        return
    assert terms == TERMS
    assert found.adapter.tobytes() == ADAPTER.tobytes()


@given(st.binary(max_size=200))
def test_no_bytes_whatever_do_anything_else_than_be_read_or_refused(data: bytes) -> None:
    decoders: list[Callable[[bytes], object]] = [
        decode_request, decode_answer, decode_question, lambda found: decode_presence(found, nonce=NONCE),
    ]  # fmt: skip
    for decode in decoders:
        for start in (b"", b"FEDFTREQ", b"FEDFTREF"):
            try:
                found = decode(start + data)
            except FedftError:
                continue
            assert found == data  # an update, which is opened elsewhere
            assert data.startswith((b"FEDFTUPD", b"FEDFTSAU", b"FEDFTSIG"))


def test_answers_come_back() -> None:
    assert decode_answer(encode_answer(b"FEDFTUPD...")) == b"FEDFTUPD..."
    for reason in REASONS:
        refusal = Refusal("north", "run-1", 2, reason)
        assert decode_answer(encode_answer(refusal)) == refusal


def test_a_refusal_says_a_word_and_three_names() -> None:
    encoded = encode_answer(REFUSAL)
    assert encoded[:8] == b"FEDFTREF"
    assert json.loads(encoded[8:]) == {
        "label": "fedft/v1/refusal", "institution": "north", "run": "run-1", "round": 2, "reason": "budget-exhausted",
    }  # fmt: skip


REFUSED = json.loads(encode_answer(REFUSAL)[8:])
ODD_ANSWERS: dict[str, bytes] = {
    "empty": b"",
    "rubbish": b"rubbish",
    "no JSON": b"FEDFTREF{",
    "an unknown word": b"FEDFTREF" + canonical({**REFUSED, "reason": "patient 17 is missing"}),
    "a list of words": b"FEDFTREF" + canonical({**REFUSED, "reason": ["data"]}),
    "no word": b"FEDFTREF" + canonical({key: value for key, value in REFUSED.items() if key != "reason"}),
    "a field more": b"FEDFTREF" + canonical({**REFUSED, "why": "patient 17"}),
    "free text as name": b"FEDFTREF" + canonical({**REFUSED, "institution": "patient 17"}),
    "free text as run": b"FEDFTREF" + canonical({**REFUSED, "run": "patient 17"}),
    "a fraction as round": b"FEDFTREF" + canonical({**REFUSED, "round": 2.0}),
    "yes as round": b"FEDFTREF" + canonical({**REFUSED, "round": True}),
    "round 0": b"FEDFTREF" + canonical({**REFUSED, "round": 0}),
    "another label": b"FEDFTREF" + canonical({**REFUSED, "label": "fedft/v1/update"}),
    "too long": b"FEDFTREF" + canonical({**REFUSED, "run": "r" * MAX_SMALL}),
    "spaces in it": b"FEDFTREF" + json.dumps(REFUSED, sort_keys=True).encode(),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_any_other_answer_is_refused_without_a_word_of_it(name: str) -> None:
    with pytest.raises(UpdateError) as caught:
        decode_answer(ODD_ANSWERS[name])
    assert "17" not in str(caught.value)


def test_a_roll_call_asks_with_a_nonce_and_is_answered_with_it_and_a_name() -> None:
    nonce = fresh_nonce()
    assert decode_question(encode_question(nonce)) == (nonce, "")
    assert decode_question(encode_question(nonce, "run-1/5a")) == (nonce, "run-1/5a")
    assert decode_presence(encode_presence(nonce, "north"), nonce=nonce) == ("north", b"")
    assert decode_presence(encode_presence(nonce, "north", b"\x00key"), nonce=nonce) == ("north", b"\x00key")
    assert json.loads(encode_question(NONCE)) == {"label": "fedft/v1/roll-call", "nonce": NONCE, "setup": ""}
    assert json.loads(encode_presence(NONCE, "north")).keys() == {"label", "nonce", "institution", "key"}


def test_no_two_questions_are_the_same() -> None:
    assert len({fresh_nonce() for _ in range(100)}) == 100


def test_a_reply_to_an_earlier_question_is_refused() -> None:
    with pytest.raises(StaleUpdate):
        decode_presence(encode_presence("0" * 64, "north"), nonce=NONCE)


def test_a_question_is_no_reply_and_a_reply_no_question() -> None:
    with pytest.raises(UpdateError):
        decode_presence(encode_question(NONCE), nonce=NONCE)
    with pytest.raises(ConfigError):
        decode_question(encode_presence(NONCE, "north"))


@pytest.mark.parametrize("nonce", ["", "5A" * 32, "5a" * 31, "5a" * 33])
def test_a_nonce_of_another_form_is_refused(nonce: str) -> None:
    with pytest.raises(ConfigError):
        decode_question(encode_question(nonce))
    with pytest.raises(UpdateError):
        decode_presence(encode_presence(nonce, "north"), nonce=nonce)


@pytest.mark.parametrize("name", ["patient 17", "", "a" * 65, "../north"])
def test_free_text_is_no_name(name: str) -> None:
    with pytest.raises(UpdateError) as caught:
        decode_presence(encode_presence(NONCE, name), nonce=NONCE)
    assert "17" not in str(caught.value)


def test_terms_are_one_canonical_object_of_this_version() -> None:
    assert decode_terms(TERMS)["federation"] == {"name": "hospitals", "rounds": 3, "seed": 0}
    for text in ("", "{}", "[]", TERMS + " ", "[" * 60_000, '{"label":"fedft/v2/terms"}', "\ud800"):
        with pytest.raises(ConfigError):
            decode_terms(text)
