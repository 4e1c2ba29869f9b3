"""Shamir, masks and keys on their own."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedft.errors import FederationError, IdentityError
from fedft.randomness import secure_bytes
from fedft.secagg import shamir
from fedft.secagg.key_agreement import (
    AgreementKey,
    commitment,
    mask_key,
    open_shares,
    pair_key,
    require_public,
    seal_shares,
    sharing_key,
)
from fedft.secagg.masking import BLOCK_BYTES, add_masks, ring_zeros


def test_the_field_is_prime() -> None:
    """Pocklington would prove it; 64 rounds of Miller-Rabin leave 2^-128."""
    odd, twos = shamir.PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(64):
        x = pow(int.from_bytes(secure_bytes(32), "big") % (shamir.PRIME - 3) + 2, odd, shamir.PRIME)
        assert x in (1, shamir.PRIME - 1) or shamir.PRIME - 1 in [pow(x, 2**s, shamir.PRIME) for s in range(1, twos)]


@pytest.mark.parametrize(("threshold", "holders"), [(1, 1), (2, 3), (3, 4), (7, 10), (22, 32)])
def test_any_t_shares_restore_a_secret(threshold: int, holders: int) -> None:
    for secret in (bytes(32), b"\xff" * 32, secure_bytes(32)):
        shares = shamir.split(secret, threshold, holders)
        for points in itertools.islice(itertools.combinations(range(1, holders + 1), threshold), 40):
            assert shamir.combine({point: shares[point - 1] for point in points}) == secret


def test_fewer_than_t_shares_fit_every_secret() -> None:
    """t - 1 shares and any secret lie on one polynomial: they say nothing of it."""
    shares = shamir.split(secure_bytes(32), 3, 4)
    other = int.from_bytes(secure_bytes(32), "big")
    weights = shamir.weights_at([0, 1, 2], 3)
    third = sum(w * s for w, s in zip(weights, [other, shares[0], shares[1]], strict=True)) % shamir.PRIME
    assert shamir.combine({1: shares[0], 2: shares[1], 3: third}) == other.to_bytes(32, "big")


def test_two_sharings_of_one_secret_differ() -> None:
    secret = secure_bytes(32)
    assert not set(shamir.split(secret, 3, 5)) & set(shamir.split(secret, 3, 5))


def test_altered_shares_give_another_secret_or_none() -> None:
    secret = secure_bytes(32)
    shares = shamir.split(secret, 2, 3)
    assert shamir.combine({1: (shares[0] + 1) % shamir.PRIME, 2: shares[1]}) != secret
    with pytest.raises(FederationError):
        shamir.combine({1: shamir.PRIME - 1})


@pytest.mark.parametrize("ring_bits", [16, 17, 32])
@pytest.mark.parametrize("extra", [-3, 0, 5])
def test_masks_are_the_key_stream_and_cancel(ring_bits: int, extra: int) -> None:
    total = ring_zeros(0, ring_bits)
    size = 2 * BLOCK_BYTES // total.itemsize + extra
    total = ring_zeros(size, ring_bits)
    key, other = secure_bytes(32), secure_bytes(32)
    add_masks(total, [key])
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(total.nbytes))
    assert total.tobytes() == stream
    add_masks(total, [other], [key])
    add_masks(total, [], [other])
    assert not total.any()


def test_both_parties_derive_the_same_keys_and_nobody_else() -> None:
    first, second, third = (AgreementKey(secure_bytes(32)) for _ in range(3))
    pair = pair_key(first, "run", "a", "b", second.public)
    assert pair == pair_key(second, "run", "b", "a", first.public)
    others = {
        pair_key(first, "run", "a", "a", first.public),
        pair_key(first, "run", "a", "b", third.public),
        pair_key(third, "run", "a", "b", second.public),
        pair_key(first, "run-2", "a", "b", second.public),
        pair_key(first, "run", "a", "c", second.public),
        pair_key(first, "run", "b", "a", second.public),
    }
    assert len(others | {pair}) == 7


def test_derived_keys_belong_to_purpose_dealer_and_context() -> None:
    pair, context, other = (secure_bytes(32) for _ in range(3))
    keys = [mask_key(pair, context), mask_key(pair, other), mask_key(other, context)]
    keys += [sharing_key(pair, context, "a"), sharing_key(pair, context, "b"), sharing_key(pair, other, "a")]
    assert len({*keys, commitment(pair, context), commitment(pair, other)}) == 8


def test_a_package_opens_for_its_holder_dealer_and_context_alone() -> None:
    pair, context = secure_bytes(32), secure_bytes(32)
    package = seal_shares(pair, context, "a", "b", b"shares")
    assert open_shares(pair, context, "a", "b", package) == b"shares"
    assert seal_shares(pair, context, "a", "b", b"shares") != package
    wrong = [
        (context, pair, "a", "b", package), (pair, pair, "a", "b", package), (pair, context, "b", "a", package),
        (pair, context, "a", "c", package), (pair, context, "a", "b", package[:-1]), (pair, context, "a", "b", b""),
        (pair, context, "a", "b", bytes([package[0] ^ 1]) + package[1:]),
    ]  # fmt: skip
    for case in wrong:
        with pytest.raises(IdentityError):
            open_shares(*case)


def test_points_of_small_order_are_refused() -> None:
    p = 2**255 - 19
    eight = 325606250916557431795983626356110631294008115727848805560023387167927233504
    eighth = 39382357235489614581723060781553021112529911719440698176882885853963445705823
    own = AgreementKey(secure_bytes(32))
    for u in (0, 1, p - 1, p, p + 1, eight, eighth):
        for encoded in (u, u | 1 << 255):
            with pytest.raises(IdentityError):
                own.shared(encoded.to_bytes(32, "little"))
    for length in (0, 31, 33):
        with pytest.raises(IdentityError):
            require_public(bytes(length))


def test_a_private_key_stays_where_it_is() -> None:
    raw = secure_bytes(32)
    key = AgreementKey(raw)
    assert raw.hex()[:16] not in repr(key)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(key)


def test_residues_are_little_endian() -> None:
    assert ring_zeros(1, 16).dtype == np.dtype("<u2")
    assert ring_zeros(1, 32).dtype == np.dtype("<u4")
