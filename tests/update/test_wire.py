"""How values travel: float32, and the block floating point of 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load

from fedft.errors import UpdateError
from fedft.update.wire import BLOCK, ENCODINGS, Encoding, as_sent, body_size, read_body, write_body

FLOATS = arrays.arrays(
    np.float32,
    st.integers(0, 100),
    elements=st.floats(-(2.0**126), 2.0**126, width=32),
)


def sent(vector: np.ndarray, encoding: Encoding = "mxint8", seed: int | None = None) -> np.ndarray:
    uniform = None if seed is None else np.random.default_rng(seed).random
    body = write_body("delta", vector, encoding, uniform)
    assert len(body) == body_size("delta", vector.size, encoding)
    return read_body(memoryview(body), "delta", vector.size, encoding)


@given(FLOATS)
def test_float32_travels_bit_for_bit(vector: np.ndarray) -> None:
    assert np.array_equal(sent(vector, "float32").view(np.uint32), vector.view(np.uint32))


@given(FLOATS, st.integers(0, 5))
def test_each_value_is_off_by_less_than_one_step_of_its_block(vector: np.ndarray, seed: int) -> None:
    for found in (sent(vector), sent(vector, seed=seed)):
        for start in range(0, vector.size, BLOCK):
            block = vector[start : start + BLOCK].astype(np.float64)
            step = np.abs(block).max() / 63
            assert np.abs(found[start : start + BLOCK] - block).max() <= max(step, 2.0**-133)


@given(FLOATS, st.integers(0, 5))
def test_what_was_read_comes_out_the_same_again(vector: np.ndarray, seed: int) -> None:
    once = sent(vector, seed=seed)
    assert np.array_equal(sent(once), once)
    assert np.array_equal(sent(once, seed=seed + 1), once)
    assert np.array_equal(as_sent(once, "mxint8"), once)


def test_stochastic_rounding_is_unbiased() -> None:
    """Mean of 4,000 roundings of each value within 5 standard errors; to the nearest, small values would vanish."""
    vector = np.array([1.0, 1e-3, -2e-3, 0.4999, 0.0071] + [0.0] * 27, np.float32)
    found = np.mean([sent(vector, seed=seed) for seed in range(4000)], axis=0)
    step = 1.0 / 64
    np.testing.assert_allclose(found, vector, atol=5 * step / 2 / np.sqrt(4000))
    assert sent(vector)[1] == 0.0
    assert found[1] > 0.0


def test_a_block_with_nan_or_infinity_arrives_as_nan() -> None:
    vector = np.ones(3 * BLOCK, np.float32)
    vector[1], vector[BLOCK + 2] = np.nan, np.inf
    found = sent(vector)
    assert np.isnan(found[: 2 * BLOCK]).all()
    assert np.array_equal(found[2 * BLOCK :], vector[2 * BLOCK :])


def test_a_value_beyond_the_format_is_refused() -> None:
    with pytest.raises(UpdateError, match="below 2"):
        sent(np.full(4, np.finfo(np.float32).max, np.float32))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_is_a_safetensors_file(encoding: Encoding) -> None:
    vector = np.random.default_rng(0).normal(size=77).astype(np.float32)
    tensors = load(write_body("delta", vector, encoding))
    if encoding == "float32":
        assert np.array_equal(tensors["delta"], vector)
    else:
        scale = np.ldexp(1.0, tensors["delta.exponent"].astype(int) - 127 - 6).repeat(BLOCK)[:77]
        np.testing.assert_array_equal(tensors["delta"] * scale, sent(vector))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_other_bytes_are_no_body(encoding: Encoding) -> None:
    body = write_body("delta", np.ones(40, np.float32), encoding)
    for wrong in (body[:-1], body + b"\0", body.replace(b"delta", b"delto"), b""):
        with pytest.raises(UpdateError):
            read_body(memoryview(wrong), "delta", 40, encoding)


def test_minus_128_is_no_value() -> None:
    body = bytearray(write_body("delta", np.ones(40, np.float32), "mxint8"))
    body[-41] = 0x80
    with pytest.raises(UpdateError, match="-128"):
        read_body(memoryview(body), "delta", 40, "mxint8")


def test_a_vector_of_several_chunks_is_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vector = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    whole = sent(vector)
    monkeypatch.setattr("fedft.update.wire._CHUNK", 64)
    assert np.array_equal(sent(vector), whole)
