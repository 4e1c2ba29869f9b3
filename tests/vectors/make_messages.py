"""Write messages/: what crosses between coordinator and institution, honest and hostile, one case a file.

    python tests/vectors/make_messages.py

Made from docs/SPEC.md with struct, json and hashlib, and with signatures and updates of the scripts beside this one, so
that the vectors check fedft and not the reverse. The keys are seeds that everyone knows: never use them.
"""

from __future__ import annotations

import hashlib
import json
import runpy
import struct
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
TARGET = FOLDER / "messages"
SIGNATURES = runpy.run_path(str(FOLDER / "make_signatures.py"))
UPDATES = runpy.run_path(str(FOLDER / "make_update_envelope.py"))
COORDINATOR, INSTITUTION, STRANGER = (SIGNATURES[name] for name in ("COORDINATOR", "NORTH", "STRANGER"))
sealed, canonical, turned, framed = (
    SIGNATURES["sealed"], SIGNATURES["canonical"], SIGNATURES["turned"], UPDATES["framed"],
)  # fmt: skip

REQUEST, ANSWER, ROLL_CALL = "fedft/v1/request", "fedft/v1/answer", "fedft/v1/roll-call"
RECEIPT = "fedft/v1/receipt"
NONCE = "5a" * 32
TERMS = '{"label":"fedft/v1/terms"}'
VALUES = [0.5, -0.25, 1.0, 2.0]
PLAN: dict[str, Any] = {
    "label": "fedft/v1/round-plan",
    "run": "hospitals-1",
    "round": 7,
    "rounds": 9,
    "task": "default",
    "task_index": 0,
    "cohort": ["st-anna", "charite", "riverside"],
    "layout_digest": "a1" * 32,
    "adapter_digest": hashlib.sha256(struct.pack("<4f", *VALUES)).hexdigest(),
    "roles": ["lora_B", "head"],
    "local_steps": 2,
    "first_step": 12,
    "total_steps": 18,
    "terms_digest": hashlib.sha256(TERMS.encode()).hexdigest(),
    "encoding": "float32",
    "masking": "",
}
REFUSAL = {
    "label": "fedft/v1/refusal", "institution": "st-anna", "run": "hospitals-1", "round": 7, "reason": "policy",
}  # fmt: skip
CONTEXT: dict[str, Any] = {
    "coordinator": SIGNATURES["text"](COORDINATOR),
    "institution": SIGNATURES["text"](INSTITUTION),
    "sender": "st-anna",
    "nonce": NONCE,
    "terms": TERMS,
    "values": VALUES,
    "round": UPDATES["CONTEXT"],
}


def body(values: list[float] = VALUES, **changes: Any) -> bytes:
    """A safetensors file of one tensor; ``changes`` replace entries of its description."""
    data = struct.pack(f"<{len(values)}f", *values)
    entry = {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)], **changes}
    made: bytes = UPDATES["safetensors"]({"adapter": entry}, data)
    return made


def header(of: bytes, plan: dict[str, Any] | str, **changes: Any) -> dict[str, Any]:
    told = plan if isinstance(plan, str) else canonical(plan).decode()
    digest = hashlib.sha256(of).hexdigest()
    made = {"label": REQUEST, "plan": told, "terms": TERMS, "keys": "", "head": "", "sha256": digest, **changes}
    return {key: value for key, value in made.items() if value is not None}


def request(of: bytes | None = None, plan: dict[str, Any] | str = PLAN, **changes: Any) -> bytes:
    of = body() if of is None else of
    made: bytes = framed(canonical(header(of, plan, **changes)), of, magic=b"FEDFTREQ")
    return made


def with_header(text: bytes, length: int | None = None) -> bytes:
    made: bytes = framed(text, body(), magic=b"FEDFTREQ", length=length)
    return made


def refusal(**changes: Any) -> bytes:
    return b"FEDFTREF" + bytes(canonical({**REFUSAL, **changes}))


def attested(answer: bytes, note: bytes = b"a note", length: int | None = None) -> bytes:
    """Behind what is signed beside it, which a reader of answers leaves alone."""
    return b"FEDFTATT" + struct.pack(">I", len(note) if length is None else length) + note + answer


def notice(**changes: Any) -> bytes:
    told = {"label": RECEIPT, "run": "hospitals-1", "head": "a note", **changes}
    return bytes(canonical({key: value for key, value in told.items() if value is not None}))


def question(nonce: str = NONCE, **more: Any) -> bytes:
    return bytes(canonical({"label": ROLL_CALL, "nonce": nonce, "setup": "", **more}))


def reply(nonce: str = NONCE, **more: Any) -> bytes:
    return bytes(canonical({"label": ROLL_CALL, "nonce": nonce, "key": "", **more}))


Case = tuple[str, bytes, str | None]
"""Who reads it, the bytes, the error's class (None: an honest one)."""


def requests() -> dict[str, Case]:
    honest = sealed(COORDINATOR, REQUEST, request())
    spaced = json.dumps(header(body(), PLAN), sort_keys=True).encode()
    twice = canonical(header(body(), PLAN))[:-1] + b',"terms":""}'
    hostile = {
        "malformed-empty": b"",
        "malformed-magic": b"FEDFTUPD" + request()[8:],
        "deep-nesting": with_header(b"[" * 5000),
        "deep-nesting-in-the-plan": request(plan="[" * 5000),
        "claimed-header-of-4-gib": with_header(canonical(header(body(), PLAN)), length=2**32 - 1),
        "claimed-header-beyond-the-end": with_header(canonical(header(body(), PLAN)), length=60_000),
        "claimed-tensor-head-of-2-62-bytes": request(struct.pack("<Q", 2**62) + body()[8:]),
        "claimed-shape-of-2-40-values": request(body(shape=[2**40], data_offsets=[0, 2**42])),
        "claimed-offsets-past-the-end": request(body(data_offsets=[0, 4096])),
        "not-canonical-spaces": with_header(spaced),
        "not-canonical-key-twice": with_header(twice),
        "not-canonical-plan": request(plan=json.dumps(PLAN, sort_keys=True)),
        "nan-in-the-header": with_header(b'{"label":NaN}'),
        "nan-adapter": request(body([0.5, float("nan"), 1.0, 2.0])),
        "infinite-adapter": request(body([0.5, float("inf"), 1.0, 2.0])),
        "adapter-of-integers": request(body(dtype="I32")),
        "adapter-of-another-body": request(sha256="0" * 64),
        "byte-after-the-end": request() + b"\x00",
        "cut-short": request()[:-4],
        "next-version": request(label="fedft/v2/request"),
        "field-too-many": request(metrics="loss"),
        "field-missing": request(terms=None),
        "head-missing": request(head=None),
        "terms-of-another-run": request(terms='{"label":"fedft/v1/terms","federation":{}}'),
        "plan-of-a-round-too-many": request(plan={**PLAN, "round": 10}),
        "plan-without-anyone": request(plan={**PLAN, "cohort": []}),
        "plan-with-a-path-as-run": request(plan={**PLAN, "run": "../ledger"}),
        "plan-for-an-unknown-part": request(plan={**PLAN, "roles": ["base"]}),
        "keys-with-a-plan-that-does-not-mask": request(keys="{}"),
        "plan-that-masks-without-keys": request(plan={**PLAN, "masking": "{}"}),
        "keys-beyond-ascii": request(plan={**PLAN, "masking": "{}"}, keys="{\u00e9}"),
    }
    unsigned = {
        "unsigned": request(),
        "unknown-key": sealed(STRANGER, REQUEST, request()),
        "an-institutions-key": sealed(INSTITUTION, REQUEST, request()),
        "altered-last-byte": turned(honest, len(honest) - 1),
        "altered-plan": honest.replace(b'\\"round\\":7', b'\\"round\\":8'),
        "altered-signature": turned(honest, 20),
        "signed-as-a-roll-call": sealed(COORDINATOR, ROLL_CALL, request()),
    }
    return {
        "request-honest": ("request", honest, None),
        **{f"request-{n}": ("request", sealed(COORDINATOR, REQUEST, d), "ConfigError") for n, d in hostile.items()},
        **{f"request-{name}": ("request", data, "IdentityError") for name, data in unsigned.items()},
    }


def answers() -> dict[str, Case]:
    update = UPDATES["update"]
    honest = sealed(INSTITUTION, ANSWER, update())
    hostile = {
        "wrong-round": (update(round=8), "StaleUpdate"),
        "replay-of-an-earlier-round": (update(round=6), "StaleUpdate"),
        "wrong-run": (update(run="banks-1"), "StaleUpdate"),
        "wrong-plan": (update(plan_digest="c3" * 32), "StaleUpdate"),
        "another-institutions": (update(institution="riverside"), "UpdateError"),
        "another-layout": (update(layout_digest="d4" * 32), "LayoutMismatch"),
        "nan": (update(UPDATES["body"]([0.5, float("nan"), 1.0, 2.0])), "NonFiniteUpdate"),
        "norm-1e9": (update(UPDATES["body"]([1e9, 0.0, 0.0, 0.0])), "UpdateTooLarge"),
        "deep-nesting": (framed(b"[" * 4000, UPDATES["body"]()), "UpdateError"),
        "neither": (b"loss: 0.31", "UpdateError"),
        "empty": (b"", "UpdateError"),
        "request": (request(), "UpdateError"),
        "refusal-in-free-text": (refusal(reason="patient 17 is missing"), "UpdateError"),
        "refusal-with-a-count": (refusal(examples=1200), "UpdateError"),
        "refusal-not-canonical": (b"FEDFTREF" + json.dumps(REFUSAL).encode(), "UpdateError"),
        "refusal-deep-nesting": (b"FEDFTREF" + b"[" * 4000, "UpdateError"),
        "refusal-too-long": (refusal(run="r" * 5000), "UpdateError"),
        "refusal-of-round-true": (refusal(round=True), "UpdateError"),
        "attestation-longer-than-it-says": (attested(update(), length=3), "UpdateError"),
        "attestation-beyond-the-end": (attested(b"", length=1000), "UpdateError"),
        "attestation-too-long": (attested(update(), note=b"n" * 1025), "UpdateError"),
        "attestation-twice": (attested(attested(update())), "UpdateError"),
        "attestation-of-no-text": (attested(update(), note=b"\xff" * 40), "UpdateError"),
        "attestation-of-nothing": (attested(b""), "UpdateError"),
    }
    unsigned = {
        "unsigned": update(),
        "unknown-key": sealed(STRANGER, ANSWER, update()),
        "altered-last-byte": turned(honest, len(honest) - 1),
        "signed-as-a-request": sealed(INSTITUTION, REQUEST, update()),
    }
    return {
        "answer-honest": ("answer", honest, None),
        "answer-honest-refusal": ("answer", sealed(INSTITUTION, ANSWER, refusal()), None),
        "answer-honest-attested": ("answer", sealed(INSTITUTION, ANSWER, attested(update())), None),
        **{f"answer-{n}": ("answer", sealed(INSTITUTION, ANSWER, data), error) for n, (data, error) in hostile.items()},
        **{f"answer-{name}": ("answer", data, "IdentityError") for name, data in unsigned.items()},
    }


def roll_calls() -> dict[str, Case]:
    honest = sealed(INSTITUTION, ROLL_CALL, reply(institution="st-anna"))
    hostile = {
        "replay": (reply("0" * 64, institution="st-anna"), "StaleUpdate"),
        "free-text": (reply(institution="St. Anna\nERROR"), "UpdateError"),
        "without-a-name": (reply(), "UpdateError"),
        "field-too-many": (reply(institution="st-anna", rows=1200), "UpdateError"),
        "deep-nesting": (b"[" * 4000, "UpdateError"),
        "too-long": (reply(institution="a" * 5000), "UpdateError"),
        "key-in-free-text": (reply(institution="st-anna", key="patient 17"), "UpdateError"),
        "key-of-half-a-byte": (reply(institution="st-anna", key="abc"), "UpdateError"),
    }
    return {
        "question-honest": ("question", sealed(COORDINATOR, ROLL_CALL, question()), None),
        "question-unknown-key": ("question", sealed(STRANGER, ROLL_CALL, question()), "IdentityError"),
        "question-short-nonce": ("question", sealed(COORDINATOR, ROLL_CALL, question("5a")), "ConfigError"),
        "question-setup-with-a-path": (
            "question",
            sealed(COORDINATOR, ROLL_CALL, question(setup="../identity")),
            "ConfigError",
        ),
        "question-setup-of-a-number": ("question", sealed(COORDINATOR, ROLL_CALL, question(setup=7)), "ConfigError"),
        "question-deep-nesting": ("question", sealed(COORDINATOR, ROLL_CALL, b"[" * 4000), "ConfigError"),
        "reply-honest": ("reply", honest, None),
        "reply-unknown-key": ("reply", sealed(STRANGER, ROLL_CALL, reply(institution="st-anna")), "IdentityError"),
        "reply-altered-last-byte": ("reply", turned(honest, len(honest) - 1), "IdentityError"),
        **{
            f"reply-{n}": ("reply", sealed(INSTITUTION, ROLL_CALL, data), error) for n, (data, error) in hostile.items()
        },
    }


def notices() -> dict[str, Case]:
    hostile = {
        "not-canonical": notice().replace(b",", b", "),
        "field-too-many": notice(rows=1200),
        "field-missing": notice(run=None),
        "head-of-a-number": notice(head=7),
        "next-version": notice(label="fedft/v2/receipt"),
        "deep-nesting": b"[" * 4000,
        "too-long": notice(head="a" * 5000),
    }
    return {
        "notice-honest": ("notice", sealed(COORDINATOR, RECEIPT, notice()), None),
        "notice-unknown-key": ("notice", sealed(STRANGER, RECEIPT, notice()), "IdentityError"),
        **{f"notice-{n}": ("notice", sealed(COORDINATOR, RECEIPT, data), "ConfigError") for n, data in hostile.items()},
    }


def files() -> dict[str, dict[str, Any]]:
    """By name, without its ending."""
    cases = {**requests(), **answers(), **roll_calls(), **notices()}
    made = {name: {"reads": reads, "raises": error, "hex": data.hex()} for name, (reads, data, error) in cases.items()}
    return {"context": CONTEXT, **made}


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    for old in TARGET.glob("*.json"):
        old.unlink()
    for name, content in files().items():
        (TARGET / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
