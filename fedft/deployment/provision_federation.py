"""What everyone may know of a federation: the file federation.json. Form: docs/SPEC.md, "Join request"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedft.deployment.certificates import require_host
from fedft.errors import ConfigError, IdentityError
from fedft.identity.documents import read_document, write_document
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.roster import require_name

FEDERATION_LABEL = "fedft/v1/federation"


@dataclass(frozen=True)
class Federation:
    """What everyone may know: its name, its coordinator's key, and where the coordinator's proxy listens."""

    name: str
    coordinator: PublicKey
    host: str
    port: int

    def sealed(self, key: PrivateKey) -> bytes:
        """The file federation.json."""
        fields = {"federation": self.name, "coordinator": self.coordinator.text, "host": self.host, "port": self.port}
        return write_document(FEDERATION_LABEL, fields, [key])

    @classmethod
    def read(cls, path: Path) -> Federation:
        """The federation in a file. Raises ConfigError if there is none, and as open does."""
        try:
            return cls.open(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"expected a federation.json at {path}, found {error.strerror}: correct it") from None

    @classmethod
    def open(cls, data: bytes) -> Federation:
        """The federation in ``data``. Raises IdentityError unless the coordinator that it names signed it.

        Anyone can make such a file: whether this is the coordinator's key, its people have to say.
        """
        fields, signers = read_document(FEDERATION_LABEL, data)
        try:
            if set(fields) != {"federation", "coordinator", "host", "port"}:
                raise KeyError
            coordinator = PublicKey(fields["coordinator"])
            made = cls(require_name(fields["federation"]), coordinator, require_host(fields["host"]), fields["port"])
            require_port(made.port)
        except (ConfigError, KeyError, TypeError):
            raise IdentityError("expected a federation.json as docs/SPEC.md has it, found other values") from None
        if signers != {made.coordinator}:
            raise IdentityError("expected a federation.json signed by the coordinator it names, found other signers")
        return made


def require_port(port: int) -> int:
    """``port`` itself. Raises ConfigError unless it is from 1 to 65535."""
    if type(port) is not int or not 1 <= port <= 65535:
        raise ConfigError(f"expected a port from 1 to 65535, found {port}: correct it")
    return port
