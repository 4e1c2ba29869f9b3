"""tests/vectors/messages: made without fedft, read as coordinator and institution do. One hostile case, one refusal."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from fedft import errors
from fedft.identity.keys import PublicKey
from fedft.identity.signed import open_signed
from fedft.model.vector import AdapterLayout, TensorSpec
from fedft.rounds.messages import (
    ANSWER_LABEL,
    RECEIPT_LABEL,
    REQUEST_LABEL,
    ROLL_CALL_LABEL,
    decode_answer,
    decode_notice,
    decode_presence,
    decode_question,
    decode_request,
)
from fedft.rounds.plan import require_sent_adapter
from fedft.update.release import Refusal
from fedft.update.screening import screen

FOLDER = Path(__file__).parents[1] / "vectors"
FILES: dict[str, Any] = {path.stem: json.loads(path.read_text()) for path in (FOLDER / "messages").glob("*.json")}
CONTEXT = FILES["context"]
COORDINATOR, INSTITUTION = PublicKey(CONTEXT["coordinator"]), PublicKey(CONTEXT["institution"])
CASES = {name: case for name, case in sorted(FILES.items()) if name != "context"}
HONEST = [name for name, case in CASES.items() if case["raises"] is None]
HOSTILE = [name for name in CASES if name not in HONEST]
CODES = {
    "IdentityError": "identity", "ConfigError": "config", "UpdateError": "update", "StaleUpdate": "stale-update",
    "LayoutMismatch": "layout-mismatch", "NonFiniteUpdate": "non-finite-update", "UpdateTooLarge": "update-too-large",
}  # fmt: skip


def read(name: str) -> Any:
    case = CASES[name]
    return READERS[case["reads"]](bytes.fromhex(case["hex"]))


def as_request(data: bytes) -> Any:
    request, terms = decode_request(open_signed(REQUEST_LABEL, data, COORDINATOR))
    require_sent_adapter(request)
    return request.plan.round, terms, request.adapter.tolist()


def as_answer(data: bytes, seen: tuple[str, ...] = ()) -> Any:
    answer = decode_answer(open_signed(ANSWER_LABEL, data, INSTITUTION))
    if isinstance(answer, Refusal):
        return answer
    context = {**CONTEXT["round"], "sender": CONTEXT["sender"]}
    tensors = tuple(TensorSpec(name, tuple(shape), role) for name, shape, role in context.pop("tensors"))
    layout = AdapterLayout(context.pop("base_digest"), tensors, context.pop("scaling"))
    seen = (*context.pop("seen"), *seen)
    return screen(answer, layout=layout, seen=seen, **context).delta.tolist()


def as_question(data: bytes) -> Any:
    return decode_question(open_signed(ROLL_CALL_LABEL, data, COORDINATOR))


def as_reply(data: bytes) -> Any:
    return decode_presence(open_signed(ROLL_CALL_LABEL, data, INSTITUTION), nonce=CONTEXT["nonce"])


def as_notice(data: bytes) -> Any:
    return decode_notice(open_signed(RECEIPT_LABEL, data, COORDINATOR))


READERS = {
    "request": as_request, "answer": as_answer, "question": as_question, "reply": as_reply, "notice": as_notice,
}  # fmt: skip


def test_the_files_are_what_their_script_makes() -> None:
    made = runpy.run_path(str(FOLDER / "make_messages.py"))["files"]()
    assert json.loads(json.dumps(made)) == FILES


def test_the_honest_ones_are_read() -> None:
    assert {name: read(name) for name in HONEST} == {
        "request-honest": (7, CONTEXT["terms"], CONTEXT["values"]),
        "answer-honest": CONTEXT["values"],
        "answer-honest-attested": CONTEXT["values"],
        "notice-honest": ("hospitals-1", "a note"),
        "answer-honest-refusal": Refusal("st-anna", "hospitals-1", 7, "policy"),
        "question-honest": (CONTEXT["nonce"], ""),
        "reply-honest": (CONTEXT["sender"], b""),
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_one_is_refused_with_its_code_and_no_word_of_it(name: str) -> None:
    with pytest.raises(errors.FedftError) as caught:
        read(name)
    assert caught.type is getattr(errors, CASES[name]["raises"])
    assert caught.value.code == CODES[CASES[name]["raises"]]
    assert "17" not in str(caught.value)
    assert "1200" not in str(caught.value)


def test_the_same_answer_a_second_time_is_refused() -> None:
    with pytest.raises(errors.StaleUpdate):
        as_answer(bytes.fromhex(CASES["answer-honest"]["hex"]), seen=(CONTEXT["sender"],))


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_one_with_any_byte_altered_is_refused(name: str) -> None:
    data = bytes.fromhex(CASES[name]["hex"])
    for place in range(0, len(data), 7):
        with pytest.raises(errors.IdentityError):
            READERS[CASES[name]["reads"]](data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :])
