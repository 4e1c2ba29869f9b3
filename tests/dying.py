"""Processes that die by SIGKILL at a named point of fedft's code.

They come from a fork server that has imported fedft and calculated their noise (tests/warm.py), so that each starts in
no time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

KILLED = -signal.SIGKILL

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["fedft.simulation.run", "fedft.deployment.agent", "fedft.deployment.agent_http", "tests.warm"]
)


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(
    owner: Any, name: str, *, after: bool = False, nth: int = 1, only: Callable[..., bool] = lambda *_, **__: True
) -> Callable[[], None]:
    """Die before or after the nth call of ``owner.name`` whose arguments ``only`` accepts."""

    def install() -> None:
        original, calls = getattr(owner, name), 0

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            counts = only(*args, **kwargs)
            calls += counts
            if counts and calls == nth and not after:
                die()
            result = original(*args, **kwargs)
            if counts and calls == nth:
                die()
            return result

        setattr(owner, name, wrapped)

    return install
