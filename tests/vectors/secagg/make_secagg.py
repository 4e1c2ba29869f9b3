"""Write the vectors of secure aggregation: primitives, one whole round at three ring widths, a graph, hostile bytes.

    python tests/vectors/secagg/make_secagg.py

Made from docs/SPEC.md and the RFCs with hashlib, json and the ciphers of cryptography alone: X25519, HKDF, Shamir,
packing and graph are written out here. The keys are seeds that everyone knows: never use them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

FOLDER = Path(__file__).parent
P = 2**256 + 297
Fields = dict[str, Any]


def h(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def canonical(fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """RFC 5869."""
    key = hmac.digest(salt or bytes(32), secret, "sha256")
    block = output = b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        output += block
    return output[:length]


def x25519(scalar: bytes, u: bytes) -> bytes:
    """RFC 7748, section 5."""
    p = 2**255 - 19
    k = int.from_bytes(scalar, "little") & ~7 & (1 << 254) - 1 | 1 << 254
    x1 = int.from_bytes(u, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, x1, 1
    swap = 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap ^ bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a % p, c * b % p, a * a % p, b * b % p
        x3, z3 = (da + cb) ** 2 % p, x1 * (da - cb) ** 2 % p
        x2, z2 = aa * bb % p, (aa - bb) * (aa + 121665 * (aa - bb)) % p
    if swap:
        x2, z2 = x3, z3
    u2: int = x2 * pow(z2, p - 2, p) % p
    return u2.to_bytes(32, "little")


BASE = (9).to_bytes(32, "little")


def words(key: bytes, size: int, bits: int) -> list[int]:
    width = 2 if bits == 16 else 4
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(size * width))
    return [int.from_bytes(stream[at : at + width], "little") % 2**bits for at in range(0, len(stream), width)]


def packed(values: list[int], bits: int) -> bytes:
    total: int = sum(value % 2**bits << bits * place for place, value in enumerate(values))
    return total.to_bytes(-(-len(values) * bits // 8), "little")


def shares(polynomial: list[int], holders: int) -> list[int]:
    return [sum(c * x**power for power, c in enumerate(polynomial)) % P for x in range(1, holders + 1)]


NAMES = ["east", "north", "south", "west"]
COORDINATOR = b"\x01" * 32
IDENTITY = {name: bytes([16 + place]) * 32 for place, name in enumerate(NAMES)}
AGREEMENT = {name: bytes([32 + place]) * 32 for place, name in enumerate(NAMES)}
RUN, ROUND, THRESHOLD, DROPPED, SIZE = "run-1", 7, 3, "south", 11
STRANGER = b"\x7f" * 32


def public(seed: bytes) -> str:
    return f"ed25519:{Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()}"


def signature(seed: bytes, label: str, payload: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(label.encode() + b"\n" + h(payload))


def sealed(seed: bytes, label: str, payload: bytes) -> bytes:
    return b"FEDFTSIG" + signature(seed, label, payload) + payload


def framed(magic: bytes, head: bytes, body: bytes) -> bytes:
    return magic + len(head).to_bytes(4, "big") + head + body


def turned(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def key_message(name: str, key: bytes, run: str = RUN) -> bytes:
    return canonical({"institution": name, "key": key.hex(), "label": "fedft/v1/secagg-key", "run": run})


def key_list(keys: dict[str, bytes], signers: dict[str, bytes], run: str = RUN) -> bytes:
    entries = {
        name: {
            "key": key.hex(),
            "signature": signature(signers[name], "fedft/v1/secagg-key", key_message(name, key, run)).hex(),
        }
        for name, key in keys.items()
    }
    return canonical({"keys": entries, "label": "fedft/v1/secagg-keys", "run": run})


KEYS = {name: x25519(AGREEMENT[name], BASE) for name in NAMES}
KEYS_DIGEST = h(
    canonical({"keys": {n: k.hex() for n, k in KEYS.items()}, "label": "fedft/v1/secagg-keys", "run": RUN})
).hex()


@cache
def pair(i: str, j: str) -> bytes:
    parties = sorted([[i, KEYS[i].hex()], [j, KEYS[j].hex()]])
    info = canonical({"label": "fedft/v1/secagg-pair", "parties": parties, "run": RUN})
    return hkdf(x25519(AGREEMENT[i], KEYS[j]), b"", info)


class Round:
    """The round of NAMES at one ring width; ``south`` uploads nothing."""

    def __init__(self, bits: int, number: int = ROUND) -> None:
        self.bits, self.number = bits, number
        self.limit = (2 ** (bits - 1) - 1) // 4
        self.context = canonical(
            {
                "adapter_digest": h(b"adapter").hex(), "cohort": NAMES, "fraction_bits": 10,
                "keys_digest": KEYS_DIGEST, "label": "fedft/v1/secagg-context", "limits": [self.limit] * 4,
                "ring_bits": bits, "round": number, "run": RUN, "size": SIZE, "threshold": THRESHOLD,
            }
        )  # fmt: skip
        self.x = h(self.context)
        self.uploaded = [name for name in NAMES if name != DROPPED]
        self.place = {"context": self.x.hex(), "round": number, "run": RUN}

    def mask(self, i: str, j: str) -> bytes:
        return hkdf(pair(i, j), self.x, b"fedft/v1/secagg-mask")

    def values(self, i: str) -> list[int]:
        drawn = words(h(b"values" + i.encode()), SIZE, 32)
        return [self.limit, -self.limit, 0] + [d % (2 * self.limit + 1) - self.limit for d in drawn[3:]]

    def secrets(self, i: str) -> list[bytes]:
        return [h(b"own" + self.x + i.encode()), *(self.mask(i, j) for j in NAMES if j != i)]

    def masked(self, i: str) -> list[int]:
        own, *masks = self.secrets(i)
        total = [v + m for v, m in zip(self.values(i), words(own, SIZE, self.bits), strict=True)]
        for j, key in zip([j for j in NAMES if j != i], masks, strict=True):
            sign = 1 if j > i else -1
            total = [v + sign * m for v, m in zip(total, words(key, SIZE, self.bits), strict=True)]
        return [v % 2**self.bits for v in total]

    def coefficients(self, power: int) -> list[int]:
        """Of x^power, by secret: from a hash, for the vectors alone."""
        return [int.from_bytes(h(b"c%d,%d" % (place, power) + self.x), "big") for place in range(4)]

    def dealt(self, i: str) -> list[list[int]]:
        """Shares by secret, then by holder."""
        more = [self.coefficients(power) for power in range(1, THRESHOLD)]
        return [
            shares([int.from_bytes(secret, "big"), *(row[place] for row in more)], 4)
            for place, secret in enumerate(self.secrets(i))
        ]

    def package(self, i: str, holder: str, *, x: bytes | None = None) -> bytes:
        x = self.x if x is None else x
        number = NAMES.index(holder)
        plain = b"".join(by_holder[number].to_bytes(33, "big") for by_holder in self.dealt(i))
        key = hkdf(pair(i, holder), x, b"fedft/v1/secagg-share\n" + i.encode())
        nonce = h(b"nonce" + i.encode() + holder.encode())[:12]
        return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, x + f"{i}\n{holder}".encode())

    def commitments(self, i: str) -> list[bytes]:
        return [h(b"fedft/v1/secagg-commit\n" + self.x + secret) for secret in self.secrets(i)]

    def head(self, i: str, vector: bytes, rest: bytes, seed: bytes | None = None, **changed: Any) -> bytes:
        fields = {
            **self.place, "institution": i, "label": "fedft/v1/secagg-upload",
            "rest": h(rest).hex(), "vector": h(vector).hex(), **changed,
        }  # fmt: skip
        return sealed(seed or IDENTITY[i], "fedft/v1/secagg-upload", canonical(fields))

    def parts(self, i: str) -> tuple[bytes, bytes]:
        rest = b"".join([*self.commitments(i), *(self.package(i, holder) for holder in NAMES)])
        return packed(self.masked(i), self.bits), rest

    def upload(self, i: str) -> bytes:
        vector, rest = self.parts(i)
        return framed(b"FEDFTSAU", self.head(i, vector, rest), vector + rest)

    def question(
        self, holder: str, uploaded: list[str] | None = None, seed: bytes = COORDINATOR, **changed: Any
    ) -> bytes:
        uploaded = self.uploaded if uploaded is None else uploaded
        heads, named = changed.pop("heads", {}), changed.pop("named", holder)
        packages = changed.pop("packages", {})
        label = "fedft/v1/secagg-unmask"
        fields = {**self.place, "holder": named, "label": label, "uploaded": uploaded, **changed}
        body = b""
        for i in uploaded:
            known = i if i in NAMES else NAMES[0]
            head = heads.get(i, self.head(known, *self.parts(known)))
            body += len(head).to_bytes(4, "big") + head + packages.get(i, self.package(known, holder))
        return sealed(seed, label, framed(b"FEDFTSAQ", canonical(fields), body))

    def answer(self, holder: str, seed: bytes | None = None, extra: bytes = b"", **changed: Any) -> bytes:
        number, body = NAMES.index(holder), b""
        for i in self.uploaded:
            dealt = self.dealt(i)
            dropped = 1 + [j for j in NAMES if j != i].index(DROPPED)
            body += b"".join(dealt[place][number].to_bytes(33, "big") for place in (0, dropped))
        label = "fedft/v1/secagg-shares"
        members = h(canonical({"uploaded": self.uploaded})).hex()
        fields = {**self.place, "institution": holder, "label": label, "set": members, **changed}
        body = extra[1:] if extra.startswith(b"=") else body + extra
        return sealed(seed or IDENTITY[holder], label, framed(b"FEDFTSAS", canonical(fields), body))

    def vector(self) -> Fields:
        return {
            "ring_bits": self.bits,
            "context": self.context.decode(),
            "context_digest": self.x.hex(),
            "values": {i: self.values(i) for i in self.uploaded},
            "secrets": {i: [secret.hex() for secret in self.secrets(i)] for i in self.uploaded},
            "masked": {i: self.masked(i) for i in self.uploaded},
            "packed": {i: packed(self.masked(i), self.bits).hex() for i in self.uploaded},
            "commitments": {i: [c.hex() for c in self.commitments(i)] for i in self.uploaded},
            "coefficients": {
                i: [[f"{c:064x}" for c in self.coefficients(power)] for power in range(1, THRESHOLD)]
                for i in self.uploaded
            },
            "shares": {i: [[f"{share:066x}" for share in row] for row in self.dealt(i)] for i in self.uploaded},
            "packages": {i: [self.package(i, holder).hex() for holder in NAMES] for i in self.uploaded},
            "uploads": {i: self.upload(i).hex() for i in self.uploaded},
            "questions": {i: self.question(i).hex() for i in self.uploaded},
            "answers": {i: self.answer(i).hex() for i in self.uploaded},
            "sum": [sum(column) for column in zip(*(self.values(i) for i in self.uploaded), strict=True)],
        }


def case(name: str, data: bytes, raises: str) -> Fields:
    return {"name": name, "hex": data.hex(), "raises": raises}


def hostile_keys() -> list[Fields]:
    p = 2**255 - 19
    eight = 325606250916557431795983626356110631294008115727848805560023387167927233504
    eighth = 39382357235489614581723060781553021112529911719440698176882885853963445705823
    small = [0, 1, p - 1, p, p + 1, eight, eighth]
    found = [
        case(f"small order {place}", key_list({**KEYS, "west": u.to_bytes(32, "little")}, IDENTITY), "IdentityError")
        for place, u in enumerate([*small, *(u | 1 << 255 for u in small)])
    ]
    good = key_list(KEYS, IDENTITY)
    replaced = {**KEYS, "east": x25519(STRANGER, BASE)}
    entries = json.loads(good)
    entries["keys"]["north"], entries["keys"]["west"] = entries["keys"]["west"], entries["keys"]["north"]
    return [
        *found,
        case("a key twice", key_list({**KEYS, "west": KEYS["north"]}, IDENTITY), "IdentityError"),
        case("two entries swapped", canonical(entries), "IdentityError"),
        case("own key replaced", key_list(replaced, IDENTITY), "IdentityError"),
        case("signed by another", key_list(KEYS, {**IDENTITY, "west": STRANGER}), "IdentityError"),
        case(
            "a stranger's key",
            key_list({**KEYS, "xeno": x25519(STRANGER, BASE)}, {**IDENTITY, "xeno": STRANGER}),
            "IdentityError",
        ),
        case("of another run", key_list(KEYS, IDENTITY, "run-2"), "IdentityError"),
        case(
            "without this member", key_list({n: k for n, k in KEYS.items() if n != "east"}, IDENTITY), "IdentityError"
        ),
        case("altered byte in a signature", good.replace(b'"signature":"', b'"signature":"0', 1), "ConfigError"),
        case("not canonical", good.replace(b",", b", ", 1), "ConfigError"),
        case("deep nesting", b"[" * 5000, "ConfigError"),
        case("empty", b"", "ConfigError"),
    ]


def hostile_uploads(r: Round) -> list[Fields]:
    i = "north"
    vector, rest = r.parts(i)
    good = r.upload(i)
    another = Round(r.bits, ROUND + 1)
    long, short = packed([*r.masked(i), 1], r.bits), packed(r.masked(i)[:-1], r.bits)

    def made(head: bytes, body: bytes) -> bytes:
        return framed(b"FEDFTSAU", head, body)

    return [
        case("of another round", another.upload(i), "StaleUpdate"),
        case("of another context", made(r.head(i, vector, rest, context="0" * 64), vector + rest), "StaleUpdate"),
        case("round true", made(r.head(i, vector, rest, round=True), vector + rest), "UpdateError"),
        case("of another ring", Round(24).upload(i), "StaleUpdate"),
        case("one value more", made(r.head(i, long, rest), long + rest), "UpdateError"),
        case("one value less", made(r.head(i, short, rest), short + rest), "UpdateError"),
        case("another's name", made(r.head(i, vector, rest, institution="west"), vector + rest), "IdentityError"),
        case("signed by a stranger", made(r.head(i, vector, rest, STRANGER), vector + rest), "IdentityError"),
        case("another's upload", r.upload("west"), "IdentityError"),
        case("a field too many", made(r.head(i, vector, rest, examples=9), vector + rest), "UpdateError"),
        case("vector altered", turned(good, len(good) - len(rest) - 2), "UpdateError"),
        case("share altered", turned(good, -1), "UpdateError"),
        case("signature altered", turned(good, 30), "IdentityError"),
        case("bits after the last value", bits_set(r, i), "UpdateError"),
        case("cut short", good[:-1], "UpdateError"),
        case("a byte more", good + b"\0", "UpdateError"),
        case("another magic", b"FEDFTSAV" + good[8:], "UpdateError"),
        case("a head as long as 2^32", good[:8] + b"\xff" * 4 + good[12:], "UpdateError"),
        case("empty", b"", "UpdateError"),
    ]


def bits_set(r: Round, i: str) -> bytes:
    vector, rest = r.parts(i)
    vector = vector[:-1] + bytes([vector[-1] | 0x80])
    return framed(b"FEDFTSAU", r.head(i, vector, rest), vector + rest)


def hostile_questions(r: Round) -> list[Fields]:
    """To east, which uploaded."""
    north = r.head("north", *r.parts("north"))
    altered = turned(r.package("north", "east"), -1)
    fake = r.head("south", b"", b"", STRANGER)
    another = Round(r.bits, ROUND + 1)
    return [
        case("below the threshold", r.question("east", ["east", "north"]), "QuorumNotReached"),
        case("nobody", r.question("east", []), "QuorumNotReached"),
        case("without this member", r.question("east", ["north", "south", "west"]), "UpdateError"),
        case("a member twice", r.question("east", ["east", "north", "north", "west"]), "UpdateError"),
        case("out of order", r.question("east", ["north", "east", "west"]), "UpdateError"),
        case("a stranger", r.question("east", ["east", "north", "west", "xeno"]), "UpdateError"),
        case("one that did not upload", r.question("east", NAMES, heads={"south": fake}), "IdentityError"),
        case("one's head for another", r.question("east", NAMES, heads={"south": north}), "IdentityError"),
        case(
            "a head of another round",
            r.question("east", heads={"north": another.head("north", *another.parts("north"))}),
            "StaleUpdate",
        ),
        case("a package altered", r.question("east", packages={"north": altered}), "IdentityError"),
        case(
            "a package of another member",
            r.question("east", packages={"north": r.package("west", "east")}),
            "IdentityError",
        ),
        case(
            "a package for another holder",
            r.question("east", packages={"north": r.package("north", "west")}),
            "IdentityError",
        ),
        case(
            "a package of another round",
            r.question("east", packages={"north": another.package("north", "east")}),
            "IdentityError",
        ),
        case(
            "a package sealed in another context",
            r.question("east", packages={"north": r.package("north", "east", x=another.x)}),
            "IdentityError",
        ),
        case("signed by a member", r.question("east", seed=IDENTITY["west"]), "IdentityError"),
        case("to another holder", r.question("north"), "IdentityError"),
        case("with another holder's name", r.question("east", named="north"), "IdentityError"),
        case("of another round", another.question("east"), "StaleUpdate"),
        case("of another run", r.question("east", run="run-2"), "StaleUpdate"),
        case("a field too many", r.question("east", dead=["south"]), "UpdateError"),
        case(
            "an upload's label", sealed(COORDINATOR, "fedft/v1/secagg-upload", r.question("east")[72:]), "IdentityError"
        ),
        case("cut short", sealed(COORDINATOR, "fedft/v1/secagg-unmask", r.question("east")[72:-1]), "UpdateError"),
        case(
            "a byte more", sealed(COORDINATOR, "fedft/v1/secagg-unmask", r.question("east")[72:] + b"\0"), "UpdateError"
        ),
        case("altered byte", turned(r.question("east"), -1), "IdentityError"),
        case("empty", b"", "IdentityError"),
    ]


def hostile_answers(r: Round) -> list[Fields]:
    """Of north."""
    large = b"=" + b"\xff" * 6 * 33
    return [
        case("of another set", r.answer("north", set="0" * 64), "UpdateError"),
        case("of another round", Round(r.bits, ROUND + 1).answer("north"), "StaleUpdate"),
        case("signed by another", r.answer("north", IDENTITY["west"]), "IdentityError"),
        case("another's", r.answer("west"), "IdentityError"),
        case("another's name", r.answer("north", institution="west"), "UpdateError"),
        case("a share more", r.answer("north", extra=bytes(33)), "UpdateError"),
        case("a share beyond the prime", r.answer("north", extra=large), "UpdateError"),
        case("altered", turned(r.answer("north"), -1), "IdentityError"),
        case("empty", b"", "IdentityError"),
    ]


def hostile_contexts(r: Round) -> list[Fields]:
    def of(**changed: Any) -> bytes:
        return canonical({**json.loads(r.context), **changed})

    over = [r.limit + 4, r.limit, r.limit, r.limit]
    return [
        case("a sum that could wrap", of(limits=over), "ConfigError"),
        case("a ring of 15 bits", of(ring_bits=15, limits=[1] * 4), "ConfigError"),
        case("a ring of 33 bits", of(ring_bits=33), "ConfigError"),
        case("a threshold of two thirds", of(threshold=2), "ConfigError"),
        case("a threshold above the cohort", of(threshold=5), "ConfigError"),
        case("two members", of(cohort=NAMES[:2], limits=[1, 1], threshold=2), "ConfigError"),
        case("a member twice", of(cohort=["east", "east", "north", "west"]), "ConfigError"),
        case("out of order", of(cohort=["north", "east", "south", "west"]), "ConfigError"),
        case("more limits than members", of(limits=[1] * 5), "ConfigError"),
        case("a limit of 0", of(limits=[0, 1, 1, 1]), "ConfigError"),
        case("round 0", of(round=0), "ConfigError"),
        case("no values", of(size=0), "ConfigError"),
        case("a field too many", of(weights=[1] * 4), "ConfigError"),
        case("not canonical", r.context + b" ", "ConfigError"),
    ]


def graph(n: int, k: int, m: int) -> Fields:
    names = [f"m{number:03d}" for number in range(n)]
    digest = h(b"keys").hex()
    seed = h(
        b"fedft/v1/secagg-graph\n" + bytes.fromhex(digest) + ROUND.to_bytes(4, "big") + h(canonical({"cohort": names}))
    )
    ring = sorted(names, key=lambda name: h(seed + b"ring\n" + name.encode()))
    holders = sorted(sorted(names, key=lambda name: h(seed + b"holder\n" + name.encode()))[:m])
    near = {
        name: sorted(ring[(ring.index(name) + step) % n] for step in range(-k // 2, k // 2 + 1) if step)
        for name in names[:3]
    }
    return {"members": n, "keys_digest": digest, "round": ROUND, "holders": holders, "neighbours": near}


PLAIN = (
    "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
)
CIPHERTEXT = (
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b29"
    "05d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b"
    "61161ae10b594f09e26a7e902ecbd0600691"
)


def primitives() -> Fields:
    """RFC 7748 section 5.2; RFC 5869 A.1 and A.3; RFC 8439 section 2.8.2."""
    return {
        "x25519": [
            {
                "scalar": "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "u": "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "shared": "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            },
            {
                "scalar": "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "u": "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "shared": "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            },
        ],
        "hkdf": [
            {
                "secret": "0b" * 22,
                "salt": bytes(range(13)).hex(),
                "info": bytes(range(0xF0, 0xFA)).hex(),
                "key": "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            },
            {
                "secret": "0b" * 22,
                "salt": "",
                "info": "",
                "key": "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            },
        ],
        "aead": [
            {
                "key": bytes(range(0x80, 0xA0)).hex(),
                "nonce": "070000004041424344454647",
                "associated": "50515253c0c1c2c3c4c5c6c7",
                "plain": PLAIN.encode().hex(),
                "sealed": CIPHERTEXT,
            }
        ],
    }


def everything() -> dict[str, Any]:
    """The content of each file, by name."""
    r = Round(21)
    return {
        "primitives": primitives(),
        "graph": [graph(40, 39, 40), graph(150, 70, 64)],
        "round": {
            "run": RUN,
            "round": ROUND,
            "coordinator": public(COORDINATOR),
            "identities": {name: public(seed) for name, seed in IDENTITY.items()},
            "seeds": {name: seed.hex() for name, seed in {**IDENTITY, "": COORDINATOR}.items()},
            "agreement": {name: seed.hex() for name, seed in AGREEMENT.items()},
            "keys": {name: key.hex() for name, key in KEYS.items()},
            "key_messages": {
                name: sealed(IDENTITY[name], "fedft/v1/secagg-key", key_message(name, KEYS[name])).hex()
                for name in NAMES
            },
            "key_list": key_list(KEYS, IDENTITY).decode(),
            "keys_digest": KEYS_DIGEST,
            "pairs": {f"{i} {j}": pair(i, j).hex() for i in NAMES for j in NAMES if i <= j},
            "rings": [Round(bits).vector() for bits in (16, 21, 32)],
        },
        "hostile": {
            "key_lists": hostile_keys(),
            "contexts": hostile_contexts(r),
            "uploads": hostile_uploads(r),
            "questions": hostile_questions(r),
            "answers": hostile_answers(r),
        },
    }


if __name__ == "__main__":
    for name, content in everything().items():
        FOLDER.joinpath(f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
