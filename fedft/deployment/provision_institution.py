"""An institution's folder: its own keys, which never leave it, its request, and the kit it accepted.

::

    FOLDER/institution.json           its name, the federation, and the coordinator's key that its people confirmed
    FOLDER/identity.key               Ed25519; the agent signs with it
    FOLDER/request.json               what goes to the coordinator
    FOLDER/supernode/                 node.key for Flower's authentication; loopback.crt, how it knows the forwarder
    FOLDER/relay/                     what the SuperNode runs, whatever bundle the coordinator sends
    FOLDER/forwarder/                 nginx, the client certificate and its key, the federation's ca.crt
    FOLDER/roster.json                the newest roster that was accepted
    FOLDER/policy.toml, README.md     made here from a template: what the institution allows, and how to start
    FOLDER/next/                      after request --replace: the new keys, until a kit for them is accepted
    FOLDER/before-VERSION/            the keys that a kit replaced

Guarantees:
- Nothing of a kit is written before the coordinator's signature on it verified, with the key that the institution's
  people gave, and its certificate fits the institution's own key.
- Of a kit only the roster, two certificates, and the coordinator's address are used: programs' configurations and the
  policy are made here, so no kit decides what runs or what is allowed.
- A roster older than the newest one accepted is refused.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedft.deployment.certificates import (
    make_loopback,
    make_request,
    new_key,
    read_certificate,
    require_certificate_for,
)
from fedft.deployment.provision_federation import require_port
from fedft.deployment.provision_kit import FORWARDER_PORT, Kit, institution_files
from fedft.deployment.provision_relay import RELAY, write_relay
from fedft.deployment.provision_request import JoinRequest, make_join_request, read_join_request
from fedft.durable import write_whole
from fedft.errors import ConfigError, IdentityError, StorageError
from fedft.identity.documents import canonical
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.node_keys import make_node_key
from fedft.identity.roster import Roster, changes, read_roster_file, remember_roster, require_name
from fedft.identity.secret_files import require_secret
from fedft.model.checkpoint import storage_errors, whole_folder

INSTITUTION_LABEL = "fedft/v1/institution"
NEXT = "next"
_SECRETS = ("identity.key", "supernode/node.key", "forwarder/client.key", "forwarder/loopback.key")


@dataclass(frozen=True)
class Institution:
    """An open institution's folder."""

    folder: Path
    name: str
    federation: str
    coordinator: PublicKey
    forwarder_port: int

    @classmethod
    def request(
        cls,
        folder: Path,
        *,
        name: str,
        federation: str,
        coordinator: PublicKey,
        forwarder_port: int = FORWARDER_PORT,
    ) -> Institution:
        """Make keys and a request to join in a new folder, whole or not at all. Raises ConfigError for anything else.

        ``coordinator`` is the key that the institution's people compared with the coordinator's people.
        """
        made = cls(folder, require_name(name), require_name(federation), coordinator, require_port(forwarder_port))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"expected a new folder, found {folder} with something in it: choose another name, or change the keys "
                "of the institution there with --replace"
            )
        with whole_folder(folder) as target:
            made._write_keys(target)
            facts = {
                "label": INSTITUTION_LABEL,
                "name": name,
                "federation": federation,
                "coordinator": coordinator.text,
                "forwarder_port": forwarder_port,
            }
            (target / "institution.json").write_bytes(canonical(facts) + b"\n")
        return made

    @classmethod
    def open(cls, folder: Path) -> Institution:
        """The institution in ``folder``. Raises ConfigError if there is none."""
        try:
            facts: dict[str, Any] = json.loads((folder / "institution.json").read_bytes())
            if facts["label"] != INSTITUTION_LABEL:
                raise ValueError
            coordinator = PublicKey(facts["coordinator"])
            return cls(folder, facts["name"], facts["federation"], coordinator, require_port(facts["forwarder_port"]))
        except OSError as error:
            raise ConfigError(
                f"expected an institution's folder at {folder}, found {error.strerror}: make one with "
                "fedft provision request, or correct the path"
            ) from None
        except (ValueError, KeyError, TypeError, ConfigError):
            raise StorageError(f"expected {folder}/institution.json as it was written: restore it") from None

    def request_replacement(self) -> Path:
        """Make new keys, beside those in use, and a request that the old identity key signs too; the request's path.

        The old keys stay in use until accept gets a kit for the new ones. A replacement that was asked for before and
        not accepted is dropped.
        """
        old = PrivateKey.load(self.folder / "identity.key")
        with whole_folder(self.folder / NEXT) as target:
            self._write_keys(target, old)
        return self.folder / NEXT / "request.json"

    def accept(self, path: Path) -> Roster:
        """Put the kit at ``path`` in place, and the new keys if it is for them. The kit's roster.

        Raises
        ------
        IdentityError
            The coordinator did not sign it, it is another institution's, its certificate or roster does not fit the
            keys here, or its roster is older than the newest accepted.
        """
        kit = Kit.read(path, self.coordinator)
        if (kit.federation, kit.name) != (self.federation, self.name):
            raise IdentityError(
                f'expected a kit for "{self.name}" in "{self.federation}", found another\'s: ask for the right one'
            )
        roster = Roster.open(kit.roster, self.coordinator)
        keys, request = self._keys_of(roster)
        kit.require_for(request)
        remember_roster(self.folder / "roster-memory.json", roster)
        with storage_errors(self.folder):
            if keys != self.folder:
                self._take_into_use(keys, roster.version)
            files = institution_files(kit, self.forwarder_port)
            if not (self.folder / "policy.toml").exists():
                files["policy.toml"] = files["policy.template.toml"]
            for name, content in files.items():
                write_whole(self.folder / name, content)
            write_relay(self.folder / RELAY)
        return roster

    def update(self, path: Path) -> tuple[Roster, list[str]]:
        """Put the newer roster at ``path`` in place, and say what it changes. A running agent takes it by itself.

        Raises IdentityError as ``accept``, and for one with the keys in next/: those need their kit.
        """
        content = read_roster_file(path)
        roster = Roster.open(content, self.coordinator)
        before = Roster.read(self.folder / "roster.json", self.coordinator)
        if roster.federation != self.federation:
            raise IdentityError(
                f'expected a roster of "{self.federation}", found one of "{roster.federation}": fetch the right one'
            )
        if self._keys_of(roster)[0] != self.folder:
            raise IdentityError("expected the keys in use in the roster, found those in next/: accept the kit for them")
        remember_roster(self.folder / "roster-memory.json", roster)
        with storage_errors(self.folder):
            write_whole(self.folder / "roster.json", content)
        return roster, changes(before, roster)

    def check(self) -> Roster:
        """What must hold before anything starts; the roster.

        Raises
        ------
        ConfigError
            A file is missing, or others may read a private key.
        IdentityError
            The roster is not the coordinator's or has other keys for this institution, the client certificate is
            expired or another's.
        """
        for name in _SECRETS:
            require_secret(self.folder / name)
        roster = Roster.read(self.folder / "roster.json", self.coordinator)
        remember_roster(self.folder / "roster-memory.json", roster)
        keys, request = self._keys_of(roster)
        if keys != self.folder:
            raise IdentityError("expected the keys in use in the roster, found those in next/: accept the kit for them")
        place = self.folder / "forwarder"
        certificate, authority = read_certificate(place / "client.crt"), read_certificate(place / "ca.crt")
        require_certificate_for(certificate, authority, self.name, request.certificate_request)
        return roster

    def _keys_of(self, roster: Roster) -> tuple[Path, JoinRequest]:
        """Where the keys are that the roster has for this institution, here or in next/, and the request for them.

        Only public parts are read, so that each program can run as a user of its own.
        """
        member = roster.member(self.name)
        for place in (self.folder / NEXT, self.folder):
            if (place / "request.json").exists():
                data = (place / "request.json").read_bytes()
                request = read_join_request(data, federation=self.federation, coordinator=self.coordinator)
                if request.member == member:
                    return place, request
        raise IdentityError(
            f'expected the keys in {self.folder} in the roster for "{self.name}", found others: ask the coordinator to '
            "admit the request in this folder"
        )

    def _take_into_use(self, keys: Path, version: int) -> None:
        """Replace the keys; where it is cut off, the next accept does it again, as next/ goes last."""
        before = self.folder / f"before-{version}"
        for file in sorted(path for path in keys.rglob("*") if path.is_file()):
            name = file.relative_to(keys)
            target, kept, beside = self.folder / name, before / name, self.folder / f"{name}.partial"
            kept.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not kept.exists():
                kept.hardlink_to(target)
            beside.unlink(missing_ok=True)
            beside.hardlink_to(file)
            beside.replace(target)
            beside.unlink(missing_ok=True)  # still there if both were the same file already
        shutil.rmtree(keys)

    def _write_keys(self, target: Path, *more: PrivateKey) -> None:
        for part in ("supernode", "forwarder"):
            (target / part).mkdir()
        key = PrivateKey.generate()
        key.save(target / "identity.key")
        node_key_file = target / "supernode" / "node.key"
        node_key = make_node_key(node_key_file)
        client = new_key(target / "forwarder" / "client.key")
        make_loopback(target / "forwarder" / "loopback.key", target / "forwarder" / "loopback.crt")
        shutil.copyfile(target / "forwarder" / "loopback.crt", target / "supernode" / "loopback.crt")
        request = make_join_request(
            federation=self.federation,
            coordinator=self.coordinator,
            name=self.name,
            keys=[key, *more],
            node_key=node_key,
            node_key_file=node_key_file,
            certificate_request=make_request(self.name, client),
        )
        (target / "request.json").write_bytes(request)
