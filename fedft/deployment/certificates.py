"""The federation's own certificates: an authority, servers, and one client certificate for each institution.

Guarantees:
- A certificate serves one purpose: a server's is no client's, and an institution's opens no server.
- Of an institution's request only the public key is taken; names, purposes and dates are the authority's.
- Private keys are written with mode 0600, and read only so.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from fedft.errors import ConfigError, IdentityError
from fedft.identity.secret_files import read_secret, write_secret

Key = ec.EllipticCurvePrivateKey
AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 825
CLOCK_DIFFERENCE = timedelta(days=1)
"""How far behind another machine's clock may be and still accept a certificate made now."""

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*")


@dataclass(frozen=True)
class Authority:
    """Who issues the federation's certificates. The private key stays in the coordinator's folder."""

    certificate: x509.Certificate
    key: Key

    @classmethod
    def make(cls, federation: str, *, key_file: Path, certificate_file: Path) -> Authority:
        """A new authority, in two new files."""
        key = new_key(key_file)
        name = _name(f"fedft {federation}"[:64])
        certificate = _sign(
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()),
            key,
            issuer=key.public_key(),
            authority=True,
            days=AUTHORITY_DAYS,
        )
        certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        return cls(certificate, key)

    @classmethod
    def load(cls, *, key_file: Path, certificate_file: Path) -> Authority:
        """The authority in two files. Raises ConfigError unless they fit, or if others may read the key."""
        certificate, key = read_certificate(certificate_file), load_key(key_file)
        if certificate.public_key() != key.public_key():
            raise ConfigError(f"expected {key_file} to belong to {certificate_file}, found another key: restore both")
        return cls(certificate, key)

    def server(self, name: str, hosts: Sequence[str], key: Key, *, days: int) -> bytes:
        """A server's certificate in PEM for host names and addresses."""
        return self._issue(_name(name), key.public_key(), [Usage.SERVER_AUTH], hosts, days)

    def client(self, name: str, request: bytes, *, days: int) -> bytes:
        """An institution's certificate in PEM for the key of its request. Raises IdentityError for a bad request."""
        return self._issue(_name(name), read_request(request, name), [Usage.CLIENT_AUTH], [], days)

    def revocations(self, revoked: Iterable[x509.Certificate]) -> bytes:
        """The list of revoked certificates in PEM, valid as long as the authority: a stale list locks nobody out."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - CLOCK_DIFFERENCE)
            .next_update(self.certificate.not_valid_after_utc)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        )
        for serial in sorted({certificate.serial_number for certificate in revoked}):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, SHA384()).public_bytes(Encoding.PEM)

    def _issue(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        usages: list[x509.ObjectIdentifier],
        hosts: Sequence[str],
        days: int,
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if hosts:
            builder = builder.add_extension(_alternative_names(hosts), critical=False)
        last = self.certificate.not_valid_after_utc
        made = _sign(builder, self.key, issuer=self.key.public_key(), authority=False, days=days, last=last, of=key)
        return made.public_bytes(Encoding.PEM)


def make_loopback(key_file: Path, certificate_file: Path) -> None:
    """A self-signed server certificate for this machine alone, in two new files: trusted where it is named."""
    key = new_key(key_file)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("fedft loopback"))
        .issuer_name(_name("fedft loopback"))
        .public_key(key.public_key())
        .add_extension(x509.ExtendedKeyUsage([Usage.SERVER_AUTH]), critical=False)
        .add_extension(_alternative_names(("localhost", "127.0.0.1")), critical=False)
    )
    made = _sign(builder, key, issuer=key.public_key(), authority=False, days=AUTHORITY_DAYS)
    certificate_file.write_bytes(made.public_bytes(Encoding.PEM))


def new_key(path: Path) -> Key:
    """A new EC P-384 key in a new file of mode 0600."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def load_key(path: Path) -> Key:
    """The EC P-384 key in ``path``. Raises ConfigError for another, or one that others may read."""
    try:
        key = load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"expected an EC P-384 private key in PEM in {path}, found something else: restore it")
    return key


def make_request(name: str, key: Key) -> bytes:
    """A request for a client certificate, in PEM."""
    made = x509.CertificateSigningRequestBuilder().subject_name(_name(name)).sign(key, SHA384())
    return made.public_bytes(Encoding.PEM)


def read_request(request: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """The public key of a request. Raises IdentityError unless the key signed it, for ``name``, and is of P-384."""
    try:
        found = x509.load_pem_x509_csr(request)
        key, valid = found.public_key(), found.is_signature_valid and found.subject == _name(name)
    except (ValueError, UnsupportedAlgorithm):
        valid = False
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise IdentityError(
            "expected a certificate request for the institution's name, signed by its own EC P-384 key, found another: "
            "make the request anew with fedft provision request"
        )
    return key


def request_key(request: bytes) -> str:
    """The public key in a request that was read, in PEM."""
    key = x509.load_pem_x509_csr(request).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a PEM file. Raises ConfigError if there is none."""
    try:
        return load_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"expected a certificate at {path}, found {error.strerror}: correct the path") from None
    except IdentityError:
        raise ConfigError(f"expected a certificate in PEM in {path}, found something else: restore it") from None


def load_certificate(data: bytes) -> x509.Certificate:
    """The certificate in ``data``. Raises IdentityError if it is none in PEM."""
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        raise IdentityError("expected a certificate in PEM, found something else: send it as it was made") from None


def require_issuer(certificate: x509.Certificate, authority: x509.Certificate) -> None:
    """Raise IdentityError unless ``authority`` issued ``certificate``, and it is valid now."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityError(
            "expected a certificate of the federation's authority, found another issuer's: ask for a new kit"
        ) from error
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise IdentityError(
            f"expected a certificate that is valid now, found one from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}: check the clock, or ask for a new kit"
        )


def require_certificate_for(
    certificate: x509.Certificate, authority: x509.Certificate, name: str, request: bytes
) -> None:
    """Raise IdentityError unless ``authority`` issued it, it is valid now, and for the name and key of ``request``."""
    require_issuer(certificate, authority)
    if certificate.public_key() != read_request(request, name) or certificate.subject != _name(name):
        raise IdentityError(
            "expected a certificate for this institution's name and key, found another: ask the coordinator to admit "
            "the request in this folder, and accept the kit that follows"
        )


def require_host(host: str) -> str:
    """``host`` itself. Raises ConfigError unless it is a host name or an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise ConfigError(f'expected a host name or an IP address, found "{host[:80]}": correct it') from None
    return host


def _alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _sign(
    builder: x509.CertificateBuilder,
    key: Key,
    *,
    issuer: ec.EllipticCurvePublicKey,
    authority: bool,
    days: int,
    last: datetime | None = None,
    of: ec.EllipticCurvePublicKey | None = None,
) -> x509.Certificate:
    """Sign with the dates and the extensions that every certificate here has. ``of``: the subject's key, else own."""
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    usage = {
        "digital_signature": not authority,
        "key_cert_sign": authority,
        "crl_sign": authority,
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "encipher_only": False,
        "decipher_only": False,
    }
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_DIFFERENCE)
        .not_valid_after(end if last is None else min(end, last))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(of or issuer), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        .sign(key, SHA384())
    )
