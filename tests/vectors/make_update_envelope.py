"""Write update_envelope.json: hostile model updates, each with the error class it must raise.

    python tests/vectors/make_update_envelope.py

Made from docs/SPEC.md with struct, json and hashlib alone, so that the vectors check fedft/update and not the reverse.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("update_envelope.json")
BASE = "b" * 64
TENSORS = [["q.lora_B", [2, 1], "lora_B"], ["head.bias", [2], "head"]]
LAYOUT_DIGEST = hashlib.sha256(
    json.dumps(["fedft/v1/adapter-layout", BASE, "2.0", *TENSORS], separators=(",", ":")).encode()
).hexdigest()
PLAN = "a1" * 32
CONTEXT: dict[str, Any] = {
    "run": "hospitals-1",
    "round": 7,
    "plan_digest": PLAN,
    "base_digest": BASE,
    "scaling": 2.0,
    "tensors": TENSORS,
    "max_norm": 10.0,
    "cohort": ["st-anna", "charite", "riverside"],
    "seen": ["charite"],
    "sender": None,
}
VALUES = [0.5, -0.25, 1.0, 2.0]


def body(values: list[float] = VALUES, **changes: Any) -> bytes:
    """A safetensors file; ``changes`` replace entries of the one tensor's description."""
    data = struct.pack(f"<{len(values)}f", *values)
    entry = {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)], **changes}
    return safetensors({"delta": entry}, data)


def safetensors(table: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def fields(of: bytes, **changes: Any) -> dict[str, Any]:
    made = {
        "label": "fedft/v1/update",
        "run": CONTEXT["run"],
        "round": CONTEXT["round"],
        "institution": "st-anna",
        "plan_digest": PLAN,
        "layout_digest": LAYOUT_DIGEST,
        "dtype": "float32",
        "sha256": hashlib.sha256(of).hexdigest(),
    }
    made.update(changes)
    return {key: value for key, value in made.items() if value is not None}


def canonical(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def framed(header: bytes, of: bytes, *, magic: bytes = b"FEDFTUPD", length: int | None = None) -> bytes:
    return magic + struct.pack(">I", len(header) if length is None else length) + header + of


def update(of: bytes | None = None, **changes: Any) -> bytes:
    of = body() if of is None else of
    return framed(canonical(fields(of, **changes)), of)


def cases() -> dict[str, tuple[bytes, str]]:
    plain = body()
    header = canonical(fields(plain))
    two = struct.pack("<5f", *VALUES, 9.0)
    extra = safetensors(
        {
            "delta": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "extra": {"dtype": "F32", "shape": [1], "data_offsets": [16, 20]},
        },
        two,
    )
    huge = 2**40
    pickle = b"\x80\x04\x95\x1c" + bytes(7) + b"\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."
    bad = "UpdateError"
    return {
        "empty": (b"", bad),
        "a pickle": (pickle, bad),
        "wrong magic": (framed(header, plain, magic=b"FEDFTUPE"), bad),
        "header length claims 4 GiB": (framed(header, plain, length=2**32 - 1), bad),
        "header one byte over the limit": (framed(b" " * 4097, plain), bad),
        "header length past the end": (framed(header, b"", length=len(header) + 1), bad),
        "header length zero": (framed(b"", header + plain), bad),
        "header with whitespace": (framed(json.dumps(fields(plain), sort_keys=True).encode(), plain), bad),
        "header keys not sorted": (framed(json.dumps(fields(plain), separators=(",", ":")).encode(), plain), bad),
        "header with a key twice": (framed(header.replace(b'"round":7', b'"round":7,"round":7'), plain), bad),
        "header not JSON": (framed(header[:-1], plain), bad),
        "header not UTF-8": (framed(header.replace(b"st-anna", b"st-\xff\xfe"), plain), bad),
        "header a list": (framed(b"[]", plain), bad),
        "header nested 2,000 deep": (framed(b"[" * 2000 + b"]" * 2000, plain), bad),
        "header with NaN": (framed(header.replace(b'"round":7', b'"round":NaN'), plain), bad),
        "unknown version": (update(label="fedft/v2/update"), bad),
        "label of another format": (update(label="fedft/v1/adapter-layout"), bad),
        "no label": (update(label=None), bad),
        "field missing": (update(plan_digest=None), bad),
        "field too many": (update(examples=1200), bad),
        "round as text": (update(round="7"), bad),
        "round true": (update(round=True), bad),
        "round a float": (update(round=7.0), bad),
        "round zero": (update(round=0), bad),
        "round beyond 31 bits": (update(round=2**31), bad),
        "institution with a line break": (update(institution="st-anna\nERROR"), bad),
        "institution a path": (update(institution="../charite"), bad),
        "run too long": (update(run="r" * 129), bad),
        "digest in capitals": (update(plan_digest=PLAN.upper()), bad),
        "dtype float16": (update(dtype="float16"), bad),
        "body sha mismatch": (update(sha256="0" * 64), bad),
        "body with one bit turned": (framed(header, plain[:-1] + bytes([plain[-1] ^ 1])), bad),
        "body with an extra tensor": (update(extra), bad),
        "body tensor of another name": (update(plain.replace(b"delta", b"delto")), bad),
        "body dtype F16": (update(body(dtype="F16", data_offsets=[0, 8])), bad),
        "body dtype I32": (update(body(dtype="I32")), bad),
        "body shape 2 x 2": (update(body(shape=[2, 2])), bad),
        "size lie: shape of 2^40 values": (update(body(shape=[huge], data_offsets=[0, 4 * huge])), bad),
        "size lie: offsets past the end": (update(body(data_offsets=[0, 4096])), bad),
        "size lie: body header of 2^62 bytes": (update(struct.pack("<Q", 2**62) + plain[8:]), bad),
        "one value too few": (update(body(VALUES[:3])), bad),
        "one value too many": (update(body([*VALUES, 1.0])), bad),
        "no values": (update(body([])), bad),
        "no body": (update(b""), bad),
        "a byte after the end": (update() + b"\x00", bad),
        "unknown institution": (update(institution="mallory"), bad),
        "other run": (update(run="banks-1"), "StaleUpdate"),
        "stale round": (update(round=6), "StaleUpdate"),
        "round to come": (update(round=8), "StaleUpdate"),
        "another plan of the round": (update(plan_digest="c3" * 32), "StaleUpdate"),
        "duplicate": (update(institution="charite"), "StaleUpdate"),
        "wrong layout": (update(layout_digest="d4" * 32), "LayoutMismatch"),
        "wrong layout and its size": (update(body([1.0] * 9), layout_digest="d4" * 32), "LayoutMismatch"),
        "NaN": (update(body([0.5, float("nan"), 1.0, 2.0])), "NonFiniteUpdate"),
        "infinity": (update(body([0.5, 1.0, 1.0, float("inf")])), "NonFiniteUpdate"),
        "minus infinity": (update(body([float("-inf"), 1.0, 1.0, 0.0])), "NonFiniteUpdate"),
        "giant norm": (update(body([6.0, 8.0, 1.0, 0.0])), "UpdateTooLarge"),
        "norm whose square overflows float32": (update(body([3e38, 3e38, 3e38, 3e38])), "UpdateTooLarge"),
    }


def vectors() -> dict[str, Any]:
    hostile = [{"name": name, "raises": error, "hex": data.hex()} for name, (data, error) in cases().items()]
    return {"context": CONTEXT, "valid": {"hex": update().hex(), "values": VALUES}, "hostile": hostile}


if __name__ == "__main__":
    TARGET.write_text(json.dumps(vectors(), indent=1) + "\n")
