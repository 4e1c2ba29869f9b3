"""Two kinds of randomness behind two doors that cannot be confused.

``secure_bytes`` and ``SecureStream`` serve keys, DP noise and the coin flips of Poisson sampling: from the operating
system's entropy, never repeatable, never stored. ``reproducible_rng`` serves everything else: partitions, shuffles,
initial weights. A seed opens the second door only.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

REPRODUCIBLE_LABEL = "fedft/v1/reproducible-rng"


def secure_bytes(n: int) -> bytes:
    """``n`` bytes of the operating system's entropy: for keys and secrets."""
    return os.urandom(n)


class SecureStream:
    """A long stream of secret random numbers: AES-256 in counter mode under a key of its own from the system's entropy.

    Guarantee: no two streams share a key; a forked process draws a new key before its first number; the state is in no
    repr and can be neither pickled nor copied, so nothing drawn here can be drawn again. Threads may share a stream.
    """

    __slots__ = ("_cipher", "_lock", "_process")

    _cipher: CipherContext
    _lock: threading.Lock
    _process: int

    def __init__(self) -> None:
        self._draw_key()

    def _draw_key(self) -> None:
        self._cipher = Cipher(algorithms.AES256(secure_bytes(32)), modes.CTR(bytes(16))).encryptor()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def fill(self, target: npt.NDArray[np.uint64]) -> None:
        """Overwrite a contiguous array with uniform 64-bit words."""
        if self._process != os.getpid():
            self._draw_key()
        target.fill(0)
        view = target.data.cast("B")
        with self._lock:
            self._cipher.update_into(view, view)

    def words(self, n: int) -> npt.NDArray[np.uint64]:
        """``n`` uniform 64-bit words, shape (n,)."""
        drawn = np.empty(n, dtype=np.uint64)
        if n:
            self.fill(drawn)
        return drawn

    def bytes(self, n: int) -> bytes:
        """``n`` uniform bytes."""
        return self.words(-(-n // 8)).tobytes()[:n]

    def uniform(self, n: int) -> npt.NDArray[np.float64]:
        """``n`` numbers uniform on the multiples of 2^-53 in [0, 1), shape (n,)."""
        return (self.words(n) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def __repr__(self) -> str:
        return "SecureStream()"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "expected a SecureStream to stay where it was made, found an attempt to pickle or copy it: "
            "noise drawn twice protects nobody; make a new SecureStream() instead"
        )


def reproducible_rng(seed: int, *names: str | int) -> np.random.Generator:
    """A generator for what must come out the same again, by seed and purpose. Never for noise, DP coin flips or keys.

    Generators of different names are independent, so a new use does not shift the numbers of another:
    ``reproducible_rng(seed, "partition", round)``. Philox keyed through SHA-256 of the seed and names.
    """
    label = json.dumps([REPRODUCIBLE_LABEL, int(seed), *(n if isinstance(n, str) else int(n) for n in names)])
    key = int.from_bytes(hashlib.sha256(label.encode()).digest(), "big")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
