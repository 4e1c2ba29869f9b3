"""A cohort that everyone knows, one round of it as docs/SPEC.md says, and a graph. Its keys: never use them."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from own_primitives import BASE, Fields, canonical, framed, h, hkdf, packed, sealed, shares, signature, words, x25519

NAMES = ["east", "north", "south", "west"]
COORDINATOR = b"\x01" * 32
IDENTITY = {name: bytes([16 + place]) * 32 for place, name in enumerate(NAMES)}
AGREEMENT = {name: bytes([32 + place]) * 32 for place, name in enumerate(NAMES)}
RUN, ROUND, THRESHOLD, DROPPED, SIZE = "run-1", 7, 3, "south", 11
STRANGER = b"\x7f" * 32


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
