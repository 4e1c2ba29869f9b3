"""tests/vectors/join_request.json: made without fedft, read by it. One hostile case, one refusal."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from fedft import errors
from fedft.deployment.provision_request import JoinRequest, read_join_request
from fedft.identity.keys import PublicKey

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "join_request.json").read_text())


def read(file: str) -> JoinRequest:
    coordinator = PublicKey(VECTORS["coordinator"])
    return read_join_request(file.encode(), federation=VECTORS["federation"], coordinator=coordinator)


def test_the_file_is_what_its_script_makes() -> None:
    assert runpy.run_path(str(FOLDER / "make_join_request.py"))["vectors"]() == VECTORS


def test_the_honest_request_is_read() -> None:
    fields = VECTORS["request"]["fields"]
    request = read(VECTORS["request"]["file"])
    assert (request.member.name, request.member.key.text) == (fields["name"], fields["key"])
    assert request.member.node_key == fields["node_key"]
    assert request.certificate_request.decode() == fields["certificate_request"]
    assert request.signers == {request.member.key}


def test_a_replacement_has_two_signers() -> None:
    case = VECTORS["replacement"]
    assert read(case["file"]).signers == {PublicKey(text) for text in case["signers"]}


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in VECTORS["hostile"]])
def test_hostile_requests_are_refused(case: dict[str, str]) -> None:
    with pytest.raises(getattr(errors, case["raises"])):
        read(case["file"])
