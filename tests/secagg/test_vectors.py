"""tests/vectors/secagg: made without fedft, read by it. One hostile case, one refusal."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedft import errors
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.secagg import key_agreement, messages, shamir
from fedft.secagg.context import RoundContext, gather_keys, read_keys, write_key
from fedft.secagg.coordinator import Coordinator
from fedft.secagg.encoding import pack, to_ring, unpack
from fedft.secagg.graph import Graph, shape_for
from fedft.secagg.institution import Institution, MemoryRecorder
from fedft.secagg.masking import add_masks

FOLDER = Path(__file__).parents[1] / "vectors" / "secagg"
FILES = ("primitives", "graph", "round", "hostile")
VECTORS: dict[str, Any] = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in FILES}
ROUND: dict[str, Any] = VECTORS["round"]
RINGS: list[dict[str, Any]] = ROUND["rings"]
RUN, NUMBER, NAMES = ROUND["run"], ROUND["round"], sorted(ROUND["keys"])
IDENTITIES = {name: PublicKey(text) for name, text in ROUND["identities"].items()}
unhex = bytes.fromhex


def identity(name: str) -> PrivateKey:
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(unhex(ROUND["seeds"][name])))


def context_of(ring: dict[str, Any]) -> RoundContext:
    return RoundContext.from_bytes(ring["context"].encode())


def set_up(name: str, recorder: MemoryRecorder | None = None) -> Institution:
    """The member with the vectors' key for the run."""
    recorder = recorder or MemoryRecorder()
    recorder.store(RUN, 0, "key", unhex(ROUND["agreement"][name]))
    return Institution(name, identity(name), IDENTITIES, PublicKey(ROUND["coordinator"]), recorder)


def that_uploaded(name: str, ring: dict[str, Any]) -> Institution:
    """The member after a restart that found the vectors' upload."""
    recorder = MemoryRecorder()
    context = ring["context"].encode()
    recorder.store(RUN, NUMBER, "upload", len(context).to_bytes(4, "big") + context + unhex(ring["uploads"][name]))
    member = set_up(name, recorder)
    member.accept_keys(RUN, ROUND["key_list"].encode())
    return member


def hostile(group: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in VECTORS["hostile"][group]]


def refused(case: dict[str, str]) -> Any:
    return pytest.raises(getattr(errors, case["raises"]))


rings = pytest.mark.parametrize("ring", RINGS, ids=lambda ring: f"{ring['ring_bits']} bits")


@pytest.fixture(name="script")
def _script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Its names; beside it is what it imports, as where it is run by hand."""
    monkeypatch.syspath_prepend(FOLDER)
    return {name: value for file in ("own_primitives", "make_secagg") for name, value in _run(file).items()}


def _run(file: str) -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / f"{file}.py"))


def test_the_files_are_what_their_script_makes(script: dict[str, Any]) -> None:
    made = script["everything"]()
    assert json.loads(json.dumps(made)) == VECTORS


def test_the_rfcs_own_vectors(script: dict[str, Any]) -> None:
    for case in VECTORS["primitives"]["x25519"]:
        scalar, u = unhex(case["scalar"]), unhex(case["u"])
        assert script["x25519"](scalar, u).hex() == case["shared"]
        assert key_agreement.AgreementKey(scalar).shared(u).hex() == case["shared"]
    for case in VECTORS["primitives"]["hkdf"]:
        secret, salt, info = (unhex(case[name]) for name in ("secret", "salt", "info"))
        assert script["hkdf"](secret, salt, info, 42).hex() == case["key"]
        assert HKDF(SHA256(), 42, salt or None, info).derive(secret).hex() == case["key"]
    for case in VECTORS["primitives"]["aead"]:
        key, nonce, plain, associated = (unhex(case[name]) for name in ("key", "nonce", "plain", "associated"))
        assert ChaCha20Poly1305(key).encrypt(nonce, plain, associated).hex() == case["sealed"]


def test_setup() -> None:
    sent = {name: set_up(name).key_message(RUN) for name in NAMES}
    assert {name: message.hex() for name, message in sent.items()} == ROUND["key_messages"]
    assert gather_keys(RUN, sent, IDENTITIES).decode() == ROUND["key_list"]
    keys, _ = read_keys(ROUND["key_list"].encode(), RUN, IDENTITIES)
    assert keys.digest == ROUND["keys_digest"]
    assert {name: key.hex() for name, key in keys.keys.items()} == ROUND["keys"]
    for parties, expected in ROUND["pairs"].items():
        i, j = parties.split()
        own = key_agreement.AgreementKey(unhex(ROUND["agreement"][i]))
        assert key_agreement.pair_key(own, RUN, i, j, keys.keys[j]).hex() == expected


@rings
def test_an_upload(ring: dict[str, Any]) -> None:
    context = context_of(ring)
    assert context.digest.hex() == ring["context_digest"]
    for name in ring["values"]:
        secrets = [unhex(secret) for secret in ring["secrets"][name]]
        others = [other for other in NAMES if other != name]
        for other, secret in zip(others, secrets[1:], strict=True):
            pair = unhex(ROUND["pairs"][" ".join(sorted((name, other)))])
            assert key_agreement.mask_key(pair, context.digest) == secret
        residues = to_ring(np.array(ring["values"][name]), context.ring_bits, context.limits[name])
        plus = [secrets[0], *(key for other, key in zip(others, secrets[1:], strict=True) if other > name)]
        add_masks(residues, plus, [key for other, key in zip(others, secrets[1:], strict=True) if other < name])
        assert (residues & (2**context.ring_bits - 1)).tolist() == ring["masked"][name]
        packed = pack(residues, context.ring_bits)
        assert packed.hex() == ring["packed"][name]
        assert unpack(packed, context.size, context.ring_bits).tolist() == ring["masked"][name]
        commitments = [key_agreement.commitment(secret, context.digest) for secret in secrets]
        assert [commit.hex() for commit in commitments] == ring["commitments"][name]
        for place, secret in enumerate(secrets):
            shares = [int(share, 16) for share in ring["shares"][name][place]]
            assert shamir.combine({1: shares[0], 3: shares[2], 4: shares[3]}) == secret
            polynomial = [int.from_bytes(secret, "big"), *(int(row[place], 16) for row in ring["coefficients"][name])]
            assert shamir.shares_on(polynomial, range(1, 5)) == shares
        packages = [unhex(package) for package in ring["packages"][name]]
        for place, holder in enumerate(NAMES):
            pair = unhex(ROUND["pairs"][" ".join(sorted((name, holder)))])
            plain = key_agreement.open_shares(pair, context.digest, name, holder, packages[place])
            assert [f"{share:066x}" for share in messages.read_shares(plain)] == [
                row[place] for row in ring["shares"][name]
            ]
        upload = messages.write_upload(context, name, residues, commitments, packages, identity(name))
        assert upload.hex() == ring["uploads"][name]


@rings
def test_from_uploads_to_the_sum(ring: dict[str, Any]) -> None:
    collector = Coordinator(context_of(ring), identity(""), IDENTITIES)
    for name, upload in ring["uploads"].items():
        collector.add_upload(name, unhex(upload))
    questions = collector.name_set()
    assert {name: question.hex() for name, question in questions.items()} == ring["questions"]
    for name, question in questions.items():
        answer = that_uploaded(name, ring).unmask(RUN, NUMBER, question)
        assert answer.hex() == ring["answers"][name]
        collector.add_answer(name, answer)
    found = collector.finish()
    assert found.values.tolist() == ring["sum"]
    assert (found.dropped, found.lied) == (("south",), ())


@pytest.mark.parametrize("case", VECTORS["graph"], ids=lambda case: str(case["members"]))
def test_the_graph(case: dict[str, Any]) -> None:
    names = [f"m{number:03d}" for number in range(case["members"])]
    graph = Graph(shape_for(len(names)), names, case["keys_digest"], case["round"])
    assert list(graph.holders) == case["holders"]
    assert {name: list(graph.neighbours(name)) for name in names[:3]} == case["neighbours"]


@pytest.mark.parametrize("case", hostile("key_lists"))
def test_hostile_lists_of_keys_are_refused(case: dict[str, str]) -> None:
    member = set_up("east")
    with refused(case):
        member.accept_keys(RUN, unhex(case["hex"]))
    member.accept_keys(RUN, ROUND["key_list"].encode())


@pytest.mark.parametrize("case", hostile("contexts"))
def test_hostile_contexts_are_refused(case: dict[str, str]) -> None:
    with refused(case):
        RoundContext.from_bytes(unhex(case["hex"]))


@pytest.mark.parametrize("case", hostile("uploads"))
def test_hostile_uploads_are_refused_and_leave_no_trace(case: dict[str, str]) -> None:
    ring = RINGS[1]
    collector = Coordinator(context_of(ring), identity(""), IDENTITIES)
    with refused(case):
        collector.add_upload("north", unhex(case["hex"]))
    for name, upload in ring["uploads"].items():
        collector.add_upload(name, unhex(upload))
    collector.name_set()
    for name, answer in ring["answers"].items():
        collector.add_answer(name, unhex(answer))
    assert collector.finish().values.tolist() == ring["sum"]


@pytest.mark.parametrize("case", hostile("questions"))
def test_hostile_questions_are_refused_and_the_honest_one_is_answered_after(case: dict[str, str]) -> None:
    member = that_uploaded("east", RINGS[1])
    with refused(case):
        member.unmask(RUN, NUMBER, unhex(case["hex"]))
    assert member.unmask(RUN, NUMBER, unhex(RINGS[1]["questions"]["east"])).hex() == RINGS[1]["answers"]["east"]


@pytest.mark.parametrize("case", hostile("answers"))
def test_hostile_answers_are_refused(case: dict[str, str]) -> None:
    ring = RINGS[1]
    collector = Coordinator(context_of(ring), identity(""), IDENTITIES)
    for name, upload in ring["uploads"].items():
        collector.add_upload(name, unhex(upload))
    collector.name_set()
    with refused(case):
        collector.add_answer("north", unhex(case["hex"]))
    collector.add_answer("north", unhex(ring["answers"]["north"]))


def test_a_key_message_for_another_run_or_member_is_refused() -> None:
    own = write_key(RUN, "east", unhex(ROUND["keys"]["east"]), identity("east"))
    with pytest.raises(errors.IdentityError):
        gather_keys("run-2", {"east": own}, IDENTITIES)
    with pytest.raises(errors.IdentityError):
        gather_keys(RUN, {"west": own}, IDENTITIES)
