"""Write join_request.json: a request to join, and hostile ones, each with the error class it must raise.

    python tests/vectors/make_join_request.py

Made from docs/SPEC.md without fedft: Ed25519 as in make_signatures.py; ECDSA (deterministic, RFC 6979) and certificate
requests by the cryptography package. The keys are known to everyone: never use them.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

FOLDER = Path(__file__).parent
TARGET = FOLDER / "join_request.json"
SIGNATURES: dict[str, Any] = runpy.run_path(str(FOLDER / "make_signatures.py"))
canonical, document, text = SIGNATURES["canonical"], SIGNATURES["document"], SIGNATURES["text"]
COORDINATOR, NORTH, SOUTH, STRANGER = (SIGNATURES[name] for name in ("COORDINATOR", "NORTH", "SOUTH", "STRANGER"))
JOIN = "fedft/v1/join"


def key(number: int, curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, curve or ec.SECP384R1())


def node_key(of: ec.EllipticCurvePrivateKey) -> str:
    return of.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def proof(of: ec.EllipticCurvePrivateKey, *, federation: str = "hospitals", name: str = "north", key: str) -> str:
    payload = canonical({"label": "fedft/v1/join-node", "federation": federation, "name": name, "key": key})
    return of.sign(payload, ec.ECDSA(SHA384(), deterministic_signing=True)).hex()


def certificate_request(of: ec.EllipticCurvePrivateKey, name: str = "north") -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(of, SHA384(), ecdsa_deterministic=True).public_bytes(Encoding.PEM).decode()


NODE, TLS = key(1001), key(1002)
FIELDS: dict[str, Any] = {
    "label": JOIN,
    "federation": "hospitals",
    "coordinator": text(COORDINATOR),
    "name": "north",
    "key": text(NORTH),
    "node_key": node_key(NODE),
    "node_proof": proof(NODE, key=text(NORTH)),
    "certificate_request": certificate_request(TLS),
}


def request(*seeds: bytes, **changes: Any) -> bytes:
    fields = {name: value for name, value in {**FIELDS, **changes}.items() if value is not None}
    made: bytes = document(fields, seeds or [NORTH], JOIN)
    return made


def hostile() -> dict[str, bytes]:
    honest = request()
    return {
        "empty": b"",
        "an altered byte": honest.replace(b'"name":"north"', b'"name":"morth"'),
        "not signed by the key it names": request(SOUTH),
        "signed by a stranger alone": request(STRANGER),
        "signed under another label": document(FIELDS, [NORTH], "fedft/v1/roster"),
        "the next version's label": document({**FIELDS, "label": "fedft/v2/join"}, [NORTH], "fedft/v2/join"),
        "another federation": request(federation="banks", node_proof=proof(NODE, federation="banks", key=text(NORTH))),
        "another coordinator": request(coordinator=text(STRANGER)),
        "a field missing": request(node_proof=None),
        "a field too many": request(records="1200"),
        "a name that is a path": request(name="../north"),
        "a name that is a number": request(name=7),
        "a node key of another curve": request(node_key=node_key(key(7, ec.SECP256R1()))),
        "a node key with a comment": request(node_key=f"{FIELDS['node_key']} me"),
        "another's node key": request(node_key=node_key(key(1003))),
        "a node key proved by another": request(node_proof=proof(key(1003), key=text(NORTH))),
        "a node key proved for another identity": request(node_proof=proof(NODE, key=text(SOUTH))),
        "a node key proved for another name": request(node_proof=proof(NODE, name="south", key=text(NORTH))),
        "a proof that is no hexadecimal": request(node_proof="z" * 200),
        "a certificate request for another name": request(certificate_request=certificate_request(TLS, "south")),
        "a certificate request of another curve": request(
            certificate_request=certificate_request(key(7, ec.SECP256R1()))
        ),
        "no certificate request": request(certificate_request="none"),
    }


def vectors() -> dict[str, Any]:
    return {
        "federation": "hospitals",
        "coordinator": text(COORDINATOR),
        "request": {"fields": FIELDS, "file": request().decode()},
        "replacement": {"signers": [text(NORTH), text(SOUTH)], "file": request(NORTH, SOUTH).decode()},
        "hostile": [
            {"name": name, "raises": "IdentityError", "file": data.decode()} for name, data in hostile().items()
        ],
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(vectors(), indent=1) + "\n")
