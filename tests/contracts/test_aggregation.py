"""The guarantees of fedft/aggregation, sentence by sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.aggregation.base import RunningSum
from fedft.aggregation.fed_svd import FedSvd, turn
from fedft.aggregation.server_optimizer import server_optimizer
from fedft.errors import ConfigError, NonFiniteUpdate, QuorumNotReached, StorageError, UpdateTooLarge
from fedft.model.vector import AdapterLayout, TensorSpec
from fedft.types import Digest

ORTHONORMAL = 1e-6
PAIRS = st.tuples(st.integers(1, 8), st.integers(0, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))


def pair(shape: tuple[int, int, int, int], rank_of_b: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A of shape (r, d_in), r <= d_in, and B of shape (d_out, r), float32; B of lower rank when asked."""
    r, more, d_out, seed = shape
    rng = np.random.default_rng(seed)
    b = rng.normal(size=(d_out, r))
    if rank_of_b is not None:
        b = rng.normal(size=(d_out, rank_of_b)) @ rng.normal(size=(rank_of_b, r))
    return rng.normal(size=(r, r + more)).astype(np.float32), b.astype(np.float32)


def finished(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    layout = layout_of(a, b)
    made = FedSvd().finish(layout, layout.flatten({"q.lora_A": a, "q.lora_B": b, "head.bias": np.ones(2)}))
    tensors = layout.unflatten(made.vector)
    assert made.transports is not None
    assert tensors["head.bias"].tolist() == [1, 1]
    return tensors["q.lora_A"], tensors["q.lora_B"], made.transports["q"]


def layout_of(a: np.ndarray, b: np.ndarray) -> AdapterLayout:
    tensors = (
        TensorSpec("q.lora_A", a.shape, "lora_A"),
        TensorSpec("q.lora_B", b.shape, "lora_B"),
        TensorSpec("head.bias", (2,), "head"),
    )
    return AdapterLayout(Digest("b" * 64), tensors, 1.0)


def assert_turned(a: np.ndarray, b: np.ndarray) -> None:
    a_new, b_new, transport = finished(a, b)
    a64, b64, a_new64 = a.astype(float), b.astype(float), a_new.astype(float)
    assert np.abs(a_new64 @ a_new64.T - np.eye(len(a))).max() <= ORTHONORMAL
    size = np.linalg.norm(b64) * np.linalg.norm(a64)
    assert np.linalg.norm(b_new.astype(float) @ a_new64 - b64 @ a64) <= 1e-6 * size
    assert np.linalg.norm(transport - a64 @ a_new64.T) <= 1e-6 * np.linalg.norm(a64)
    assert all(np.array_equal(x, y) for x, y in zip(finished(a, b), (a_new, b_new, transport), strict=True))


# fed_svd.py: "A' has orthonormal rows, also when B = 0 or A is rank deficient, and B'·A' = B·A; bit for bit again"


@settings(deadline=None)
@given(PAIRS)
def test_fed_svd_keeps_the_product_and_makes_a_orthonormal(shape: tuple[int, int, int, int]) -> None:
    assert_turned(*pair(shape))


@settings(deadline=None)
@given(PAIRS, st.integers(0, 3))
def test_fed_svd_with_a_rank_deficient_b(shape: tuple[int, int, int, int], rank: int) -> None:
    assert_turned(*pair(shape, rank_of_b=min(rank, shape[0])))


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_fed_svd_with_a_rank_deficient_a(kept: int) -> None:
    a, b = pair((4, 10, 7, 1))
    a[kept:] = 0
    assert_turned(a, b)


def test_fed_svd_leaves_an_orthonormal_a_alone_before_anything_is_learned() -> None:
    a = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 4)))[0].T.astype(np.float32)
    a_new, b_new, transport = finished(a, np.zeros((9, 4), np.float32))
    assert np.abs(a_new - a).max() <= ORTHONORMAL
    assert not b_new.any()
    assert np.abs(transport - np.eye(4)).max() <= ORTHONORMAL


def test_the_signs_are_fixed() -> None:
    a, b = pair((5, 20, 12, 3))
    a_new, transport = turn(a, b)
    largest = transport[np.abs(transport).argmax(axis=0), np.arange(5)]
    assert (largest > 0).all()
    # The product decides A' up to sign, so another factorisation of the same product gives the same directions.
    mix = np.random.default_rng(4).normal(size=(5, 5))
    again, _ = turn(np.linalg.solve(mix, a.astype(float)), b.astype(float) @ mix)
    assert np.abs(np.abs(again @ a_new.T) - np.eye(5)).max() < 1e-6


@pytest.mark.parametrize("name", ["plain", "momentum"])
def test_with_sgd_fed_svd_is_ffa_lora_from_an_orthonormal_a(name: str) -> None:
    """docs/decisions/0003: the row space never changes, so B·A takes the same path; momentum is carried along."""
    rng = np.random.default_rng(0)
    a = np.linalg.qr(rng.normal(size=(20, 3)))[0].T.astype(np.float32)
    goal = rng.normal(size=(8, 20))
    products = []
    for method in (None, FedSvd()):
        layout = layout_of(a, np.zeros((8, 3)))
        trained = layout.only(("lora_B", "head"))
        vector = layout.flatten({"q.lora_A": a, "q.lora_B": np.zeros((8, 3)), "head.bias": np.zeros(2)})
        optimizer = server_optimizer(name, size=trained.size, learning_rate=0.5, momentum=0.7)
        for _ in range(12):
            tensors = layout.unflatten(vector)
            gradient = (goal - tensors["q.lora_B"] @ tensors["q.lora_A"]) @ tensors["q.lora_A"].T
            mean = trained.flatten({"q.lora_B": 0.3 * gradient, "head.bias": np.zeros(2)})
            vector = layout.with_part(
                vector, ("lora_B", "head"), optimizer.step(layout.part(vector, ("lora_B", "head")), mean)
            )
            if method:
                made = method.finish(layout, vector)
                optimizer.transport(trained, made.transports)
                vector = made.vector
        tensors = layout.unflatten(vector)
        products.append(tensors["q.lora_B"] @ tensors["q.lora_A"])
    assert np.abs(products[0] - products[1]).max() < 2e-5
    assert np.abs(products[0]).max() > 0.1


# fedavg.py: "the covariance of the factors across institutions"


def test_what_fedavg_misses_is_the_covariance_of_the_factors() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(6, 4, 15)), rng.normal(size=(6, 9, 4))
    missed = (b @ a).mean(axis=0) - b.mean(axis=0) @ a.mean(axis=0)
    covariance = ((b - b.mean(axis=0)) @ (a - a.mean(axis=0))).mean(axis=0)
    assert np.allclose(missed, covariance)
    assert np.linalg.norm(missed) > 0.1


def test_noise_in_both_factors_multiplies_as_stated() -> None:
    rng, s, r = np.random.default_rng(6), 0.1, 8
    product = rng.normal(0, s, (400, r)) @ rng.normal(0, s, (r, 400))
    assert product.var() == pytest.approx(r * s**4, rel=0.25)


# base.py: RunningSum


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.permutations(range(9)), st.booleans())
def test_the_running_mean_is_the_same_in_every_order(count: int, order: list[int], weighted: bool) -> None:
    rng = np.random.default_rng(count)
    deltas = rng.normal(0, 1e-3, (9, 50)).astype(np.float32)
    weights = rng.uniform(0.1, 3, 9) if weighted else np.ones(9)
    first, second = RunningSum(50), RunningSum(50)
    for index in [i for i in range(9) if i < count]:
        first.add(deltas[index], float(weights[index]))
    for index in [i for i in order if i < count]:
        second.add(deltas[index], float(weights[index]))
    assert first.mean().tobytes() == second.mean().tobytes()
    exact = np.average(deltas[:count].astype(float), axis=0, weights=weights[:count])
    assert np.abs(first.mean() - exact).max() < 1e-9


@pytest.mark.parametrize(
    ("delta", "weight", "error"),
    [
        (np.array([1, np.nan], np.float32), 1.0, NonFiniteUpdate),
        (np.array([1, 1e30], np.float32), 1.0, UpdateTooLarge),
        (np.ones(3, np.float32), 1.0, UpdateTooLarge),
        (np.ones(1, np.float32), 1.0, UpdateTooLarge),
        (np.ones(2, np.float32), 0.0, ConfigError),
        (np.ones(2, np.float32), -1.0, ConfigError),
        (np.ones(2, np.float32), float("nan"), ConfigError),
    ],
)
def test_an_update_that_is_refused_changes_nothing(delta: Any, weight: float, error: type[Exception]) -> None:
    total = RunningSum(2)
    total.add(np.array([0.25, -0.5], np.float32), 2.0)
    with pytest.raises(error):
        total.add(delta, weight)
    assert total.count == 1
    assert total.mean().tolist() == [0.25, -0.5]


def test_there_is_no_mean_of_nothing() -> None:
    with pytest.raises(QuorumNotReached):
        RunningSum(3).mean()


# server_optimizer.py: "a resumed run goes on bit for bit"


@pytest.mark.parametrize("name", ["plain", "momentum", "adam"])
def test_a_resumed_server_goes_on_bit_for_bit(name: str) -> None:
    rng = np.random.default_rng(7)
    updates = rng.normal(0, 1e-3, (8, 40)).astype(np.float32)
    whole = server_optimizer(name, size=40, learning_rate=0.7, momentum=0.8)
    part = np.zeros(40, np.float32)
    for index, update in enumerate(updates):
        if index == 4:
            middle, saved = part.copy(), whole.state()
        part = whole.step(part, update)
    resumed = server_optimizer(name, size=40, learning_rate=0.7, momentum=0.8)
    resumed.load_state(saved)
    for update in updates[4:]:
        middle = resumed.step(middle, update)
    assert middle.tobytes() == part.tobytes()


@pytest.mark.parametrize("name", ["plain", "momentum", "adam"])
def test_another_optimizers_state_is_refused(name: str) -> None:
    optimizer = server_optimizer(name, size=4)
    states: list[dict[str, Any]] = [{"other": np.zeros(4)}, {"velocity": np.zeros(5)}, {"velocity": np.zeros(4, "f4")}]
    for state in states:
        with pytest.raises(StorageError):
            optimizer.load_state(state)
