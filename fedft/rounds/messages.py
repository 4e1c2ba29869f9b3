"""What crosses between coordinator and institution, as bytes. Form: docs/SPEC.md, "Messages between coordinator and
institution". Hostile vectors: tests/vectors/messages/.

::

    request   magic "FEDFTREQ" (8) | header length, uint32 big-endian (4) | header, canonical JSON | body, safetensors
    answer    an update envelope, a masked upload, shares of masks (docs/SPEC.md, "Secure aggregation"), or
              magic "FEDFTREF" (8) | refusal, canonical JSON;
              before it perhaps magic "FEDFTATT" (8) | length, uint32 big-endian (4) | attestation, a signed note
    roll call question and reply, notice: canonical JSON

Guarantee: a decoder allocates nothing in proportion to a size that the bytes claim, runs no parser on a body, and
returns what its encoder was given or raises; an error holds nothing of what was sent.

Across organisations these bytes travel signed under the labels below (fedft/identity/signed.py); in a simulation bare.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from typing import Any

import numpy as np

from fedft.errors import ConfigError, StaleUpdate, UpdateError
from fedft.identity.documents import canonical
from fedft.identity.notes import MAX_NOTE
from fedft.identity.signed import MAGIC as SIGNED_MAGIC
from fedft.randomness import secure_bytes
from fedft.rounds.plan import RoundPlan, RoundRequest, terms_digest
from fedft.secagg.context import require_run
from fedft.secagg.messages import UPLOAD_MAGIC
from fedft.types import AdapterVector
from fedft.update.envelope import MAGIC as UPDATE_MAGIC
from fedft.update.envelope import require_identity
from fedft.update.release import REASONS, Refusal
from fedft.update.wire import BLOCK, Encoding, read_body, write_body

REQUEST_LABEL = "fedft/v1/request"
ANSWER_LABEL = "fedft/v1/answer"
ROLL_CALL_LABEL = "fedft/v1/roll-call"
RECEIPT_LABEL = "fedft/v1/receipt"
"""Under these a request, an answer (update or refusal), and question and reply of roll call and notice are signed."""

REFUSAL_LABEL = "fedft/v1/refusal"
TERMS_LABEL = "fedft/v1/terms"
REQUEST_MAGIC = b"FEDFTREQ"
REFUSAL_MAGIC = b"FEDFTREF"
ATTESTED_MAGIC = b"FEDFTATT"
MAX_REQUEST_HEADER = 2 * 2**20
MAX_SMALL = 4096
"""Bytes of a refusal, of a roll call's question or reply, or of a notice."""
MAX_ATTESTATION = len(ATTESTED_MAGIC) + 4 + MAX_NOTE
"""Bytes before an answer."""

_START = len(REQUEST_MAGIC) + 4
_TENSOR = "adapter"
_LONGEST_TENSOR_HEAD = 256
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_SAME_VERSION = "use the same version of fedft on both sides"


def encode_request(request: RoundRequest, terms: str) -> bytes:
    """What an institution is asked. Raises ConfigError when the plan's terms_digest is not that of ``terms``."""
    _require_terms(request.plan, terms)
    body = write_body(_TENSOR, request.adapter, request.plan.encoding)
    fields = {
        "label": REQUEST_LABEL,
        "plan": request.plan.as_json(),
        "terms": terms,
        "keys": request.keys.decode("ascii"),
        "head": request.head,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    header = canonical(fields)
    if len(header) > MAX_REQUEST_HEADER:
        raise ConfigError(
            f"expected plan and terms of at most {MAX_REQUEST_HEADER} bytes, found {len(header)}: "
            "use fewer institutions or shorter names and labels"
        )
    return REQUEST_MAGIC + struct.pack(">I", len(header)) + header + body


def decode_request(data: bytes) -> tuple[RoundRequest, str]:
    """The request and the text of its terms. Raises ConfigError for anything that encode_request does not make.

    The adapter is finite, and the plan's terms_digest is that of the terms; whether the plan's other words fit the
    adapter and the model is for rounds.institution to say.
    """
    fields, start = _request_header(data)
    plan, terms = RoundPlan.from_json(fields["plan"]), fields["terms"]
    _require_terms(plan, terms)
    adapter = _adapter(memoryview(data)[start:], fields["sha256"], plan.encoding)
    if not fields["keys"].isascii() or bool(fields["keys"]) != bool(plan.masking):
        raise ConfigError(
            "expected the list of keys with a plan that masks, and only there, found another: resend both"
        )
    return RoundRequest(plan, adapter, fields["keys"].encode(), fields["head"]), terms


def decode_terms(text: str) -> dict[str, Any]:
    """The terms that came with a request. Raises ConfigError unless they are one canonical JSON object of this version.

    What they say is for the institution's policy to judge.
    """
    fields = _canonical_object(text.encode()) if text.isascii() else None
    if fields is None or fields.get("label") != TERMS_LABEL:
        raise ConfigError(f"expected terms of {TERMS_LABEL} in canonical JSON, found something else: {_SAME_VERSION}")
    return fields


def encode_answer(answer: bytes | Refusal) -> bytes:
    """A stored update as it is; a refusal in its own form."""
    if isinstance(answer, bytes):
        return answer
    named = {"institution": answer.institution, "run": answer.run, "round": answer.round, "reason": answer.reason}
    return REFUSAL_MAGIC + canonical({"label": REFUSAL_LABEL, **named})


def decode_answer(data: bytes) -> bytes | Refusal:
    """The bytes of an update, plain or masked, or of shares, which are not opened here, or a refusal.

    An attestation before it is left out. Raises UpdateError for anything else.
    """
    data = split_attestation(data)[1]
    if data.startswith((UPDATE_MAGIC, UPLOAD_MAGIC, SIGNED_MAGIC)):
        return data
    if data.startswith(REFUSAL_MAGIC) and len(data) <= MAX_SMALL:
        fields = _canonical_object(data[len(REFUSAL_MAGIC) :])
        if fields is not None and fields.pop("label", None) == REFUSAL_LABEL and fields.keys() == _REFUSAL_KEYS:
            reason = fields["reason"]
            if isinstance(reason, str) and reason in REASONS:
                return Refusal(**fields)
    raise UpdateError(f"expected an update or a refusal, found another answer: {_SAME_VERSION}")


def with_attestation(note: str, answer: bytes) -> bytes:
    """``answer`` as encode_answer made it, behind what its sender signed beside it."""
    encoded = note.encode()
    return ATTESTED_MAGIC + struct.pack(">I", len(encoded)) + encoded + answer


def split_attestation(data: bytes) -> tuple[str, bytes]:
    """The note before an answer, not verified, and the answer; "" where there is none. Raises UpdateError."""
    if not data.startswith(ATTESTED_MAGIC):
        return "", data
    start = len(ATTESTED_MAGIC) + 4
    length = int.from_bytes(data[len(ATTESTED_MAGIC) : start], "big")
    if len(data) < start or not 0 < length <= MAX_NOTE or len(data) < start + length:
        raise UpdateError(f"expected an attestation of at most {MAX_NOTE} bytes, found another length: {_SAME_VERSION}")
    try:
        return data[start : start + length].decode(), data[start + length :]
    except UnicodeDecodeError:
        raise UpdateError(f"expected the text of an attestation, found something else: {_SAME_VERSION}") from None


def encode_notice(run: str, head: str) -> bytes:
    """The signed head of a log, to those who take part in no further round."""
    return canonical({"label": RECEIPT_LABEL, "run": run, "head": head})


def decode_notice(data: bytes) -> tuple[str, str]:
    """Run and signed head, not verified. Raises ConfigError for anything that encode_notice does not make."""
    fields = _canonical_object(data) if len(data) <= MAX_SMALL else None
    texts = fields is not None and all(isinstance(value, str) for value in fields.values())
    if fields is None or not texts or fields.keys() != {"label", "run", "head"} or fields["label"] != RECEIPT_LABEL:
        raise ConfigError(f"expected a notice of {RECEIPT_LABEL}, found something else: {_SAME_VERSION}")
    return fields["run"], fields["head"]


def fresh_nonce() -> str:
    """256 random bits, as the 64 hexadecimal digits of a roll call's question."""
    return secure_bytes(32).hex()


def encode_question(nonce: str, setup: str = "") -> bytes:
    """The roll call's question: who are you, and, where updates are masked, what is your key for ``setup``?"""
    return canonical({"label": ROLL_CALL_LABEL, "nonce": nonce, "setup": setup})


def decode_question(data: bytes) -> tuple[str, str]:
    """The nonce to answer with, and the setup. Raises ConfigError for anything that encode_question does not make."""
    fields = _roll_call(data, {"label", "nonce", "setup"})
    if fields is None or not isinstance(fields["setup"], str):
        raise ConfigError(f"expected the question of a roll call, found something else: {_SAME_VERSION}")
    return str(fields["nonce"]), require_run(fields["setup"]) if fields["setup"] else ""


def encode_presence(nonce: str, institution: str, key: bytes = b"") -> bytes:
    """The roll call's reply: this question's nonce, a name, and the key that the question asks for, sealed."""
    fields = {"label": ROLL_CALL_LABEL, "nonce": nonce, "institution": institution, "key": key.hex()}
    return canonical(fields)


def decode_presence(data: bytes, *, nonce: str) -> tuple[str, bytes]:
    """The name and the key that a reply gives; the key is not opened here.

    Raises
    ------
    UpdateError
        For anything that encode_presence does not make.
    StaleUpdate
        A reply to another question: one that was sent before is no sign of who is there now.
    """
    fields = _roll_call(data, {"label", "nonce", "institution", "key"})
    if fields is None or not isinstance(fields["key"], str) or not _HEX.fullmatch(fields["key"]):
        raise UpdateError(f"expected the reply to a roll call, found something else: {_SAME_VERSION}")
    require_identity(run="roll-call", round=1, institution=fields["institution"])
    if fields["nonce"] != nonce:
        raise StaleUpdate("expected a reply to this roll call's question, found one to another: answer the newest")
    return str(fields["institution"]), bytes.fromhex(fields["key"])


_REFUSAL_KEYS = frozenset({"institution", "run", "round", "reason"})


def _request_header(data: bytes) -> tuple[dict[str, str], int]:
    """The checked header, all text, and where the body starts."""
    if len(data) < _START or not data.startswith(REQUEST_MAGIC):
        raise ConfigError(f'expected a request starting with "{REQUEST_MAGIC.decode()}", found other bytes: refused')
    (length,) = struct.unpack_from(">I", data, len(REQUEST_MAGIC))
    if length > MAX_REQUEST_HEADER:
        raise ConfigError(
            f"expected a header of at most {MAX_REQUEST_HEADER} bytes, found a claim of {length}: refused"
        )
    if len(data) < _START + length:
        raise ConfigError(f"expected {_START + length} bytes of head, found {len(data)}: send the request again")
    fields = _canonical_object(data[_START : _START + length])
    known = fields is not None and fields.keys() == {"label", "plan", "terms", "keys", "head", "sha256"}
    if not known or fields is None or not all(isinstance(value, str) for value in fields.values()):
        raise ConfigError(
            f"expected label, plan, terms, keys, head and sha256 in canonical JSON, found others: {_SAME_VERSION}"
        )
    if fields["label"] != REQUEST_LABEL:
        raise ConfigError(f'expected label "{REQUEST_LABEL}", found another: {_SAME_VERSION}')
    return fields, _START + length


def _adapter(body: memoryview, sha256: str, encoding: Encoding) -> AdapterVector:
    """float32, shape (d,), a copy of its own. d follows from the length of the body, never from what it claims."""
    if hashlib.sha256(body).hexdigest() != sha256:
        raise ConfigError("expected the body that the header's SHA-256 names, found another: send the request again")
    try:
        adapter = read_body(body, _TENSOR, _size(body, encoding), encoding)
    except UpdateError as error:
        raise ConfigError(str(error)) from None
    if not np.isfinite(adapter).all():
        raise ConfigError("expected a finite adapter to start from, found NaN or infinity: send another")
    return adapter


def _size(body: memoryview, encoding: Encoding) -> int:
    """The only number of values for which a body may be this long; 0 where there is none."""
    head = 8 + int.from_bytes(body[:8], "little") if len(body) >= 8 else 0
    values = len(body) - head
    if not 8 < head <= _LONGEST_TENSOR_HEAD or values < 0:
        return 0
    return values // 4 if encoding == "float32" else values * BLOCK // (BLOCK + 1)


def _require_terms(plan: RoundPlan, terms: str) -> None:
    if not terms.isascii() or terms_digest(terms) != plan.terms_digest:
        raise ConfigError("expected the terms that the plan's terms_digest names, found others: send both again")


def _roll_call(data: bytes, keys: set[str]) -> dict[str, Any] | None:
    """The fields of a question or reply whose nonce has its form; None for anything else."""
    fields = _canonical_object(data) if len(data) <= MAX_SMALL else None
    if fields is None or fields.keys() != keys or fields["label"] != ROLL_CALL_LABEL:
        return None
    nonce = fields["nonce"]
    return fields if isinstance(nonce, str) and _DIGEST.fullmatch(nonce) else None


def _canonical_object(encoded: bytes) -> dict[str, Any] | None:
    """The object that these bytes are the canonical JSON of; None for any others."""
    try:
        raw = json.loads(encoded)
        whole = isinstance(raw, dict) and canonical(raw) == encoded
    except (ValueError, RecursionError):
        return None
    return raw if whole else None
