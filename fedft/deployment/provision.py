"""The coordinator's folder: its keys, the authority, the roster, and who is admitted or revoked.

::

    FOLDER/coordinator.key            Ed25519; signs the roster and what is asked of institutions
    FOLDER/ca.key, ca.crt             the federation's authority; the key may be kept elsewhere between admissions
    FOLDER/federation.json            public and signed: what an institution needs to ask to join
    FOLDER/roster.json                the newest roster, signed
    FOLDER/proxy/                     nginx, its certificate, the list of revoked ones
    FOLDER/superlink/                 the SuperLink's own certificate, for loopback
    FOLDER/flower/config.toml         Flower's connection to the SuperLink
    FOLDER/members/NAME/              request.json, client.crt, node.pub, and the SuperLink's node id
    FOLDER/revoked/NAME-VERSION/      the same, of who was removed or changed its keys
    FOLDER/README.md                  how its programs are started

Guarantees:
- The roster is the last thing written: an institution belongs to the federation when the roster says so.
- The list of revoked certificates is made from FOLDER/revoked, before the roster: a crash in between revokes too much,
  and never too little.
- A key that was revoked is not admitted again, and no key is admitted under two names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedft.deployment.certificates import (
    CERTIFICATE_DAYS,
    Authority,
    load_key,
    new_key,
    read_certificate,
    require_host,
    require_issuer,
)
from fedft.deployment.provision_federation import Federation, require_port
from fedft.deployment.provision_files import alone, replace_file
from fedft.deployment.provision_kit import FORWARDER_PORT, Kit, write_kit
from fedft.deployment.provision_request import JoinRequest, read_join_request
from fedft.deployment.provision_start import coordinator_readme
from fedft.deployment.provision_superlink import (
    FLOWER_HOME,
    SUPEREXEC_FILE,
    flower_configuration,
    register_node,
    unregister_node,
)
from fedft.deployment.proxy import CONFIGURATION, MAX_OBJECT_MIB, proxy_configuration, reload_nginx
from fedft.errors import ConfigError, IdentityError, StorageError
from fedft.identity.documents import canonical
from fedft.identity.keys import PrivateKey
from fedft.identity.roster import Member, Roster, require_name
from fedft.identity.secret_files import require_secret, write_secret
from fedft.model.checkpoint import whole_folder
from fedft.randomness import secure_bytes

COORDINATOR_LABEL = "fedft/v1/coordinator"
LOOPBACK = ("localhost", "127.0.0.1")
AUTHORITY_KEY = "ca.key"
_SECRETS = ("coordinator.key", AUTHORITY_KEY, "proxy/server.key", "superlink/server.key")


@dataclass(frozen=True)
class Coordinator:
    """An open coordinator's folder."""

    folder: Path
    federation: Federation
    listen: str
    superlink_port: int
    max_object_mib: int

    @classmethod
    def init(
        cls,
        folder: Path,
        *,
        name: str,
        host: str,
        port: int = 8443,
        listen: str = "0.0.0.0",  # noqa: S104  institutions come from outside; the proxy asks each for its certificate
        superlink_port: int = 8000,
        max_object_mib: int = MAX_OBJECT_MIB,
    ) -> Coordinator:
        """Make the folder of a new federation, whole or not at all.

        Raises
        ------
        ConfigError
            A name, host or port that is none, or a folder with something in it.
        StorageError
            The disk refuses.
        """
        require_name(name)
        require_host(host)
        require_host(listen)
        for number in (port, superlink_port):
            require_port(number)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"expected a new folder, found {folder} with something in it: choose another name")
        with whole_folder(folder) as target:
            key = PrivateKey.generate()
            key.save(target / "coordinator.key")
            made = cls(target, Federation(name, key.public, host, port), listen, superlink_port, max_object_mib)
            Authority.make(name, key_file=target / "ca.key", certificate_file=target / "ca.crt")
            for part in ("proxy", "superlink", FLOWER_HOME, "members", "revoked"):
                (target / part).mkdir()
            made._write_servers()
            write_secret(target / "superlink" / SUPEREXEC_FILE, secure_bytes(32))
            address = f"127.0.0.1:{superlink_port}"
            flower = flower_configuration(name, address, (folder / "ca.crt").resolve())
            (target / FLOWER_HOME / "config.toml").write_text(flower, encoding="utf-8")
            made._write_revocations()
            (target / "federation.json").write_bytes(made.federation.sealed(key))
            local = {"label": COORDINATOR_LABEL, "listen": listen, "superlink_port": superlink_port}
            (target / "coordinator.json").write_bytes(canonical({**local, "max_object_mib": max_object_mib}) + b"\n")
            Roster(name, 0, key.public, ()).write(target / "roster.json", key)
        return replace(made, folder=folder)

    @classmethod
    def open(cls, folder: Path) -> Coordinator:
        """The coordinator in ``folder``. Raises ConfigError if there is none, or if others may read its keys."""
        try:
            federation = Federation.open((folder / "federation.json").read_bytes())
            local: dict[str, Any] = json.loads((folder / "coordinator.json").read_bytes())
            made = cls(folder, federation, local["listen"], local["superlink_port"], local["max_object_mib"])
        except OSError as error:
            raise ConfigError(
                f"expected a coordinator's folder at {folder}, found {error.strerror}: make one with "
                "fedft provision init, or correct the path"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise StorageError(f"expected {folder}/coordinator.json as it was written: restore it") from None
        for name in _SECRETS:
            if name != AUTHORITY_KEY or made.has_authority:
                require_secret(folder / name)
        if made.key.public != federation.coordinator:
            raise ConfigError(f"expected the coordinator's key in {folder}, found another: restore coordinator.key")
        return made

    @property
    def key(self) -> PrivateKey:
        """The coordinator's signing key."""
        return PrivateKey.load(self.folder / "coordinator.key")

    @property
    def authority(self) -> Authority:
        """The federation's authority. Raises ConfigError while its key is kept elsewhere."""
        key_file = self.folder / AUTHORITY_KEY
        if not self.has_authority:
            raise ConfigError(
                f"expected the authority's key at {key_file}, found none: to admit, revoke or renew, bring it back"
            )
        return Authority.load(key_file=key_file, certificate_file=self.folder / "ca.crt")

    @property
    def has_authority(self) -> bool:
        """Whether its key is here; an empty file holds its place in containers."""
        file = self.folder / AUTHORITY_KEY
        return file.exists() and file.stat().st_size > 0

    @property
    def roster(self) -> Roster:
        """The newest roster."""
        return Roster.read(self.folder / "roster.json", self.federation.coordinator)

    def check(self) -> Roster:
        """What must hold before the proxy and the SuperLink start; the roster.

        Raises ConfigError or IdentityError for a key, a certificate or a roster that is missing, expired or another's.
        """
        authority = self.authority.certificate if self.has_authority else read_certificate(self.folder / "ca.crt")
        for part in ("proxy", "superlink"):
            require_issuer(read_certificate(self.folder / part / "server.crt"), authority)
        return self.roster

    def read_request(self, file: Path) -> JoinRequest:
        """The request in ``file``. Raises IdentityError unless it is whole, signed, and for this federation."""
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"expected a request at {file}, found {error.strerror}: correct the path") from None
        return read_join_request(data, federation=self.federation.name, coordinator=self.federation.coordinator)

    def admit(self, request: JoinRequest, *, replacing: bool = False, days: int = CERTIFICATE_DAYS) -> Roster:
        """Issue the institution's certificate, add it to the roster, and return the next version of that.

        Its people must have confirmed the fingerprint of ``request.member.key`` before. replacing: it is a member and
        changes its keys; its old identity key has to have signed the request too.

        Raises
        ------
        IdentityError
            It is a member already, or with ``replacing`` is none or its old key did not sign; a key was revoked, or is
            another member's.
        """
        with alone(self.folder):
            roster, member = self.roster, request.member
            old = next((one for one in roster.members if one.name == member.name), None)
            self._require_admissible(request, known=old is not None, replacing=replacing)
            if old is not None and old.key not in request.signers:
                raise IdentityError(
                    f'expected a request that the old identity key of "{member.name}" signed too, found none: have it '
                    "made with fedft provision request --replace; if that key is lost, revoke the institution first"
                )
            others = tuple(one for one in roster.members if one.name != member.name)
            try:
                following = replace(roster, version=roster.version + 1, members=(*others, member))
            except ConfigError as error:
                raise IdentityError(f'expected keys of its own from "{member.name}": {error}') from None
            certificate = self.authority.client(member.name, request.certificate_request, days=days)
            if old is not None and not self._is_left_over(old):
                self._set_aside(member.name, roster.version)
            with whole_folder(self.folder / "members" / member.name) as target:
                (target / "request.json").write_bytes(request.file)
                (target / "client.crt").write_bytes(certificate)
                (target / "node.pub").write_text(f"{member.node_key}\n", encoding="ascii")
            following.write(self.folder / "roster.json", self.key)
            return following

    def revoke(self, name: str) -> Roster:
        """Take an institution off the roster and revoke its certificate. Raises IdentityError if it is no member."""
        with alone(self.folder):
            roster = self.roster
            roster.member(name)
            self._set_aside(name, roster.version)
            rest = tuple(one for one in roster.members if one.name != name)
            following = replace(roster, version=roster.version + 1, members=rest)
            following.write(self.folder / "roster.json", self.key)
            return following

    def renew(self) -> None:
        """New certificates for the proxy and the SuperLink, from their keys; nginx's configuration and README anew."""
        with alone(self.folder):
            self._write_servers()
            self._write_revocations()

    def kit(self, name: str, target: Path) -> None:
        """Write a member's kit, as .tar.gz or as a new folder. IdentityError if it is no member."""
        member = self.roster.member(name)
        place = self.folder / "members" / member.name
        if self._is_left_over(member):
            raise IdentityError(f'expected "{name}" admitted, found an admission that was cut off: admit it again')
        kit = Kit(
            federation=self.federation.name,
            coordinator=self.federation.coordinator,
            name=name,
            host=self.federation.host,
            port=self.federation.port,
            authority=(self.folder / "ca.crt").read_bytes(),
            certificate=(place / "client.crt").read_bytes(),
            roster=(self.folder / "roster.json").read_bytes(),
        )
        write_kit(kit, self.key, FORWARDER_PORT, target)

    def listed(self) -> list[dict[str, Any]]:
        """Who is in the roster, as JSON: name, fingerprint, days the certificate is still valid, registered or not."""
        found = []
        for member in self.roster.members:
            place = self.folder / "members" / member.name
            left = read_certificate(place / "client.crt").not_valid_after_utc - datetime.now(UTC)
            days, known = left.days, (place / "node-id").exists()
            found.append(
                {"name": member.name, "fingerprint": member.key.fingerprint, "days": days, "registered": known}
            )
        return found

    def register(self, superlink: str | None = None) -> tuple[str, ...]:
        """Make the SuperLink's nodes those of the roster, and no others; the names of those it now has registered anew.

        superlink: a connection of Flower's configuration in the folder, or host:port. Raises FederationError.
        """
        connection, added = superlink or self.federation.name, []
        with alone(self.folder):
            for gone in sorted((self.folder / "revoked").glob("*/node-id")):
                unregister_node(self.folder, connection, gone.read_text(encoding="ascii").strip())
                gone.unlink()
            for member in self.roster.members:
                place = self.folder / "members" / member.name
                node = register_node(self.folder, connection, name=member.name, public_key=place / "node.pub")
                if node is not None:
                    (place / "node-id").write_text(f"{node}\n", encoding="ascii")
                    added.append(member.name)
        return tuple(added)

    def reload_proxy(self) -> bool:
        """Have a running proxy read its certificates and the revoked ones anew; whether there was one to tell.

        Raises FederationError if it runs and cannot be told.
        """
        return reload_nginx(self.folder / "proxy")

    def _require_admissible(self, request: JoinRequest, *, known: bool, replacing: bool) -> None:
        name = request.member.name
        if known and not replacing:
            raise IdentityError(
                f'expected an institution that is not admitted yet, found "{name}" in the roster: to change its keys, '
                "use --replace with a request made with --replace"
            )
        if replacing and not known:
            raise IdentityError(f'expected a member to replace the keys of, found no "{name}": leave --replace out')
        for file in (self.folder / "revoked").glob("*/request.json"):
            before = self.read_request(file)
            if before.public_keys & request.public_keys:
                raise IdentityError(
                    f'expected new keys from "{name}", found one that was revoked: have the institution make a request '
                    "in a new folder"
                )

    def _set_aside(self, name: str, version: int) -> None:
        """Move a member's folder to the revoked ones, and revoke its certificate."""
        _ = self.authority  # before anything is moved
        place, target = self.folder / "members" / name, self.folder / "revoked" / f"{name}-{version}"
        while target.exists():
            target = target.with_name(f"{target.name}-again")
        if place.is_dir():
            place.rename(target)
        self._write_revocations()

    def _is_left_over(self, member: Member) -> bool:
        """Whether the member's folder is not of its keys in the roster: an admission was cut off before the roster."""
        file = self.folder / "members" / member.name / "request.json"
        return file.exists() and self.read_request(file).member.key != member.key

    def _write_revocations(self) -> None:
        revoked = [read_certificate(file) for file in (self.folder / "revoked").glob("*/client.crt")]
        replace_file(self.folder / "proxy" / "ca.crl", self.authority.revocations(revoked))

    def _write_servers(self) -> None:
        authority, certificate = self.authority, (self.folder / "ca.crt").read_bytes()
        for part, hosts in (("proxy", (self.federation.host, *LOOPBACK)), ("superlink", LOOPBACK)):
            place = self.folder / part
            key_file = place / "server.key"
            key = load_key(key_file) if key_file.exists() else new_key(key_file)
            replace_file(place / "server.crt", authority.server(f"fedft {part}", hosts, key, days=CERTIFICATE_DAYS))
            replace_file(place / "ca.crt", certificate)
        configuration = proxy_configuration(
            listen=self.listen,
            port=self.federation.port,
            superlink_port=self.superlink_port,
            max_object_mib=self.max_object_mib,
        )
        replace_file(self.folder / "proxy" / CONFIGURATION, configuration.encode())
        readme = coordinator_readme(self.federation, self.superlink_port)
        replace_file(self.folder / "README.md", readme.encode())
