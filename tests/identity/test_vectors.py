"""tests/vectors/signatures.json: made without fedft, read by it. One hostile case, one refusal."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from fedft import errors
from fedft.identity.keys import PublicKey
from fedft.identity.roster import Member, Roster
from fedft.identity.signed import open_signed

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "signatures.json").read_text())
COORDINATOR = PublicKey(VECTORS["coordinator"]["public"])


def named(group: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in VECTORS[group]]


def test_the_file_is_what_its_script_makes() -> None:
    assert runpy.run_path(str(FOLDER / "make_signatures.py"))["vectors"]() == VECTORS


def test_the_honest_bytes_open() -> None:
    sealed = bytes.fromhex(VECTORS["sealed"]["hex"])
    assert open_signed(VECTORS["label"], sealed, COORDINATOR).hex() == VECTORS["sealed"]["payload"]


@pytest.mark.parametrize("case", named("hostile_sealed"))
def test_hostile_bytes_are_refused(case: dict[str, str]) -> None:
    with pytest.raises(getattr(errors, case["raises"])):
        open_signed(VECTORS["label"], bytes.fromhex(case["hex"]), COORDINATOR)


def test_the_honest_roster_opens() -> None:
    fields = VECTORS["roster"]["fields"]
    members = tuple(Member(one["name"], PublicKey(one["key"]), one["node_key"]) for one in fields["members"])
    expected = Roster(fields["federation"], fields["version"], COORDINATOR, members)
    assert Roster.open(VECTORS["roster"]["file"].encode(), COORDINATOR) == expected


@pytest.mark.parametrize("case", named("hostile_rosters"))
def test_hostile_rosters_are_refused(case: dict[str, str]) -> None:
    with pytest.raises(getattr(errors, case["raises"])):
        Roster.open(case["file"].encode("latin-1"), COORDINATOR)


@pytest.mark.parametrize("case", named("hostile_keys"))
def test_what_is_no_public_key_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(getattr(errors, case["raises"])):
        PublicKey(case["text"])
