"""How fast masks are made and added: against AES-256-CTR alone, and against what Flower's SecAgg+ does.

    python bench/mask.py [--quick] [--write bench/results/mask.json]

Ten masks, five added and five subtracted, by fedft.secagg.masking.add_masks; per size and ring width (24 bits are
masked as 32). Beside it in each repeat: the cipher alone over the same buffer in place, one call a mask (``ratio``,
goal at least 0.60), and in the blocks that add_masks takes (``ratio_blocks``); flwr's pseudo_rand_gen and
parameters_addition or parameters_subtraction on its int64 values modulo 2^width (``over_flower``, goal at least 5);
and adding ten plain vectors (``over_plain``: how many times as long masks take). Ratios are of speeds but for the last.

Process time, one thread; small sizes many times in a measurement, after one that does not count. Speeds are medians; a
ratio is the median of those of each repeat. ``spread``: half of the middle half of the repeats' ratios, over their
median. The four at the top are those of 4.2 million values of 32 bits.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _result import emit
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_subtraction
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

from fedft.randomness import reproducible_rng, secure_bytes
from fedft.secagg.masking import BLOCK_BYTES, Ring, add_masks, ring_zeros

MASKS, VALUES, REPEATS, SEED = 10, 4_200_000, 11, 0
SIZES, WIDTHS = (100_000, 1_000_000, VALUES, 16_000_000), (16, 24, 32)
RATIOS = {"ratio": "cipher", "ratio_blocks": "cipher_blocks", "over_flower": "flower", "over_plain": "plain"}


def seconds(work: Callable[[], Any], times: int) -> float:
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times


def cipher_of(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()


def cipher_alone(buffer: memoryview, keys: Sequence[bytes]) -> None:
    for key in keys:
        cipher_of(key).update_into(buffer, buffer)


def cipher_in_blocks(size: int, keys: Sequence[bytes]) -> None:
    nothing, stream = memoryview(bytes(BLOCK_BYTES)), memoryview(bytearray(BLOCK_BYTES))
    for key in keys:
        cipher = cipher_of(key)
        for start in range(0, size, BLOCK_BYTES):
            width = min(BLOCK_BYTES, size - start)
            cipher.update_into(nothing[:width], stream[:width])


def flower_masks(vector: Any, keys: Sequence[bytes], width: int) -> None:
    found = [vector]
    for number, key in enumerate(keys):
        combine = parameters_addition if number < len(keys) // 2 else parameters_subtraction
        found = combine(found, pseudo_rand_gen(key, 2**width, [vector.shape]))


def add_plain(total: Ring, vectors: Sequence[Ring]) -> None:
    for vector in vectors:
        np.add(total, vector, out=total)


def compared(size: int, width: int, repeats: int) -> dict[str, Any]:
    """One cell: speeds in values a second, and ratios."""
    keys, total, buffer = [secure_bytes(32) for _ in range(MASKS)], ring_zeros(size, width), ring_zeros(size, width)
    vector = reproducible_rng(SEED, "bench-mask").integers(0, 2**width, size)
    plain = [np.full_like(total, number) for number in range(MASKS)]
    view, half = buffer.data.cast("B"), MASKS // 2
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: add_masks(total, keys[:half], keys[half:]),
        "cipher": lambda: cipher_alone(view, keys),
        "cipher_blocks": lambda: cipher_in_blocks(total.nbytes, keys),
        "flower": lambda: flower_masks(vector, keys, width),
        "plain": lambda: add_plain(total, plain),
    }
    times = max(1, VALUES // size)
    taken: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            spent = seconds(work, times if name != "flower" else -(-times // 8))
            if repeat:
                taken[name].append(spent)
    found: dict[str, Any] = {"values": size, "ring_bits": width, "spread": {}}
    for name, other in RATIOS.items():
        pairs = zip(taken["ours"], taken[other], strict=True)
        ratios = [ours / theirs if name == "over_plain" else theirs / ours for ours, theirs in pairs]
        found[name], found["spread"][name] = statistics.median(ratios), spread(ratios)
    found["values_per_second"] = {
        name: MASKS * size / statistics.median(of) for name, of in taken.items() if name != "plain"
    }
    return found


def spread(found: Sequence[float]) -> float:
    low, middle, high = statistics.quantiles(found, n=4)
    return (high - low) / 2 / middle


def measured(quick: bool) -> dict[str, Any]:
    sizes, repeats = (SIZES[:2], 3) if quick else (SIZES, REPEATS)
    cells = [compared(size, width, repeats) for size in sizes for width in WIDTHS]
    shown = next(cell for cell in reversed(cells) if cell["values"] <= VALUES)
    return {
        **{name: shown[name] for name in RATIOS},
        "least": {name: min(cell[name] for cell in cells) for name in RATIOS if name != "over_plain"},
        "masks": MASKS,
        "seed": SEED,
        "cells": cells,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to a million values, three repeats")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    emit("mask", measured(args.quick), write=args.write)


if __name__ == "__main__":
    main()
