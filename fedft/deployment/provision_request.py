"""An institution's request to join: its public keys, signed. Form: docs/SPEC.md, "Join request".

Guarantee: a request that was read is signed by its identity key, and made by who holds the private parts of all three
of its keys; it names one federation and its coordinator, and fits no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedft.deployment.certificates import read_request, request_key
from fedft.errors import ConfigError, IdentityError
from fedft.identity.documents import canonical, read_document, write_document
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.node_keys import prove_node_key, require_node_proof
from fedft.identity.roster import Member, require_name

JOIN_LABEL = "fedft/v1/join"
NODE_LABEL = "fedft/v1/join-node"
_FIELDS = {"federation", "coordinator", "name", "key", "node_key", "node_proof", "certificate_request"}


@dataclass(frozen=True)
class JoinRequest:
    """Public parts only. signers: all keys that signed it, the institution's own among them."""

    federation: str
    coordinator: PublicKey
    member: Member
    certificate_request: bytes
    signers: frozenset[PublicKey]
    file: bytes

    @property
    def public_keys(self) -> frozenset[str]:
        """Its three keys, as text."""
        return frozenset((self.member.key.text, self.member.node_key, request_key(self.certificate_request)))


def make_join_request(
    *,
    federation: str,
    coordinator: PublicKey,
    name: str,
    keys: Sequence[PrivateKey],
    node_key: str,
    node_key_file: Path,
    certificate_request: bytes,
) -> bytes:
    """The request's file. keys: the institution's identity key, and for a rotation the one that it replaces."""
    fields = {
        "federation": require_name(federation),
        "coordinator": coordinator.text,
        "name": require_name(name),
        "key": keys[0].public.text,
        "node_key": node_key,
        "certificate_request": certificate_request.decode(),
    }
    fields["node_proof"] = prove_node_key(node_key_file, _node_payload(fields)).hex()
    return write_document(JOIN_LABEL, fields, keys)


def read_join_request(data: bytes, *, federation: str, coordinator: PublicKey) -> JoinRequest:
    """The request in ``data``. Raises IdentityError unless all its signatures hold and it is for this federation."""
    fields, signers = read_document(JOIN_LABEL, data)
    if set(fields) != _FIELDS or not all(isinstance(value, str) for value in fields.values()):
        raise IdentityError("expected a request to join as docs/SPEC.md has it, found other fields or values")
    try:
        member = Member(fields["name"], PublicKey(fields["key"]), fields["node_key"])
    except ConfigError as error:
        raise IdentityError(f"expected a request to join as docs/SPEC.md has it: {error}") from None
    if member.key not in signers:
        raise IdentityError(
            "expected a request signed by the identity key that it names, found other signers: "
            "have the institution make it anew"
        )
    if (fields["federation"], fields["coordinator"]) != (federation, coordinator.text):
        raise IdentityError(
            f'expected a request to join "{federation}" with the key of this coordinator, found one for another '
            "federation or coordinator: have the institution make it from this coordinator's federation.json"
        )
    require_node_proof(member.node_key, _node_payload(fields), fields["node_proof"])
    request = fields["certificate_request"].encode()
    read_request(request, member.name)
    return JoinRequest(federation, coordinator, member, request, signers, data)


def _node_payload(fields: dict[str, Any]) -> bytes:
    return canonical({"label": NODE_LABEL, **{name: fields[name] for name in ("federation", "name", "key")}})
