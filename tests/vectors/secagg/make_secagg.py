"""Write the vectors of secure aggregation: primitives, one whole round at three ring widths, a graph, hostile bytes.

    python tests/vectors/secagg/make_secagg.py

Made from docs/SPEC.md and the RFCs with hashlib, json and the ciphers of cryptography alone: what else it takes is
written out in own_primitives.py, the protocol in one_round.py. The keys are seeds that everyone knows: never use them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from one_round import (
    AGREEMENT,
    COORDINATOR,
    IDENTITY,
    KEYS,
    KEYS_DIGEST,
    NAMES,
    ROUND,
    RUN,
    STRANGER,
    Round,
    graph,
    key_list,
    key_message,
    pair,
)
from own_primitives import (
    BASE,
    Fields,
    canonical,
    framed,
    packed,
    primitives,
    public,
    sealed,
    turned,
    x25519,
)


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
        Path(__file__).with_name(f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
