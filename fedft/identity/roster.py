"""The roster: who belongs to a federation, signed by its coordinator. Form: docs/SPEC.md, "Roster".

Guarantees:
- Roster.read returns only what the key that the caller trusts has signed.
- A reader that remembers (remember_roster) takes no roster older than the newest it saw, and no second one of the same
  version: a removed institution does not come back through an old file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedft.durable import write_whole
from fedft.errors import ConfigError, IdentityError, StorageError
from fedft.identity.documents import MAX_DOCUMENT_BYTES, canonical, read_document, write_document
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.node_keys import require_node_key

ROSTER_LABEL = "fedft/v1/roster"
MEMORY_LABEL = "fedft/v1/roster-memory"
MAX_VERSION = 2**31 - 1
MAX_MEMBERS = 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def require_name(name: str) -> str:
    """``name`` itself. Raises ConfigError unless it is letters, digits, '-' and '_', at most 64."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            "expected a name of letters, digits, '-' and '_', at most 64 of them, found something else: correct it"
        )
    return name


@dataclass(frozen=True)
class Member:
    """An institution: its name, its identity key, and the OpenSSH public key of its SuperNode."""

    name: str
    key: PublicKey
    node_key: str

    def __post_init__(self) -> None:
        require_name(self.name)
        require_node_key(self.node_key)


@dataclass(frozen=True)
class Roster:
    """Members in the order of their names. Raises ConfigError for a name or a key that is there twice."""

    federation: str
    version: int
    coordinator: PublicKey
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        require_name(self.federation)
        if type(self.version) is not int or not 0 <= self.version <= MAX_VERSION:
            raise ConfigError(f"expected a roster's version from 0 to {MAX_VERSION}, found another: correct it")
        if len(self.members) > MAX_MEMBERS:
            raise ConfigError(f"expected at most {MAX_MEMBERS} members, found {len(self.members)}: remove some")
        object.__setattr__(self, "members", tuple(sorted(self.members, key=lambda member: member.name)))
        _require_distinct("name", [member.name for member in self.members])
        _require_distinct("identity key", [self.coordinator.text, *(member.key.text for member in self.members)])
        _require_distinct("node key", [member.node_key for member in self.members])

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of what it says."""
        return sha256(canonical(self._fields())).hexdigest()

    def member(self, name: str) -> Member:
        """The member of this name. Raises IdentityError if there is none."""
        for member in self.members:
            if member.name == name:
                return member
        raise IdentityError(
            f'expected a member of "{self.federation}", found a name that version {self.version} of its roster does '
            "not have: admit the institution, or fetch the newest roster"
        )

    def _fields(self) -> dict[str, Any]:
        return {
            "federation": self.federation,
            "version": self.version,
            "coordinator": self.coordinator.text,
            "members": [
                {"name": member.name, "key": member.key.text, "node_key": member.node_key} for member in self.members
            ],
        }

    def sealed(self, key: PrivateKey) -> bytes:
        """The roster's file, signed. Raises ConfigError unless ``key`` is that of the coordinator it names."""
        if key.public != self.coordinator:
            raise ConfigError("expected the coordinator's own key to sign its roster, found another: load that one")
        return write_document(ROSTER_LABEL, self._fields(), [key])

    def write(self, path: Path, key: PrivateKey) -> None:
        """Write it signed, whole or not at all. Raises StorageError when the disk refuses."""
        _write(path, self.sealed(key))

    @classmethod
    def read(cls, path: Path, coordinator: PublicKey) -> Roster:
        """The roster in ``path``. Raises IdentityError unless ``coordinator`` signed it, ConfigError for no file."""
        return cls.open(read_roster_file(path), coordinator)

    @classmethod
    def open(cls, data: bytes, coordinator: PublicKey) -> Roster:
        """The roster in ``data``. Raises IdentityError unless ``coordinator`` signed it, and no other key did."""
        fields, signers = read_document(ROSTER_LABEL, data)
        if signers != {coordinator}:
            raise IdentityError(
                f"expected a roster signed by {coordinator.text[:16]}..., found another signer: compare the "
                "coordinator's key in your policy with the one its people read to you"
            )
        try:
            roster = _from_fields(fields)
            same = roster.coordinator == coordinator and canonical(roster._fields()) == canonical(fields)
        except (ConfigError, KeyError, TypeError):
            same = False
        if not same:
            raise IdentityError("expected a roster as docs/SPEC.md has it, found other fields or values")
        return roster


def changes(before: Roster, after: Roster) -> list[str]:
    """Who joined, left, or has new keys, in words; nothing where nobody did."""
    old, new = ({member.name: member for member in roster.members} for roster in (before, after))
    found = {
        "joined": new.keys() - old.keys(),
        "left": old.keys() - new.keys(),
        "new keys": {name for name in old.keys() & new.keys() if old[name] != new[name]},
    }
    return [f"{what}: {', '.join(sorted(names))}" for what, names in found.items() if names]


def remember_roster(memory: Path, roster: Roster) -> None:
    """Take ``roster`` if it is the newest so far, and note it in the file ``memory``.

    Raises
    ------
    IdentityError
        A newer one of this federation was seen, or another one of the same version.
    StorageError
        The note cannot be written, or is not one.
    """
    seen = _remembered(memory)
    if seen is not None and seen["federation"] != roster.federation:
        raise IdentityError(
            f'expected the federation whose roster is remembered in {memory}, found "{roster.federation}": '
            "keep each federation in a folder of its own"
        )
    if seen is not None and roster.version < seen["version"]:
        raise IdentityError(
            f"expected version {seen['version']} of the roster or a newer one, found {roster.version}: "
            "fetch the newest from the coordinator"
        )
    if seen is not None and roster.version == seen["version"]:
        if roster.digest != seen["sha256"]:
            raise IdentityError(
                f"expected version {roster.version} of the roster as it was seen before, found another with the same "
                "number: ask the coordinator how there can be two"
            )
        return
    note = {"label": MEMORY_LABEL, "federation": roster.federation, "version": roster.version, "sha256": roster.digest}
    _write(memory, canonical(note) + b"\n")


def _remembered(memory: Path) -> dict[str, Any] | None:
    try:
        seen = json.loads(memory.read_bytes())
        if seen["label"] == MEMORY_LABEL and type(seen["version"]) is int and isinstance(seen["sha256"], str):
            return {name: seen[name] for name in ("federation", "version", "sha256")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise StorageError(f"expected the note of the newest roster in {memory}, found something else: restore it")


def _from_fields(fields: Mapping[str, Any]) -> Roster:
    members = tuple(Member(one["name"], PublicKey(one["key"]), one["node_key"]) for one in fields["members"])
    return Roster(fields["federation"], fields["version"], PublicKey(fields["coordinator"]), members)


def _require_distinct(what: str, values: list[str]) -> None:
    if len(set(values)) != len(values):
        raise ConfigError(f"expected every {what} in a roster once, found one twice: each institution has its own")


def read_roster_file(path: Path) -> bytes:
    """The bytes at ``path``, as many as a roster may have and one. Raises ConfigError for no file."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"expected a roster at {path}, found {error.strerror}: correct the path") from None


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise StorageError(f"expected to write {path}, found {error.strerror}: correct the path, free space") from None
