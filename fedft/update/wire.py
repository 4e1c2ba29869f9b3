"""How the values of a vector travel: as float32, or as MXINT8, 8 bits a value and 8 more for each 32. docs/SPEC.md,
"Encodings".

MXINT8 is the integer format of the OCP Microscaling Formats (MX) Specification 1.0 (2023), section 5.3.4: a block of 32
values shares a power of two X, and a value is q/64 · X with q in -127..127. Exponent 255 stands for NaN.

Guarantees:
- Rounding with ``uniform`` is stochastic and unbiased: the expectation of what is read is what was written.
- What was read and is written again, with or without ``uniform``, comes out the same: every side of a round can name
  the adapter it holds by one digest.
- The form of a body is fixed by name, number of values and encoding: a reader compares, and parses nothing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fedft.errors import UpdateError
from fedft.types import AdapterVector

Encoding = Literal["float32", "mxint8"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
Uniform = Callable[[int], npt.NDArray[np.float64]]

BLOCK = 32
_BIAS, _NAN, _LARGEST = 127, 255, 127
_CHUNK = BLOCK * 2**15
"""Values worked on at a time, so that a large vector needs no second copy of itself."""


def write_body(name: str, vector: AdapterVector, encoding: Encoding, uniform: Uniform | None = None) -> bytes:
    """The safetensors file of ``vector``: one tensor ``name``, and for MXINT8 its exponents as ``name``.exponent.

    uniform: draws in [0, 1) for stochastic rounding; None: to the nearest. Raises UpdateError for a value of 2^128 or
    more, which MXINT8 does not have; NaN and infinity come out as NaN.
    """
    head = body_head(name, vector.size, encoding)
    if encoding == "float32":
        return head + np.ascontiguousarray(vector, dtype="<f4").tobytes()
    values = np.empty(vector.size, np.int8)
    exponents = np.empty(_blocks(vector.size), np.uint8)
    for start in range(0, vector.size, _CHUNK):
        stop = min(start + _CHUNK, vector.size)
        blocks = slice(start // BLOCK, _blocks(stop))
        values[start:stop], exponents[blocks] = _to_blocks(vector[start:stop].astype(np.float64), uniform)
    return head + values.tobytes() + exponents.tobytes()


def read_body(body: memoryview, name: str, size: int, encoding: Encoding) -> AdapterVector:
    """The ``size`` values, float32, a copy of their own. Raises UpdateError for what write_body does not make."""
    head = require_form(body, name, size, encoding)
    if encoding == "float32":
        return np.frombuffer(body[len(head) :], dtype="<f4").astype(np.float32)
    values = np.frombuffer(body, dtype=np.int8, count=size, offset=len(head))
    exponents = np.frombuffer(body, dtype=np.uint8, offset=len(head) + size)
    if (values == -128).any():
        raise UpdateError("expected MXINT8 values from -127 to 127, found -128: write them as docs/SPEC.md says")
    found = np.empty(size, np.float32)
    for start in range(0, size, _CHUNK):
        stop = min(start + _CHUNK, size)
        found[start:stop] = _from_blocks(values[start:stop], exponents[start // BLOCK : _blocks(stop)])
    return found


def require_form(body: memoryview, name: str, size: int, encoding: Encoding) -> bytes:
    """The head, if body has the length and the head of ``size`` values. Raises UpdateError; no value is read."""
    head = body_head(name, size, encoding)
    if len(body) != body_size(name, size, encoding):
        raise UpdateError(
            f"expected a body of {body_size(name, size, encoding)} bytes for {size} values, found {len(body)}: "
            "it was cut short, or made for another adapter; send it again"
        )
    if body[: len(head)] != head:
        raise UpdateError(
            f'expected a tensor "{name}" of {size} values as {encoding}, found another safetensors header: '
            "write it as docs/SPEC.md says"
        )
    return head


def as_sent(vector: AdapterVector, encoding: Encoding) -> AdapterVector:
    """What the other side reads, rounded to the nearest."""
    if encoding == "float32":
        return vector
    return read_body(memoryview(write_body("vector", vector, encoding)), "vector", vector.size, encoding)


def body_size(name: str, size: int, encoding: Encoding) -> int:
    """Bytes of a body of ``size`` values."""
    values = 4 * size if encoding == "float32" else size + _blocks(size)
    return len(body_head(name, size, encoding)) + values


def body_head(name: str, size: int, encoding: Encoding) -> bytes:
    """What safetensors writes before the values: length (8, little-endian), JSON padded to 8 bytes."""
    if encoding == "float32":
        tensors = {name: _tensor("F32", size, 0, 4 * size)}
    else:
        end = size + _blocks(size)
        tensors = {name: _tensor("I8", size, 0, size), f"{name}.exponent": _tensor("U8", end - size, size, end)}
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _tensor(dtype: str, size: int, start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": [size], "data_offsets": [start, end]}


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _to_blocks(
    values: npt.NDArray[np.float64], uniform: Uniform | None
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.uint8]]:
    padded = np.zeros((_blocks(values.size), BLOCK))
    padded.ravel()[: values.size] = values
    largest = np.abs(padded).max(axis=1)
    lost = ~np.isfinite(largest)
    padded[lost], largest[lost] = 0.0, 0.0
    exponent = np.frexp(largest)[1] - 1  # largest = m · 2^exponent with 1 <= m < 2
    exponent += np.ldexp(largest, 6 - exponent) > _LARGEST
    exponent = np.where(largest > 0, np.maximum(exponent, -_BIAS), -_BIAS)
    if exponent.max(initial=0) >= _NAN - _BIAS:
        raise UpdateError("expected values below 2^128, found a larger one: lower training.learning_rate")
    scaled = np.ldexp(padded, 6 - exponent[:, None])
    drawn = None if uniform is None else uniform(values.size)
    flat = scaled.ravel()[: values.size]
    rounded = np.rint(flat) if drawn is None else np.floor(flat + drawn)
    encoded = (exponent + _BIAS).astype(np.uint8)
    encoded[lost] = _NAN
    return np.clip(rounded, -_LARGEST, _LARGEST).astype(np.int8), encoded


def _from_blocks(values: npt.NDArray[np.int8], exponents: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    each = np.repeat(exponents.astype(np.int32), BLOCK)[: values.size]
    found = np.ldexp(values.astype(np.float64), each - _BIAS - 6)
    return np.where(each == _NAN, np.nan, found).astype(np.float32)
