"""The hostile vectors of docs/SPEC.md, "Update envelope", and what seal and open_envelope promise beside them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft import errors
from fedft.errors import FedftError, LayoutMismatch, UpdateError
from fedft.model.vector import AdapterLayout, TensorSpec
from fedft.update.envelope import Envelope, largest_envelope, open_envelope, open_header, seal
from fedft.update.screening import screen

FOLDER = Path(__file__).parent.parent / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "update_envelope.json").read_text())
VALID = bytes.fromhex(VECTORS["valid"]["hex"])
FIELDS: dict[str, Any] = dict(run="run-1", round=3, institution="clinic", plan_digest="1" * 64, layout_digest="2" * 64)


def screened(data: bytes, **changes: Any) -> Envelope:
    context = {**VECTORS["context"], **changes}
    tensors = tuple(TensorSpec(name, tuple(shape), role) for name, shape, role in context.pop("tensors"))
    return screen(data, layout=AdapterLayout(context.pop("base_digest"), tensors, context.pop("scaling")), **context)


def test_the_vectors_are_what_their_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_update_envelope", FOLDER / "make_update_envelope.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert json.loads(json.dumps(script.vectors())) == VECTORS


def test_the_valid_vector_is_accepted() -> None:
    envelope = screened(VALID)
    assert envelope.delta.tolist() == VECTORS["valid"]["values"]
    assert (envelope.run, envelope.round, envelope.institution) == ("hospitals-1", 7, "st-anna")


@pytest.mark.parametrize("case", VECTORS["hostile"], ids=lambda case: str(case["name"]))
def test_a_hostile_vector_raises_its_error(case: dict[str, str]) -> None:
    with pytest.raises(FedftError) as caught:
        screened(bytes.fromhex(case["hex"]))
    assert caught.type is getattr(errors, case["raises"])


def test_an_update_cut_short_anywhere_is_refused() -> None:
    for length in range(len(VALID)):
        with pytest.raises(UpdateError):
            screened(VALID[:length])


def test_an_update_in_another_institutions_name_is_refused() -> None:
    with pytest.raises(UpdateError, match="in the name of st-anna"):
        screened(VALID, sender="riverside")
    assert screened(VALID, sender="st-anna").institution == "st-anna"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(VALID) - 1), st.binary(min_size=0, max_size=12))
def test_changed_bytes_are_refused_or_change_a_name_only(position: int, replacement: bytes) -> None:
    changed = VALID[:position] + replacement + VALID[position + len(replacement) :]
    try:
        envelope = screened(changed)
    except (UpdateError, LayoutMismatch):
        return
    # Integrity without a signature covers the body; the header's own fields are checked against the round.
    assert envelope.delta.tolist() == VECTORS["valid"]["values"]


@given(st.lists(st.floats(width=32, allow_nan=True), max_size=50))
def test_sealed_values_come_back_bit_for_bit(values: list[float]) -> None:
    delta = np.array(values, dtype=np.float32)
    data = seal(**FIELDS, delta=delta)
    envelope = open_envelope(data, expected_size=delta.size)
    assert envelope.delta.tobytes() == delta.tobytes()
    assert {name: getattr(envelope, name) for name in FIELDS} == FIELDS
    assert len(data) <= largest_envelope(delta.size)


@pytest.mark.parametrize("size", [0, 1, 4, 999, 100_000])
def test_the_body_is_what_safetensors_writes(size: int) -> None:
    delta = np.arange(size, dtype=np.float32)
    data = seal(**FIELDS, delta=delta)
    body = safetensors.numpy.save({"delta": delta})
    assert data.endswith(body)
    assert safetensors.numpy.load(data[-len(body) :])["delta"].tobytes() == delta.tobytes()


def test_the_opened_values_do_not_keep_the_message_alive() -> None:
    delta = open_envelope(seal(**FIELDS, delta=np.ones(5, np.float32)), expected_size=5).delta
    assert delta.flags.owndata
    assert delta.flags.writeable
    assert delta.flags.aligned


@pytest.mark.parametrize(
    "change",
    [
        {"run": "a b"},
        {"round": 0},
        {"round": 2**31},
        {"institution": "a/b"},
        {"plan_digest": "x"},
        {"layout_digest": ""},
    ],
    ids=str,
)
def test_seal_refuses_fields_that_could_not_be_opened(change: dict[str, Any]) -> None:
    with pytest.raises(UpdateError):
        seal(**{**FIELDS, **change}, delta=np.ones(1, np.float32))


@pytest.mark.parametrize("delta", [np.ones(2), np.ones((1, 2), np.float32)], ids=["float64", "matrix"])
def test_seal_refuses_other_arrays(delta: Any) -> None:
    with pytest.raises(UpdateError, match="float32 vector"):
        seal(**FIELDS, delta=delta)


def test_a_header_can_be_read_without_the_body() -> None:
    head = VALID[: 12 + int.from_bytes(VALID[8:12], "big")]
    assert open_header(head).round == 7


def test_values_are_not_in_the_repr() -> None:
    assert "12345" not in repr(open_envelope(seal(**FIELDS, delta=np.full(1, 12345, np.float32)), expected_size=1))
