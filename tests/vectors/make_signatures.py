"""Write signatures.json: signed bytes and documents, honest and hostile, each with the error class it must raise.

    python tests/vectors/make_signatures.py

Made from docs/SPEC.md and RFC 8032 with hashlib and json alone, so that the vectors check fedft/identity and not the
reverse. The keys are seeds that everyone knows: never use them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("signatures.json")
FIELD = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, FIELD) % FIELD
Point = tuple[int, int, int, int]
COORDINATOR, NORTH, SOUTH, STRANGER = (bytes([number]) * 32 for number in (1, 2, 3, 4))
NODE_NORTH = (
    "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBKqHyiK+iwU3jrHHHvMgrXRuHTtii6ebmF"
    "n3QeCCVCo4VQLyXb9VKWw6VF44cnYKtzYX3kqWJixvXZ6Yv5KS3Cn49B29KJoUfOnaMRO18LjACmCxzh1+gZ16Qx18kOoOXw=="
)
NODE_SOUTH = (
    "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBAjZmQV7o9LZaSYARcVbl/CJAllZpvQ01l"
    "HSB9GfuW6eT+Dobr4OZPhblqnHUpXfYY6A8fpbGzztt7/o3/1tunSyddh1vGzEPpBOUF8larQlX/1D6U054i1hUB5wCpQOgA=="
)
NODE_P256 = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoP"
    "ShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU="
)


def recovered(y: int, sign: int) -> int:
    square = (y * y - 1) * pow(D * y * y + 1, -1, FIELD) % FIELD
    x = pow(square, (FIELD + 3) // 8, FIELD)
    if (x * x - square) % FIELD:
        x = x * pow(2, (FIELD - 1) // 4, FIELD) % FIELD
    return FIELD - x if x % 2 != sign else x


GENERATOR_Y = 4 * pow(5, -1, FIELD) % FIELD
GENERATOR: Point = (
    recovered(GENERATOR_Y, 0), GENERATOR_Y, 1, recovered(GENERATOR_Y, 0) * GENERATOR_Y % FIELD
)  # fmt: skip


def added(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % FIELD, (p[1] + p[0]) * (q[1] + q[0]) % FIELD
    c, d = 2 * p[3] * q[3] * D % FIELD, 2 * p[2] * q[2] % FIELD
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % FIELD, g * h % FIELD, f * g % FIELD, e * h % FIELD


def times(number: int, p: Point) -> Point:
    q: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            q = added(q, p)
        p, number = added(p, p), number >> 1
    return q


def compressed(p: Point) -> bytes:
    inverse = pow(p[2], -1, FIELD)
    x, y = p[0] * inverse % FIELD, p[1] * inverse % FIELD
    return (y | (x & 1) << 255).to_bytes(32, "little")


def expanded(seed: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    return scalar & ~7 & (1 << 254) - 1 | 1 << 254, digest[32:]


def public(seed: bytes) -> bytes:
    return compressed(times(expanded(seed)[0], GENERATOR))


def text(seed: bytes) -> str:
    return f"ed25519:{public(seed).hex()}"


def ed25519(seed: bytes, message: bytes) -> bytes:
    """RFC 8032, 5.1.6."""
    scalar, prefix = expanded(seed)
    nonce = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % ORDER
    r = compressed(times(nonce, GENERATOR))
    k = int.from_bytes(hashlib.sha512(r + public(seed) + message).digest(), "little") % ORDER
    return r + ((nonce + k * scalar) % ORDER).to_bytes(32, "little")


def sign(seed: bytes, label: str, payload: bytes) -> bytes:
    return ed25519(seed, label.encode() + b"\n" + hashlib.sha256(payload).digest())


def sealed(seed: bytes, label: str, payload: bytes) -> bytes:
    return b"FEDFTSIG" + sign(seed, label, payload) + payload


def canonical(fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def document(fields: dict[str, Any], seeds: Sequence[bytes], label: str = "fedft/v1/roster") -> bytes:
    signatures = {text(seed): sign(seed, label, canonical(fields)).hex() for seed in seeds}
    return canonical({"signatures": signatures, "signed": fields}) + b"\n"


def turned(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


REQUEST, PAYLOAD = "fedft/v1/request", b"a plan"


def hostile_sealed() -> dict[str, bytes]:
    honest = sealed(COORDINATOR, REQUEST, PAYLOAD)
    s = int.from_bytes(honest[40:72], "little") + ORDER
    return {
        "empty": b"",
        "magic alone": b"FEDFTSIG",
        "one byte too short for a signature": honest[:71],
        "wrong magic": turned(honest, 0),
        "unsigned payload": PAYLOAD,
        "altered first byte of the signature": turned(honest, 8),
        "altered last byte of the signature": turned(honest, 71),
        "altered payload": turned(honest, 72),
        "payload cut short": honest[:-1],
        "a byte after the payload": honest + b"\x00",
        "signature of zeros": honest[:8] + bytes(64) + PAYLOAD,
        "S above the order of the group": honest[:40] + s.to_bytes(32, "little") + PAYLOAD,
        "signed by another key": sealed(STRANGER, REQUEST, PAYLOAD),
        "signed under another label": sealed(COORDINATOR, "fedft/v1/answer", PAYLOAD),
        "signed under the next version's label": sealed(COORDINATOR, "fedft/v2/request", PAYLOAD),
        "payload itself signed, not its digest": b"FEDFTSIG"
        + ed25519(COORDINATOR, REQUEST.encode() + b"\n" + PAYLOAD)
        + PAYLOAD,
        "signed without a label": b"FEDFTSIG" + ed25519(COORDINATOR, hashlib.sha256(PAYLOAD).digest()) + PAYLOAD,
    }


def member(name: str, seed: bytes, node: str) -> dict[str, str]:
    return {"name": name, "key": text(seed), "node_key": node}


MEMBERS = [member("north", NORTH, NODE_NORTH), member("south", SOUTH, NODE_SOUTH)]
ROSTER: dict[str, Any] = {
    "label": "fedft/v1/roster",
    "federation": "hospitals",
    "version": 7,
    "coordinator": text(COORDINATOR),
    "members": MEMBERS,
}


def roster(**changes: Any) -> bytes:
    fields = {**ROSTER, **changes}
    return document({key: value for key, value in fields.items() if value is not None}, [COORDINATOR])


def hostile_rosters() -> dict[str, bytes]:
    honest = roster()
    north, south = MEMBERS
    loose = {"signatures": {text(COORDINATOR): sign(COORDINATOR, "fedft/v1/roster", canonical(ROSTER)).hex()}}
    return {
        "empty": b"",
        "no JSON": honest[:-3],
        "a list": b"[]\n",
        "nested 3,000 deep": b"[" * 3000 + b"]" * 3000,
        "no line end": honest[:-1],
        "with white space": json.dumps({**loose, "signed": ROSTER}, sort_keys=True).encode() + b"\n",
        "keys not sorted": json.dumps({"signed": ROSTER, **loose}, separators=(",", ":")).encode() + b"\n",
        "a field twice": honest.replace(b'"version":7', b'"version":7,"version":7'),
        "NaN": honest.replace(b'"version":7', b'"version":NaN'),
        "not UTF-8": honest.replace(b"hospitals", b"hospital\xff"),
        "a third field beside": canonical({**loose, "signed": ROSTER, "note": "hello"}) + b"\n",
        "no signature": document(ROSTER, []),
        "five signatures": document(ROSTER, [bytes([number]) * 32 for number in (1, 5, 6, 7, 8)]),
        "signed by a stranger": document(ROSTER, [STRANGER]),
        "signed by a stranger too": document(ROSTER, [COORDINATOR, STRANGER]),
        "a stranger's own roster": document({**ROSTER, "coordinator": text(STRANGER)}, [STRANGER]),
        "naming a stranger as coordinator": roster(coordinator=text(STRANGER)),
        "altered version": honest.replace(b'"version":7', b'"version":8'),
        "altered member": honest.replace(b'"name":"north"', b'"name":"morth"'),
        "altered signature": turned(honest, honest.index(b'":"') + 3),
        "signature in capitals": honest.replace(
            sign(COORDINATOR, "fedft/v1/roster", canonical(ROSTER)).hex().encode(),
            sign(COORDINATOR, "fedft/v1/roster", canonical(ROSTER)).hex().upper().encode(),
        ),
        "signed under another label": document(ROSTER, [COORDINATOR], "fedft/v1/join"),
        "another document": document({**ROSTER, "label": "fedft/v1/join"}, [COORDINATOR], "fedft/v1/join"),
        "the next version's label": document({**ROSTER, "label": "fedft/v2/roster"}, [COORDINATOR], "fedft/v2/roster"),
        "a field missing": roster(federation=None),
        "a field too many": roster(expires="never"),
        "version below zero": roster(version=-1),
        "version true": roster(version=True),
        "version a float": roster(version=7.0),
        "version beyond 31 bits": roster(version=2**31),
        "federation a path": roster(federation="../hospitals"),
        "members an object": roster(members={"north": north}),
        "members not in order": roster(members=[south, north]),
        "a name twice": roster(members=[north, {**south, "name": "north"}]),
        "a key twice": roster(members=[north, {**south, "key": north["key"]}]),
        "a node key twice": roster(members=[north, {**south, "node_key": NODE_NORTH}]),
        "the coordinator as a member": roster(members=[{**north, "key": text(COORDINATOR)}]),
        "a member with a line break": roster(members=[{**north, "name": "north\n"}]),
        "a member with one field more": roster(members=[{**north, "data": "notes.jsonl"}]),
        "a key in capitals": roster(members=[{**north, "key": text(NORTH).upper()}]),
        "a key of small order": roster(members=[{**north, "key": f"ed25519:01{'00' * 31}"}]),
        "a node key with a comment": roster(members=[{**north, "node_key": f"{NODE_NORTH} me@north"}]),
        "a node key of another curve": roster(members=[{**north, "node_key": NODE_P256}]),
    }


def small_order() -> set[int]:
    """The y coordinates of the points of order 1, 2, 4 and 8: what the group's order times any point leaves."""
    found: set[int] = set()
    y = 1
    while len(found) < 5:
        y += 1
        x = recovered(y, 0)
        if (y * y - x * x - 1 - D * x * x * y * y) % FIELD == 0:
            left = times(ORDER, (x, y, 1, x * y % FIELD))
            found.add(left[1] * pow(left[2], -1, FIELD) % FIELD)
    return found


def refused_keys() -> dict[str, str]:
    small = small_order() | {FIELD, FIELD + 1}
    keys = {
        f"small order {number}": f"ed25519:{(y | sign_bit << 255).to_bytes(32, 'little').hex()}"
        for number, (y, sign_bit) in enumerate((y, bit) for y in sorted(small) for bit in (0, 1))
    }
    honest = text(NORTH)
    return {
        **keys,
        "empty": "",
        "without its kind": honest.removeprefix("ed25519:"),
        "another kind": honest.replace("ed25519", "ed448"),
        "one digit short": honest[:-1],
        "one digit more": f"{honest}0",
        "in capitals": f"ed25519:{public(NORTH).hex().upper()}",
        "with a line end": f"{honest}\n",
        "no hexadecimal": f"ed25519:{'g' * 64}",
    }


def vectors() -> dict[str, Any]:
    bad = "IdentityError"
    return {
        "coordinator": {"seed": COORDINATOR.hex(), "public": text(COORDINATOR)},
        "label": REQUEST,
        "sealed": {"payload": PAYLOAD.hex(), "hex": sealed(COORDINATOR, REQUEST, PAYLOAD).hex()},
        "hostile_sealed": [{"name": n, "raises": bad, "hex": data.hex()} for n, data in hostile_sealed().items()],
        "roster": {"fields": ROSTER, "file": roster().decode()},
        "hostile_rosters": [
            {"name": n, "raises": bad, "file": data.decode("latin-1")} for n, data in hostile_rosters().items()
        ],
        "hostile_keys": [{"name": n, "raises": "ConfigError", "text": key} for n, key in refused_keys().items()],
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(vectors(), indent=1) + "\n")
