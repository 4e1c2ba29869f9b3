"""Which word an error becomes, and what a refusal may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from fedft import errors
from fedft.errors import FedftError, UpdateError
from fedft.update.release import REASONS, Reason, Refusal, reason_for, refusal_for


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (errors.PrivacyBudgetExhausted("x"), "budget-exhausted"),
        (errors.UnreachableEpsilon("x"), "budget-exhausted"),
        (errors.NotPrivate("x"), "not-private"),
        (errors.StaleUpdate("x"), "stale-round"),
        (errors.LayoutMismatch("x"), "wrong-plan"),
        (errors.ConfigError("x"), "wrong-plan"),
        (errors.BadRecord("f", 1, "text", "empty"), "data"),
        (errors.LedgerLocked("x"), "ledger"),
        (errors.StorageError("x"), "storage"),
        (errors.PolicyError("x"), "policy"),
        (errors.IdentityError("x"), "identity"),
        (PermissionError("x"), "storage"),
        (errors.NonFiniteUpdate("x"), "internal"),
        (errors.FederationError("x"), "internal"),
        (ZeroDivisionError("x"), "internal"),
        (KeyboardInterrupt(), "internal"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_the_word_of_an_error(error: BaseException, word: str) -> None:
    assert reason_for(error) == word


def test_every_error_of_the_tree_has_a_word() -> None:
    def tree(cls: type[FedftError]) -> list[type[FedftError]]:
        return [cls, *(deeper for child in cls.__subclasses__() for deeper in tree(child))]

    for cls in tree(FedftError):
        assert reason_for(cls.__new__(cls)) in REASONS


def test_the_vocabulary_is_the_specifications() -> None:
    spec = (Path(__file__).parents[2] / "docs" / "SPEC.md").read_text()
    assert get_args(Reason) == REASONS
    assert all(f"`{word}`" in spec for word in REASONS)


@pytest.mark.parametrize(
    "change",
    [{"reason": "patient 7 has a bad row"}, {"institution": "a b"}, {"run": "\n"}, {"round": -1}, {"round": "1"}],
    ids=str,
)
def test_a_refusal_with_free_text_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(UpdateError) as caught:
        Refusal(**{"institution": "clinic", "run": "r", "round": 1, "reason": "data", **change})
    assert "patient" not in str(caught.value)


def test_a_refusal_is_plain_data() -> None:
    refusal = refusal_for(OSError(28, "No space left on device"), institution="clinic", run="r", round=2)
    assert json.dumps(vars(refusal)) == '{"institution": "clinic", "run": "r", "round": 2, "reason": "storage"}'
