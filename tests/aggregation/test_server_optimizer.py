"""Server steps against their papers' formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedft.aggregation.base import aggregation_by_name
from fedft.aggregation.server_optimizer import SECOND_MOMENT_DECAY, TAU, server_optimizer
from fedft.errors import ConfigError, LayoutMismatch
from fedft.model.vector import AdapterLayout, TensorSpec
from fedft.types import ALL_ROLES, Digest

UPDATES = np.random.default_rng(0).normal(0, 0.01, (5, 6)).astype(np.float32)
LAYOUT = AdapterLayout(
    Digest("b" * 64), (TensorSpec("q.lora_B", (2, 2), "lora_B"), TensorSpec("head.bias", (2,), "head")), 1.0
)


def played(name: str, **options: Any) -> np.ndarray:
    optimizer = server_optimizer(name, size=6, **options)
    part = np.ones(6, np.float32)
    for update in UPDATES:
        part = optimizer.step(part, update)
    return part


def test_plain_adds_the_mean() -> None:
    assert np.allclose(played("plain"), 1 + UPDATES.sum(axis=0), atol=1e-6)
    assert np.allclose(played("plain", learning_rate=0.5), 1 + 0.5 * UPDATES.sum(axis=0), atol=1e-6)


def test_momentum_is_fedavgm() -> None:
    velocity, part = np.zeros(6), np.ones(6)
    for update in UPDATES:
        velocity = 0.6 * velocity + update
        part = part + 0.5 * velocity
    assert np.allclose(played("momentum", learning_rate=0.5, momentum=0.6), part, atol=1e-6)


def test_without_momentum_it_is_plain() -> None:
    assert np.array_equal(played("momentum", momentum=0.0), played("plain"))


def test_adam_is_fedadam() -> None:
    first, second, part = np.zeros(6), np.full(6, TAU**2), np.ones(6)
    for update in UPDATES.astype(float):
        first = 0.9 * first + 0.1 * update
        second = SECOND_MOMENT_DECAY * second + (1 - SECOND_MOMENT_DECAY) * update**2
        part = part + 0.1 * first / (np.sqrt(second) + TAU)
    assert np.allclose(played("adam", learning_rate=0.1), part, atol=1e-6)


def test_adam_on_gradients_is_that_of_central_training() -> None:
    """torch's, step by step, and after a resume."""
    parameter = torch.nn.Parameter(torch.ones(6, dtype=torch.float64))
    central = torch.optim.Adam([parameter], lr=0.1)
    optimizer, part = server_optimizer("adam", size=6, gradients=True), np.ones(6, np.float32)
    for update in UPDATES:
        parameter.grad = -torch.from_numpy(update.astype(np.float64))
        central.step()
        resumed = server_optimizer("adam", size=6, gradients=True)
        resumed.load_state(optimizer.state())
        part, optimizer = resumed.step(part, update, 0.1), resumed
    assert np.allclose(part, parameter.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "momentum", "adam"])
def test_a_rounds_rate_is_times_the_learning_rate(name: str) -> None:
    half, whole = server_optimizer(name, size=6, learning_rate=0.5), server_optimizer(name, size=6)
    part = np.ones(6, np.float32)
    assert np.array_equal(half.step(part, UPDATES[0]), whole.step(part, UPDATES[0], 0.5))


def test_the_result_is_float32() -> None:
    assert {played(name).dtype for name in ("plain", "momentum", "adam")} == {np.dtype(np.float32)}


def test_momentum_follows_b_and_leaves_the_head() -> None:
    optimizer = server_optimizer("momentum", size=6, momentum=0.5)
    optimizer.step(np.zeros(6, np.float32), np.arange(6, dtype=np.float32))
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    optimizer.transport(LAYOUT, {"q": turn})
    velocity = optimizer.state()["velocity"]
    assert np.array_equal(velocity[:4].reshape(2, 2), np.array([[0.0, 1.0], [2.0, 3.0]]) @ turn)
    assert velocity[4:].tolist() == [4, 5]


def test_saved_state_is_a_copy() -> None:
    optimizer = server_optimizer("momentum", size=6)
    optimizer.state()["velocity"][:] = 1
    assert not optimizer.state()["velocity"].any()


def test_adam_cannot_follow_turned_axes() -> None:
    optimizer = server_optimizer("adam", size=6)
    optimizer.transport(LAYOUT, None)
    with pytest.raises(ConfigError, match="ffa_lora"):
        optimizer.transport(LAYOUT, {"q": np.eye(2)})


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="yogi"):
        server_optimizer("yogi", size=6)
    with pytest.raises(ConfigError, match="fed_avg"):
        aggregation_by_name("fed_avg")


@pytest.mark.parametrize(
    ("name", "trains", "orthonormal"),
    [("fedavg", ALL_ROLES, False), ("ffa_lora", ("lora_B", "head"), False), ("fed_svd", ("lora_B", "head"), True)],
)
def test_what_an_aggregation_trains(name: str, trains: tuple[str, ...], orthonormal: bool) -> None:
    method = aggregation_by_name(name)
    assert (method.name, method.trains, method.orthonormal_a) == (name, trains, orthonormal)


@pytest.mark.parametrize("name", ["fedavg", "ffa_lora", "fed_svd"])
def test_a_head_alone_passes_unchanged_and_another_layout_is_refused(name: str) -> None:
    layout = LAYOUT.only(("head",))
    vector = np.array([1.5, -2.0], np.float32)
    assert np.array_equal(aggregation_by_name(name).finish(layout, vector).vector, vector)
    with pytest.raises(LayoutMismatch):
        aggregation_by_name(name).finish(layout, np.zeros(3, np.float32))
