"""What crosses in a round: uploads, the question that names who uploaded, the answers. docs/SPEC.md.

Guarantee: lengths follow from the context, never from a number in a message, except those of JSON heads, which are
bounded; a signature is verified before anything under it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedft.errors import ConfigError, IdentityError, StaleUpdate, UpdateError
from fedft.identity.documents import canonical
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.signed import HEAD_BYTES, open_signed, seal
from fedft.secagg.context import RoundContext, read_object, require_run
from fedft.secagg.encoding import pack, packed_bytes, unpack
from fedft.secagg.key_agreement import NONCE_BYTES, TAG_BYTES
from fedft.secagg.masking import Ring
from fedft.secagg.shamir import PRIME, SHARE_BYTES

UPLOAD_LABEL = "fedft/v1/secagg-upload"
UNMASK_LABEL = "fedft/v1/secagg-unmask"
SHARES_LABEL = "fedft/v1/secagg-shares"
UPLOAD_MAGIC, UNMASK_MAGIC, SHARES_MAGIC = b"FEDFTSAU", b"FEDFTSAQ", b"FEDFTSAS"
MAX_UPLOAD_HEAD, MAX_UNMASK_HEAD, MAX_SHARES_HEAD = 2048, 2**20, 4096
COMMITMENT_BYTES = 32


def package_plain_bytes(context: RoundContext) -> int:
    """Of one dealer for one holder: shares of b and of each mask key."""
    return SHARE_BYTES * (context.shape.neighbours + 1)


def package_bytes(context: RoundContext) -> int:
    return NONCE_BYTES + package_plain_bytes(context) + TAG_BYTES


def upload_bytes(context: RoundContext) -> int:
    """The most bytes that an upload has."""
    vector, secrets = packed_bytes(context.size, context.ring_bits), context.shape.neighbours + 1
    return 12 + MAX_UPLOAD_HEAD + vector + COMMITMENT_BYTES * secrets + context.shape.holders * package_bytes(context)


@dataclass(frozen=True)
class Upload:
    """A masked vector with what unmasking needs: commitments as (b, mask keys), packages by holder."""

    institution: str
    head: bytes
    vector: Ring
    commitments: tuple[bytes, ...]
    packages: tuple[bytes, ...]


def write_upload(
    context: RoundContext,
    name: str,
    vector: Ring,
    commitments: Sequence[bytes],
    packages: Sequence[bytes],
    identity: PrivateKey,
    *,
    before: bytes = b"",
) -> bytes:
    """The upload, behind ``before``: so that what is stored is made in one piece."""
    packed, rest = pack(vector, context.ring_bits), b"".join((*commitments, *packages))
    digests = {"rest": hashlib.sha256(rest).hexdigest(), "vector": hashlib.sha256(packed).hexdigest()}
    head = seal(UPLOAD_LABEL, canonical({**_place(context, UPLOAD_LABEL), **digests, "institution": name}), identity)
    return b"".join((before, UPLOAD_MAGIC, len(head).to_bytes(4, "big"), head, packed, rest))


def read_upload(data: bytes | memoryview, context: RoundContext, name: str, key: PublicKey) -> Upload:
    """The upload of ``name``. Raises UpdateError, IdentityError or StaleUpdate, before the vector is touched."""
    head, body = _split(data, UPLOAD_MAGIC, MAX_UPLOAD_HEAD)
    digests = read_upload_head(head, context, name, key)
    vector_bytes = packed_bytes(context.size, context.ring_bits)
    commitments_bytes = COMMITMENT_BYTES * (context.shape.neighbours + 1)
    expected = vector_bytes + commitments_bytes + context.shape.holders * package_bytes(context)
    if len(body) != expected:
        raise UpdateError(
            f"expected {expected} bytes after an upload's head, found {len(body)}: of another length or ring"
        )
    packed, rest = body[:vector_bytes], body[vector_bytes:]
    if digests != (hashlib.sha256(packed).hexdigest(), hashlib.sha256(rest).hexdigest()):
        raise UpdateError("expected the bytes that an upload's head names, found others: send it again")
    return Upload(
        name,
        head,
        unpack(packed, context.size, context.ring_bits),
        tuple(_pieces(rest[:commitments_bytes], COMMITMENT_BYTES)),
        tuple(_pieces(rest[commitments_bytes:], package_bytes(context))),
    )


def read_upload_head(head: bytes, context: RoundContext, name: str, key: PublicKey) -> tuple[str, str]:
    """The digests of vector and rest, from a signed head: proof that ``name`` uploaded in this round."""
    fields = _object(open_signed(UPLOAD_LABEL, head, key))
    _require_place(fields, context, UPLOAD_LABEL)
    if set(fields) != {"context", "institution", "label", "rest", "round", "run", "vector"}:
        raise UpdateError("expected an upload's head, found other fields: write it as docs/SPEC.md says")
    if fields["institution"] != name:
        raise IdentityError("expected an upload of the institution that signed it, found another name: leave it out")
    return str(fields["vector"]), str(fields["rest"])


@dataclass(frozen=True)
class Question:
    """Who uploaded, with each one's signed head and its package for this holder."""

    holder: str
    uploaded: tuple[str, ...]
    heads: tuple[bytes, ...]
    packages: tuple[bytes, ...]


def write_question(context: RoundContext, question: Question, coordinator: PrivateKey) -> bytes:
    fields = {
        **_place(context, UNMASK_LABEL),
        "holder": question.holder,
        "uploaded": list(question.uploaded),
    }
    parts = []
    for head, package in zip(question.heads, question.packages, strict=True):
        parts += [len(head).to_bytes(4, "big"), head, package]
    return seal(UNMASK_LABEL, _joined(UNMASK_MAGIC, fields, b"".join(parts)), coordinator)


def read_question(data: bytes, context: RoundContext, holder: str, coordinator: PublicKey) -> Question:
    """The question. Raises IdentityError, StaleUpdate; UpdateError for a set that is no ordered part of the cohort."""
    head, body = _split(open_signed(UNMASK_LABEL, data, coordinator), UNMASK_MAGIC, MAX_UNMASK_HEAD)
    fields = _object(head)
    _require_place(fields, context, UNMASK_LABEL)
    names = fields.get("uploaded")
    if set(fields) != {"context", "holder", "label", "round", "run", "uploaded"} or not isinstance(names, list):
        raise UpdateError("expected a question as docs/SPEC.md has it, found other fields: write it anew")
    if fields["holder"] != holder:
        raise IdentityError("expected a question to this institution, found one to another: send each its own")
    if not all(isinstance(name, str) and name in context.limits for name in names) or names != sorted(set(names)):
        raise UpdateError("expected members of the cohort, each once and in order, found another set: name it anew")
    heads, packages = [], []
    for _ in names:
        length = int.from_bytes(body[:4], "big")
        end = 4 + length + package_bytes(context)
        if length > MAX_UPLOAD_HEAD or len(body) < end:
            raise UpdateError("expected a head and a package for each member of the set, found less: send it whole")
        heads.append(bytes(body[4 : 4 + length]))
        packages.append(bytes(body[4 + length : end]))
        body = body[end:]
    if body:
        raise UpdateError("expected a head and a package for each member of the set, found more: send it whole")
    return Question(holder, tuple(names), tuple(heads), tuple(packages))


def question_place(data: bytes, coordinator: PublicKey) -> tuple[str, int]:
    """Run and round of a question of the coordinator's. Raises IdentityError, UpdateError."""
    head, _ = _split(open_signed(UNMASK_LABEL, data, coordinator), UNMASK_MAGIC, MAX_UNMASK_HEAD)
    fields = _object(head)
    run, number = fields.get("run"), fields.get("round")
    if type(number) is not int or number < 1:
        raise UpdateError("expected a question's round, found something else: write it as docs/SPEC.md says")
    try:
        return require_run(run), number  # type: ignore[arg-type]
    except ConfigError as error:
        raise UpdateError(str(error)) from None


def own_place(data: bytes) -> tuple[str, int]:
    """Run and round of an upload, or of sealed shares, that was made here: for a log, nothing is verified.

    Needs the start of an upload alone. Raises UpdateError.
    """
    if data[:8] == UPLOAD_MAGIC:
        head = _split(data, UPLOAD_MAGIC, MAX_UPLOAD_HEAD)[0][HEAD_BYTES:]
    else:
        head = _split(data[HEAD_BYTES:], SHARES_MAGIC, MAX_SHARES_HEAD)[0]
    fields = _object(head)
    return str(fields.get("run")), int(fields.get("round") or 0)


def set_digest(uploaded: Sequence[str]) -> str:
    return hashlib.sha256(canonical({"uploaded": list(uploaded)})).hexdigest()


def revealed(context: RoundContext, uploaded: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """For each who uploaded, its neighbours who did not: whose masks with it are to be restored, as it dealt them."""
    there = set(uploaded)
    return {name: tuple(d for d in context.graph.neighbours(name) if d not in there) for name in uploaded}


def write_answer(
    context: RoundContext, name: str, uploaded: Sequence[str], shares: bytes, identity: PrivateKey
) -> bytes:
    fields = {**_place(context, SHARES_LABEL), "institution": name, "set": set_digest(uploaded)}
    return seal(SHARES_LABEL, _joined(SHARES_MAGIC, fields, shares), identity)


def read_answer(data: bytes, context: RoundContext, name: str, uploaded: Sequence[str], key: PublicKey) -> list[int]:
    """The shares in the order of ``revealed``. Raises IdentityError, StaleUpdate, UpdateError."""
    head, body = _split(open_signed(SHARES_LABEL, data, key), SHARES_MAGIC, MAX_SHARES_HEAD)
    fields = _object(head)
    _require_place(fields, context, SHARES_LABEL)
    if fields != {**_place(context, SHARES_LABEL), "institution": name, "set": set_digest(uploaded)}:
        raise UpdateError("expected shares of this institution for the set that was named, found others: ask it again")
    number = sum(1 + len(dropped) for dropped in revealed(context, uploaded).values())
    if len(body) != number * SHARE_BYTES:
        raise UpdateError(f"expected {number} shares, found {len(body)} bytes of them: ask the holder again")
    return read_shares(body)


def read_shares(data: bytes | memoryview) -> list[int]:
    shares = [int.from_bytes(piece, "big") for piece in _pieces(data, SHARE_BYTES)]
    if any(share >= PRIME for share in shares):
        raise UpdateError("expected shares below the field's prime, found a larger number: it was altered")
    return shares


def _place(context: RoundContext, label: str) -> dict[str, Any]:
    return {"context": context.digest.hex(), "label": label, "round": context.round, "run": context.run}


def _require_place(fields: Mapping[str, Any], context: RoundContext, label: str) -> None:
    place = _place(context, label)
    found = {name: fields.get(name) for name in place}
    if found["label"] != label or type(found["round"]) is not int:
        raise UpdateError(f'expected "{label}", found another message: send what docs/SPEC.md has here')
    if found != place:
        raise StaleUpdate(
            f'expected a message of run "{context.run}", round {context.round} and its context, found one of another: '
            "it came late, or two members were told different things"
        )


def _joined(magic: bytes, fields: Mapping[str, Any], body: bytes) -> bytes:
    head = canonical(fields)
    return b"".join((magic, len(head).to_bytes(4, "big"), head, body))


def _split(data: bytes | memoryview, magic: bytes, limit: int) -> tuple[bytes, memoryview]:
    length = int.from_bytes(data[8:12], "big")
    if data[:8] != magic or length > limit or len(data) < 12 + length:
        raise UpdateError(f"expected {magic.decode()} and a head within {limit} bytes, found something else: resend it")
    return bytes(data[12 : 12 + length]), memoryview(data)[12 + length :]


def _object(data: bytes) -> dict[str, Any]:
    try:
        return read_object(data, MAX_UNMASK_HEAD)
    except ConfigError as error:
        raise UpdateError(str(error)) from None


def _pieces(data: bytes | memoryview, width: int) -> list[bytes]:
    return [bytes(data[start : start + width]) for start in range(0, len(data), width)]
