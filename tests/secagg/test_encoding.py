"""Guarantees of fedft/secagg/encoding.py: no sum wraps, rounding is unbiased, packing loses nothing."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.errors import ConfigError, NonFiniteUpdate, UpdateError, UpdateTooLarge
from fedft.randomness import SecureStream
from fedft.secagg.encoding import FixedPoint, from_ring, pack, packed_bytes, require_no_wrap, to_ring, unpack
from fedft.update import encoding as update_encoding

WORDS = SecureStream().words
bits = st.integers(16, 32)


@given(bits, st.integers(0, 70), st.integers(0, 2**32))
@settings(max_examples=150)
def test_what_is_packed_is_unpacked(ring_bits: int, size: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2**ring_bits, size)
    residues = to_ring(values, ring_bits, 2**ring_bits)
    data = pack(residues, ring_bits)
    assert len(data) == packed_bytes(size, ring_bits)
    number = sum(int(value) << ring_bits * place for place, value in enumerate(values))
    assert data == number.to_bytes(len(data), "little")
    assert unpack(data, size, ring_bits).tolist() == values.tolist()


@pytest.mark.parametrize("ring_bits", [16, 17, 20, 24, 31, 32])
def test_blocks_are_packed_without_a_seam(ring_bits: int) -> None:
    values = np.random.default_rng(ring_bits).integers(0, 2**ring_bits, 2 * 2**16 + 37)
    data = pack(to_ring(values, ring_bits, 2**ring_bits), ring_bits)
    bits = (values[:, None] >> np.arange(ring_bits)) & 1
    assert data == np.packbits(bits.astype(np.uint8).ravel(), bitorder="little").tobytes()
    assert np.array_equal(unpack(data, values.size, ring_bits), values)


@pytest.mark.parametrize(("size", "length"), [(3, 7), (3, 9), (0, 1), (4, 8)])
def test_bytes_of_another_length_are_refused(size: int, length: int) -> None:
    with pytest.raises(UpdateError):
        unpack(bytes(length), size, 21)


@given(
    ring_bits=bits,
    bound=st.floats(1e-6, 1e6),
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100)
def test_the_sum_of_a_cohort_at_its_limits_does_not_wrap(
    ring_bits: int, bound: float, weights: list[float], seed: int
) -> None:
    named = {f"m{place}": weight for place, weight in enumerate(weights)}
    try:
        point = FixedPoint.widest(ring_bits, bound, named)
    except ConfigError:
        assert sum(math.ceil(weight * bound * 2.0**-64) for weight in weights) > 2 ** (ring_bits - 1) - 1
        return
    rng = np.random.default_rng(seed)
    vector = np.concatenate([[bound, -bound], rng.uniform(-bound, bound, 5)])
    encoded = {name: point.encode(vector, name, WORDS) for name in named}
    expected = sum(encoded.values(), np.zeros(7, dtype=np.int64))
    total = sum(
        (to_ring(values, ring_bits, point.limits[name]) for name, values in encoded.items()),
        to_ring(np.zeros(7, dtype=np.int64), ring_bits, 0),
    )
    assert np.array_equal(from_ring(total, ring_bits, sum(point.limits.values())), expected)


def test_one_fraction_bit_more_than_the_widest_could_wrap() -> None:
    weights = dict.fromkeys("abcd", 1.0)
    widest = FixedPoint.widest(20, 0.7, weights)
    with pytest.raises(ConfigError, match="a ring of 20"):
        FixedPoint(20, widest.fraction_bits + 1, 0.7, weights)


def test_limits_may_add_up_to_half_the_ring_less_one_and_no_more() -> None:
    require_no_wrap(16, {"a": 2**14, "b": 2**14 - 1})
    with pytest.raises(ConfigError, match="32768, 17 bits, and a ring of 16"):
        require_no_wrap(16, {"a": 2**14, "b": 2**14})


@pytest.mark.parametrize(
    ("ring_bits", "fraction_bits", "bound", "weights"),
    [
        (15, 0, 1.0, {"a": 1.0}), (33, 0, 1.0, {"a": 1.0}), (32, 65, 1e-9, {"a": 1.0}), (32, 0, 0.0, {"a": 1.0}),
        (32, 0, math.inf, {"a": 1.0}), (32, 0, 1.0, {"a": -1.0}), (32, 0, 1.0, {"a": math.nan}), (32, 0, 1.0, {}),
    ],
)  # fmt: skip
def test_an_encoding_that_cannot_be_is_refused(
    ring_bits: int, fraction_bits: int, bound: float, weights: dict[str, float]
) -> None:
    with pytest.raises(ConfigError):
        FixedPoint(ring_bits, fraction_bits, bound, weights)


def test_rounding_is_unbiased() -> None:
    """The mean of n roundings is within 6 standard deviations, at most 0.5/√n each."""
    point, n = FixedPoint(32, 3, 2.0, {"a": 0.5}), 200_000
    for value in (0.3, -0.3, 1.9999, -0.01, 2.0):
        encoded = point.encode(np.full(n, value), "a", WORDS)
        exact = 0.5 * value * 8
        assert set(encoded.tolist()) <= {math.floor(exact), math.ceil(exact)}
        assert abs(encoded.mean() - exact) < 6 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize("ring_bits", [16, 32])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_the_mean_of_all_roundings_is_the_number(
    ring_bits: int, precision: type[np.float32] | type[np.float64]
) -> None:
    """Each of the 2^16 chances once: they add up to the number in units of 2^-16, and a word decides the rest."""
    point = FixedPoint(ring_bits, ring_bits - 2, 1.0, {"a": 0.5})
    for value, last in itertools.product((0.3, -0.3, 1.0, -1.0, 0.0, 1e-9, -1e-9, -1e-30), (0, 2**62, 2**64 - 1)):

        def words(n: int, last: int = last) -> npt.NDArray[np.uint64]:
            return np.arange(2**16, dtype="<u2").view("<u8") if n == 2**14 else np.full(n, last, dtype=np.uint64)

        vector = np.full(2**16, value, dtype=precision)
        exact = Fraction(float(vector[0])) / 2 * 2 ** (ring_bits - 2 + 16)
        encoded = point.encode(vector, "a", words)
        assert encoded.sum(dtype=np.int64) == math.floor(exact) + (Fraction(last >> 11, 2**53) < exact % 1)


def test_a_float32_vector_is_scaled_in_float64_where_float32_would_round() -> None:
    """A third of each value; a power of two that float32 does not hold."""
    vector = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    for point, scaled in (
        (FixedPoint(32, 29, 1.0, {"a": 1 / 3}), vector),
        (FixedPoint(32, 64, 2.0**-127, {"a": 2.0**93}), vector * np.float32(2.0**-127)),
    ):
        exact = np.ldexp(scaled.astype(np.float64) * point.weights["a"], point.fraction_bits)
        encoded = point.encode(scaled, "a", lambda n: np.zeros(n, dtype=np.uint64))
        assert np.array_equal(encoded, np.floor(exact))


def test_each_value_is_rounded_by_chances_of_its_own() -> None:
    """In blocks as in one: two vectors' rounding errors, and those of neighbours in one, do not go together."""
    point, n = FixedPoint(16, 0, 1.0, {"a": 1.0}), 200_000
    first, second = (point.encode(np.full(n, 0.5), "a", WORDS) - 0.5 for _ in range(2))
    for a, b in ((first, second), (first[:-1], first[1:]), (first[: -(2**16)], first[2**16 :])):
        assert abs(np.mean(a * b)) < 6 * 0.25 / math.sqrt(a.size)


def test_values_that_cannot_be_encoded_are_refused() -> None:
    point = FixedPoint(32, 8, 1.0, {"a": 1.0})
    for value, error in ((math.nan, NonFiniteUpdate), (math.inf, NonFiniteUpdate), (1.0001, UpdateTooLarge)):
        for sign in (1, -1):
            with pytest.raises(error):
                point.encode(np.array([0.0, sign * value]), "a", WORDS)


def test_a_sum_beyond_its_range_is_refused() -> None:
    residues = to_ring(np.array([5, -6]), 20, 6)
    assert from_ring(residues, 20, 6).tolist() == [5, -6]
    with pytest.raises(UpdateError):
        from_ring(residues, 20, 5)
    with pytest.raises(UpdateTooLarge):
        to_ring(np.array([7]), 20, 6)


def test_a_sum_from_here_is_one_of_the_update_room_after_a_shift() -> None:
    """docs/SPEC.md, "Encoding": in units of 2^-40, exactly."""
    weights = {"a": 1.0, "b": 2.0}
    point = FixedPoint.widest(32, 1.0, weights)
    rounded = (point.encode(np.linspace(-1, 1, 9), name, WORDS).astype(np.int64) for name in weights)
    total = sum(rounded, np.zeros(9, dtype=np.int64))
    shifted = total << (update_encoding.FRACTION_BITS - point.fraction_bits)
    mean = update_encoding.decode(shifted, 3.0)
    assert np.array_equal(mean, (point.decode(total) / 3.0).astype(np.float32))
