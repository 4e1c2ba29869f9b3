"""The kit that an admitted institution gets. Form of kit.json: docs/SPEC.md, "Join request".

kit.json, signed by the coordinator, holds the roster too and is all that fedft provision accept reads. The other files
are for people, and for who puts things in place by hand.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from fedft.config.policy import policy_template
from fedft.deployment.certificates import load_certificate, require_certificate_for, require_host
from fedft.deployment.provision_federation import require_port
from fedft.deployment.provision_relay import RELAY
from fedft.deployment.provision_request import JoinRequest
from fedft.deployment.provision_start import flower_lines, nginx_line
from fedft.deployment.proxy import CONFIGURATION, forwarder_configuration
from fedft.durable import write_whole
from fedft.errors import ConfigError, IdentityError
from fedft.identity.documents import MAX_DOCUMENT_BYTES, read_document, write_document
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.roster import require_name
from fedft.model.checkpoint import storage_errors, whole_folder

KIT_LABEL = "fedft/v1/kit"
KIT_FILE = "kit.json"
FORWARDER_PORT = 9093
"""On an institution's loopback, unless it chose another."""
RUNTIME_PORT = FORWARDER_PORT + 1
"""The SuperNode's own, for what it starts; on loopback too."""

LAST_PORT = 65535

_ARCHIVES = (".tar.gz", ".tgz")
_FIELDS = {"federation", "coordinator", "name", "host", "port", "authority", "certificate", "roster"}


@dataclass(frozen=True)
class Kit:
    """What the coordinator says to one institution. authority, certificate: PEM; roster: the signed file."""

    federation: str
    coordinator: PublicKey
    name: str
    host: str
    port: int
    authority: bytes
    certificate: bytes
    roster: bytes

    def sealed(self, key: PrivateKey) -> bytes:
        """The file kit.json."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        texts = {name: value.decode() for name, value in fields.items() if isinstance(value, bytes)}
        return write_document(KIT_LABEL, {**fields, **texts, "coordinator": self.coordinator.text}, [key])

    @classmethod
    def open(cls, data: bytes, coordinator: PublicKey) -> Kit:
        """The kit in ``data``. Raises IdentityError unless ``coordinator`` signed it, and no other key did."""
        fields, signers = read_document(KIT_LABEL, data)
        if signers != {coordinator} or fields.get("coordinator") != coordinator.text:
            raise IdentityError(
                f"expected a kit signed by {coordinator.text[:16]}..., found another signer: compare the key in "
                "institution.json with the one that the coordinator's people read to you"
            )
        try:
            if set(fields) != _FIELDS:
                raise KeyError
            authority, certificate, roster = (fields[name].encode() for name in ("authority", "certificate", "roster"))
            where = require_host(fields["host"]), require_port(fields["port"])
            names = require_name(fields["federation"]), coordinator, require_name(fields["name"])
        except (ConfigError, KeyError, TypeError, AttributeError):
            raise IdentityError("expected a kit as docs/SPEC.md has it, found other fields or values") from None
        return cls(*names, *where, authority, certificate, roster)

    @classmethod
    def read(cls, path: Path, coordinator: PublicKey) -> Kit:
        """The kit in an archive, a folder, or kit.json itself. Raises ConfigError if there is none."""
        try:
            if path.is_dir():
                data = (path / KIT_FILE).read_bytes()
            elif path.name.endswith(_ARCHIVES):
                data = _first_of_archive(path)
            else:
                data = path.read_bytes()
        except (OSError, EOFError, zlib.error, tarfile.TarError):
            raise ConfigError(f"expected a kit at {path}, found none that can be read: correct the path") from None
        return cls.open(data, coordinator)

    def require_for(self, request: JoinRequest) -> None:
        """Raise IdentityError unless the certificate is the authority's, valid now, and what ``request`` asked for."""
        certificate, authority = load_certificate(self.certificate), load_certificate(self.authority)
        require_certificate_for(certificate, authority, request.member.name, request.certificate_request)


def institution_files(kit: Kit, forwarder_port: int) -> dict[str, bytes]:
    """What of an institution's folder follows from a kit. Nothing in it is secret."""
    forwarder = forwarder_configuration(host=kit.host, port=kit.port, listen_port=forwarder_port)
    policy = policy_template(kit.name, kit.federation, kit.coordinator.text)
    return {
        "roster.json": kit.roster,
        "coordinator.pub": f"{kit.coordinator.text}\n".encode(),
        "forwarder/ca.crt": kit.authority,
        "forwarder/client.crt": kit.certificate,
        f"forwarder/{CONFIGURATION}": forwarder.encode(),
        "policy.template.toml": policy.encode(),
        "README.md": _readme(kit, forwarder_port).encode(),
    }


def supernode_command(folder: str, *, forwarder_port: int, socket: str, runtime_port: int = RUNTIME_PORT) -> list[str]:
    """How an institution's SuperNode is started: with the forwarder on loopback, its node key, and the agent's socket.

    Parameters
    ----------
    folder : the institution's folder
    socket : path of the agent's socket
    runtime_port : Flower's own, on loopback; another one for each SuperNode on a machine
    """
    return [
        "flower-supernode",
        "--superlink",
        f"localhost:{forwarder_port}",
        "--root-certificates",
        f"{folder}/supernode/loopback.crt",
        "--auth-supernode-private-key",
        f"{folder}/supernode/node.key",
        "--node-config",
        f'agent="{socket}"',
        "--port",
        str(runtime_port),
    ]


def runtime_port_beside(forwarder_port: int) -> int:
    """So that two institutions on one machine, which chose different ports for their forwarders, differ in this too."""
    return forwarder_port + (1 if forwarder_port < LAST_PORT else -1)


def write_kit(kit: Kit, key: PrivateKey, forwarder_port: int, target: Path) -> None:
    """Write a kit as a .tar.gz, or as a new folder. Raises ConfigError if something is there."""
    if target.exists():
        raise ConfigError(f"expected nothing at {target}, found something: choose another name")
    files = {KIT_FILE: kit.sealed(key), **institution_files(kit, forwarder_port)}
    with storage_errors(target):
        if target.name.endswith(_ARCHIVES):
            write_whole(target, _archive(files))
            return
        with whole_folder(target) as folder:
            for name, content in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)


def _archive(files: dict[str, bytes]) -> bytes:
    """kit.json first; the same bytes for the same files."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as squeezed, tarfile.open(fileobj=squeezed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _first_of_archive(path: Path) -> bytes:
    """kit.json; what comes after it is not unpacked, however much the archive says it holds."""
    with gzip.open(path) as squeezed:
        start = squeezed.read(MAX_DOCUMENT_BYTES + 2 * tarfile.BLOCKSIZE)
    with tarfile.open(fileobj=io.BytesIO(start), mode="r:") as tar:
        entry = tar.next()
        if entry is None or entry.name != KIT_FILE or not entry.isreg() or entry.size > MAX_DOCUMENT_BYTES:
            raise ConfigError(f"expected a kit with {KIT_FILE} first in {path}, found another archive: give the kit")
        content = tar.extractfile(entry)
        return b"" if content is None else content.read()


def _readme(kit: Kit, forwarder_port: int) -> str:
    program, *arguments = supernode_command(
        ".",
        forwarder_port=forwarder_port,
        socket="$PWD/agent.sock",
        runtime_port=runtime_port_beside(forwarder_port),
    )
    supernode = flower_lines(program, arguments, home="supernode/flower", first=RELAY).replace("\n", "\n    ")
    return f"""\
# {kit.name} in the federation "{kit.federation}"

Put this kit into the folder that `fedft provision request` made, and have it checked:

    fedft provision accept FOLDER kit.tar.gz

Then write down in `FOLDER/policy.toml` which model and which data the federation may use, and what it may ask for: as
it is, it allows nothing. Every line is explained there.

Three commands, each kept running, from inside FOLDER (as three different users, if you can: the forwarder's reads
`forwarder/`, the SuperNode's reads `relay/`, reads and writes `supernode/`, the agent's all else). The SuperNode's PATH
begins with `relay/`: so it runs this institution's own relay, and no code that the coordinator sends:

    {nginx_line("forwarder")}

    fedft agent --policy policy.toml

    {supernode}

The forwarder calls {kit.host}:{kit.port} and nothing else leaves this machine; the SuperNode calls the forwarder on
loopback; the agent needs no network. `fedft provision check FOLDER` says whether keys, certificate and roster are as
they should be.
"""
