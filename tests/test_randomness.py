"""The two doors of randomness: what each promises."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from fedft import randomness
from fedft.randomness import SecureStream, reproducible_rng, secure_bytes

GOLDEN = [2452729790, 567158661, 2264651677]


def test_secure_bytes_are_as_many_as_asked_and_new_each_time() -> None:
    assert [len(secure_bytes(n)) for n in (0, 1, 32)] == [0, 1, 32]
    assert len({secure_bytes(32) for _ in range(100)}) == 100


def test_the_stream_is_aes_256_in_counter_mode_from_the_start_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = bytes(range(32))
    monkeypatch.setattr(randomness, "secure_bytes", lambda n: key[:n])
    stream = SecureStream()
    drawn = stream.words(5).tobytes() + stream.words(3).tobytes() + stream.bytes(16)
    reference = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(80))
    assert drawn == reference


def test_no_two_streams_share_a_key() -> None:
    assert len({SecureStream().bytes(16) for _ in range(100)}) == 100


def test_no_number_is_drawn_twice_by_threads_that_share_a_stream() -> None:
    stream = SecureStream()
    with ThreadPoolExecutor(8) as pool:
        drawn = np.concatenate(list(pool.map(stream.words, [997] * 64)))
    assert len(np.unique(drawn)) == 997 * 64


def test_a_forked_process_draws_other_numbers_than_its_parent() -> None:
    stream = SecureStream()
    stream.bytes(16)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, stream.bytes(16))
        os._exit(0)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
    drawn = os.read(reading, 16)
    os.close(reading)
    assert len(drawn) == 16
    assert drawn != stream.bytes(16)


@pytest.mark.parametrize("attempt", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_stream_can_be_neither_pickled_nor_copied(attempt: Callable[[SecureStream], object]) -> None:
    with pytest.raises(TypeError, match="make a new SecureStream"):
        attempt(SecureStream())


def test_the_state_is_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomness, "secure_bytes", lambda n: b"K" * n)
    stream = SecureStream()
    assert repr(stream) == str(stream) == "SecureStream()"
    assert not hasattr(stream, "__dict__")


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000])
def test_every_length_can_be_drawn(n: int) -> None:
    stream = SecureStream()
    assert len(stream.bytes(n)) == n
    assert stream.words(n).shape == stream.uniform(n).shape == (n,)


def test_uniform_is_uniform_on_53_bits_below_one() -> None:
    drawn = SecureStream().uniform(100_000)
    assert drawn.dtype == np.float64
    assert drawn.min() >= 0
    assert drawn.max() < 1
    scaled = drawn * 2.0**53
    assert np.array_equal(scaled, np.floor(scaled))
    assert len(np.unique(drawn)) == len(drawn)
    assert stats.kstest(drawn, "uniform").pvalue > 1e-6


def test_the_largest_word_stays_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = np.full(1, 2**64 - 1, dtype=np.uint64)
    monkeypatch.setattr(SecureStream, "words", lambda self, n: largest)
    assert SecureStream().uniform(1)[0] == 1 - 2.0**-53


def test_each_bit_of_the_words_is_a_fair_coin() -> None:
    bits = np.unpackbits(SecureStream().words(20_000).view(np.uint8)).reshape(-1, 64)
    deviations = (bits.sum(axis=0, dtype=np.int64) - 10_000) / np.sqrt(5_000)
    assert np.abs(deviations).max() < 6


def test_a_seed_and_name_give_the_same_numbers_again_and_on_every_machine() -> None:
    for _ in range(2):
        assert reproducible_rng(7, "partition", 3).integers(1 << 32, size=3).tolist() == GOLDEN


def test_every_seed_name_and_number_is_another_generator() -> None:
    named: list[tuple[str | int, ...]] = [("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), (1,), ("1",), ()]
    generators = [reproducible_rng(seed, *names) for seed in (7, 71, -7) for names in named]
    assert len({int(rng.integers(1 << 62)) for rng in generators}) == len(generators)


def test_neither_door_reads_numpys_global_generator() -> None:
    drawn = []
    for _ in range(2):
        np.random.seed(1)  # noqa: NPY002
        drawn.append((SecureStream().bytes(16), reproducible_rng(1, "x").bytes(16)))
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] == drawn[1][1]
