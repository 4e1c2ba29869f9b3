"""The server's step: what it makes of the mean update of a round.

Sources: momentum is FedAvgM, Hsu et al. 2019, arXiv 1909.06335; adam is FedAdam, Reddi et al. 2021, arXiv 2003.00295,
algorithm 2 (no bias correction; the second moment starts at τ²). Where institutions send gradients and take no step,
adam is that of Kingma & Ba 2015, algorithm 1. All state is float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedft.aggregation.base import Transports
from fedft.errors import ConfigError, StorageError
from fedft.model.vector import AdapterLayout
from fedft.types import AdapterVector

State = dict[str, npt.NDArray[np.float64]]

SECOND_MOMENT_DECAY = 0.99
TAU = 1e-3
"""FedAdam's degree of adaptivity, as in the paper's experiments."""


class ServerOptimizer(Protocol):
    """step: the trained part after a round, from the part before and the mean update, all of shape (d,). rate: of this
    round, times the learning rate.

    transport: follow B's axes after fed_svd. state and load_state: everything a later round depends on, so that a
    resumed run goes on bit for bit.
    """

    def step(self, part: AdapterVector, mean_update: AdapterVector, rate: float = 1.0) -> AdapterVector: ...
    def transport(self, layout: AdapterLayout, transports: Transports | None) -> None: ...
    def state(self) -> State: ...
    def load_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None: ...


class Plain:
    """part + learning_rate·mean. With learning_rate 1, federated averaging."""

    def __init__(self, size: int, learning_rate: float = 1.0) -> None:
        self.size, self.learning_rate = size, learning_rate

    def step(self, part: AdapterVector, mean_update: AdapterVector, rate: float = 1.0) -> AdapterVector:
        return _moved(part, rate * self.learning_rate * mean_update.astype(np.float64))

    def transport(self, layout: AdapterLayout, transports: Transports | None) -> None:
        """Nothing to carry: no state."""

    def state(self) -> State:
        return {}

    def load_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        _checked(state, {})


class Momentum:
    """m <- momentum·m + mean; part + learning_rate·m."""

    def __init__(self, size: int, learning_rate: float = 1.0, momentum: float = 0.9) -> None:
        self.size, self.learning_rate, self.momentum = size, learning_rate, momentum
        self._velocity = np.zeros(size)

    def step(self, part: AdapterVector, mean_update: AdapterVector, rate: float = 1.0) -> AdapterVector:
        self._velocity = self.momentum * self._velocity + mean_update
        return _moved(part, rate * self.learning_rate * self._velocity)

    def transport(self, layout: AdapterLayout, transports: Transports | None) -> None:
        """m_B <- m_B·M for every module: the same direction in the space of B·A as before."""
        for spec, where in layout.slices():
            if transports and spec.role == "lora_B":
                turned = self._velocity[where].reshape(spec.shape) @ transports[spec.module]
                self._velocity[where] = turned.reshape(-1)

    def state(self) -> State:
        return {"velocity": self._velocity.copy()}

    def load_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self._velocity = _checked(state, {"velocity": self.size})["velocity"]


class Adam:
    """m <- momentum·m + (1 - momentum)·mean; v likewise of squares; part + learning_rate·m/(√v + τ)."""

    def __init__(self, size: int, learning_rate: float = 1.0, momentum: float = 0.9) -> None:
        self.size, self.learning_rate, self.momentum = size, learning_rate, momentum
        self._first = np.zeros(size)
        self._second = np.full(size, TAU**2)

    def step(self, part: AdapterVector, mean_update: AdapterVector, rate: float = 1.0) -> AdapterVector:
        mean = mean_update.astype(np.float64)
        self._first = self.momentum * self._first + (1 - self.momentum) * mean
        self._second = SECOND_MOMENT_DECAY * self._second + (1 - SECOND_MOMENT_DECAY) * mean**2
        return _moved(part, rate * self.learning_rate * self._first / (np.sqrt(self._second) + TAU))

    def transport(self, layout: AdapterLayout, transports: Transports | None) -> None:
        """Raises ConfigError when the axes moved: a second moment per coordinate cannot be turned."""
        _refuse_turn(transports)

    def state(self) -> State:
        return {"first": self._first.copy(), "second": self._second.copy()}

    def load_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        loaded = _checked(state, {"first": self.size, "second": self.size})
        self._first, self._second = loaded["first"], loaded["second"]


class GradientAdam:
    """Adam on gradients, its moments corrected for their start at 0; v decays by 0.999, and 1e-8 is added to √v."""

    DECAY, EPSILON = 0.999, 1e-8

    def __init__(self, size: int, learning_rate: float = 1.0, momentum: float = 0.9) -> None:
        self.size, self.learning_rate, self.momentum = size, learning_rate, momentum
        self._first, self._second, self._steps = np.zeros(size), np.zeros(size), 0

    def step(self, part: AdapterVector, mean_update: AdapterVector, rate: float = 1.0) -> AdapterVector:
        mean = mean_update.astype(np.float64)
        self._steps += 1
        self._first = self.momentum * self._first + (1 - self.momentum) * mean
        self._second = self.DECAY * self._second + (1 - self.DECAY) * mean**2
        first = self._first / (1 - self.momentum**self._steps)
        second = self._second / (1 - self.DECAY**self._steps)
        return _moved(part, rate * self.learning_rate * first / (np.sqrt(second) + self.EPSILON))

    def transport(self, layout: AdapterLayout, transports: Transports | None) -> None:
        """Raises ConfigError as Adam's."""
        _refuse_turn(transports)

    def state(self) -> State:
        return {"first": self._first.copy(), "second": self._second.copy(), "steps": np.array([float(self._steps)])}

    def load_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        loaded = _checked(state, {"first": self.size, "second": self.size, "steps": 1})
        self._first, self._second, self._steps = loaded["first"], loaded["second"], int(loaded["steps"][0])


def server_optimizer(
    name: str, *, size: int, learning_rate: float = 1.0, momentum: float = 0.9, gradients: bool = False
) -> ServerOptimizer:
    """ "plain", "momentum" or "adam" for a trained part of ``size`` values. Raises ConfigError for another.

    gradients: whether they are what institutions send, instead of updates.
    """
    if name == "plain":
        return Plain(size, learning_rate)
    if name == "momentum":
        return Momentum(size, learning_rate, momentum)
    if name == "adam" and gradients:
        return GradientAdam(size, learning_rate, momentum)
    if name == "adam":
        return Adam(size, learning_rate, momentum)
    raise ConfigError(f'expected server_optimizer "plain", "momentum" or "adam", found "{name}": choose one of them')


def _refuse_turn(transports: Transports | None) -> None:
    if transports:
        raise ConfigError(
            'expected server_optimizer "plain" or "momentum" with fed_svd, found "adam", whose second moments are '
            'tied to the axes that fed_svd turns: choose another server_optimizer, or method = "ffa_lora"'
        )


def _moved(part: AdapterVector, move: npt.NDArray[np.float64]) -> AdapterVector:
    return (part + move).astype(np.float32)


def _checked(state: Mapping[str, npt.NDArray[Any]], sizes: Mapping[str, int]) -> State:
    """Copies, after checking names, sizes and dtype. Raises StorageError."""
    found = {name: array.shape for name, array in state.items() if array.dtype == np.float64}
    if state.keys() != found.keys() or found != {name: (size,) for name, size in sizes.items()}:
        raise StorageError(
            f"expected server optimizer state {dict(sizes)} in float64, found {found}: "
            "resume with the configuration the run was started with"
        )
    return {name: array.copy() for name, array in state.items()}
