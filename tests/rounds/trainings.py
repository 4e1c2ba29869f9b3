"""A stand-in for train_locally, and the word of a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedft.training.local import train_locally
from fedft.update.release import Refusal


class Trainings:
    """Stands in for train_locally, counts, and fails while ``error`` is set."""

    def __init__(self) -> None:
        self.count, self.error = 0, None  # type: tuple[int, BaseException | None]
        self.before: Callable[[], None] = lambda: None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        self.before()
        if self.error is not None:
            raise self.error
        return train_locally(*args, **kwargs)


def reason(answer: bytes | Refusal) -> str | None:
    return answer.reason if isinstance(answer, Refusal) else None
