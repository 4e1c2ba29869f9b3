"""A withdrawal is what the key that it names signed, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fedft.errors import ConfigError, IdentityError
from fedft.identity.documents import canonical, write_document
from fedft.identity.keys import PrivateKey
from fedft.identity.withdrawal import WITHDRAWAL_LABEL, Withdrawal

KEY, STRANGER = PrivateKey.generate(), PrivateKey.generate()
LEFT = Withdrawal(
    federation="hospitals",
    coordinator=STRANGER.public.text,
    name="north",
    key=KEY.public.text,
    ledger="5a" * 16,
    entries=7,
    head="ab" * 32,
    time_utc="2026-12-01T03:00:00Z",
)
FIELDS: dict[str, Any] = dict(vars(LEFT))


def test_it_comes_back_as_it_was() -> None:
    text = LEFT.sealed(KEY)
    assert Withdrawal.open(text) == LEFT
    assert json.loads(text)["signed"]["label"] == "fedft/v1/withdrawal"
    assert Withdrawal.open(text).public == KEY.public


def test_its_own_key_signs_and_no_other() -> None:
    with pytest.raises(ConfigError):
        LEFT.sealed(STRANGER)
    for keys in ([STRANGER], [KEY, STRANGER]):
        with pytest.raises(IdentityError, match="another signer"):
            Withdrawal.open(write_document(WITHDRAWAL_LABEL, FIELDS, keys).decode())


@pytest.mark.parametrize(
    "change",
    [
        {"federation": "two words"}, {"name": ""}, {"name": 3}, {"coordinator": "ed25519:"}, {"key": None},
        {"ledger": "5a"}, {"entries": 0}, {"entries": True}, {"entries": 7.0}, {"entries": 2**53}, {"head": "AB" * 32},
        {"time_utc": "now"}, {"reason": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_other_fields_or_values_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(IdentityError, match="SPEC"):
        Withdrawal.open(write_document(WITHDRAWAL_LABEL, {**FIELDS, **change}, [KEY]).decode())
    missing = {name: value for name, value in FIELDS.items() if name != "head"}
    with pytest.raises(IdentityError, match="SPEC"):
        Withdrawal.open(write_document(WITHDRAWAL_LABEL, missing, [KEY]).decode())


def test_whatever_was_changed_is_refused() -> None:
    text = LEFT.sealed(KEY)
    body = json.loads(text)
    body["signed"]["entries"] = 8
    for wrong in (canonical(body).decode() + "\n", text[:-1], text + "\n", "", "\u2014" * 40, "x" * 5000):
        with pytest.raises(IdentityError):
            Withdrawal.open(wrong)
    with pytest.raises(IdentityError):
        Withdrawal.open(write_document("fedft/v1/join", FIELDS, [KEY]).decode())
    assert Withdrawal.open(replace(LEFT, entries=8).sealed(KEY)).entries == 8
