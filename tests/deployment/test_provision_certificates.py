"""Certificates serve one purpose, for the name and the key that asked, by one authority."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from fedft.deployment.certificates import (
    AUTHORITY_DAYS,
    Authority,
    load_certificate,
    load_key,
    make_loopback,
    make_request,
    new_key,
    read_certificate,
    require_certificate_for,
    require_host,
    require_issuer,
)
from fedft.errors import ConfigError, IdentityError


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("authority")
    return Authority.make("hospitals", key_file=folder / "ca.key", certificate_file=folder / "ca.crt")


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_the_authority_is_one_and_issues_no_other(authority: Authority) -> None:
    certificate = authority.certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    require_issuer(certificate, certificate)


def test_a_servers_certificate_is_for_its_hosts_and_no_clients(
    authority: Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    made = load_certificate(authority.server("x", ["coordinator.example.org", "127.0.0.1", "127.0.0.1"], key, days=10))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["coordinator.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1")]
    assert usages(made) == [Usage.SERVER_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    require_issuer(made, authority.certificate)


def test_an_institutions_is_for_its_name_and_no_server(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    request = make_request("north", key)
    made = load_certificate(authority.client("north", request, days=10))
    assert usages(made) == [Usage.CLIENT_AUTH]
    assert not made.extensions.get_extension_for_oid(x509.OID_EXTENDED_KEY_USAGE).critical
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    require_certificate_for(made, authority.certificate, "north", request)
    other = make_request("north", ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(IdentityError):
        require_certificate_for(made, authority.certificate, "north", other)
    with pytest.raises(IdentityError):
        require_certificate_for(made, authority.certificate, "south", request)


def test_of_a_request_only_the_key_is_taken(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("coordinator.example.org")]), critical=False)
        .sign(key, SHA256())
    )
    made = load_certificate(authority.client("north", request.public_bytes(Encoding.PEM), days=10))
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert usages(made) == [Usage.CLIENT_AUTH]
    assert {extension.oid for extension in made.extensions}.isdisjoint({x509.OID_SUBJECT_ALTERNATIVE_NAME})


def test_a_bad_request_is_refused(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    good = make_request("north", key)
    body = bytearray(x509.load_pem_x509_csr(good).public_bytes(Encoding.DER))
    body[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(body)).public_bytes(Encoding.PEM)
    two_names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("north", "south")])
    both = x509.CertificateSigningRequestBuilder().subject_name(two_names).sign(key, SHA256())
    weak = make_request("north", ec.generate_private_key(ec.SECP256R1()))
    for request in (make_request("south", key), forged, both.public_bytes(Encoding.PEM), weak, b"", b"none"):
        with pytest.raises(IdentityError):
            authority.client("north", request, days=10)


def test_dates_allow_for_a_slow_clock_and_end_with_the_authority(
    authority: Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    now = datetime.now(UTC)
    made = load_certificate(authority.server("x", ["localhost"], key, days=2 * AUTHORITY_DAYS))
    assert made.not_valid_before_utc < now - timedelta(hours=23)
    assert made.not_valid_after_utc == authority.certificate.not_valid_after_utc
    short = load_certificate(authority.server("x", ["localhost"], key, days=0))
    with pytest.raises(IdentityError, match="valid now"):
        require_issuer(short, authority.certificate)


def test_another_authoritys_is_refused_though_it_has_the_same_name(
    authority: Authority, key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    other = Authority.make("hospitals", key_file=tmp_path / "ca.key", certificate_file=tmp_path / "ca.crt")
    made = load_certificate(other.client("north", make_request("north", key), days=10))
    with pytest.raises(IdentityError, match="another issuer"):
        require_issuer(made, authority.certificate)


def test_the_list_of_revoked_ones_is_the_authoritys_and_does_not_run_out(
    authority: Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    request = make_request("north", key)
    made = [load_certificate(authority.client("north", request, days=10)) for _ in range(3)]
    found = x509.load_pem_x509_crl(authority.revocations([*made[:2], made[0]]))
    assert {entry.serial_number for entry in found} == {one.serial_number for one in made[:2]}
    public = authority.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert found.is_signature_valid(public)
    assert found.next_update_utc == authority.certificate.not_valid_after_utc
    assert len(list(x509.load_pem_x509_crl(authority.revocations([])))) == 0


def test_keys_come_back_from_private_files_alone(tmp_path: Path) -> None:
    made = new_key(tmp_path / "a.key")
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    assert load_key(tmp_path / "a.key").private_numbers() == made.private_numbers()
    (tmp_path / "a.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(tmp_path / "a.key")
    with pytest.raises(ConfigError, match="overwritten"):
        new_key(tmp_path / "a.key")


def test_an_authority_needs_both_of_its_files(authority: Authority, tmp_path: Path) -> None:
    new_key(tmp_path / "ca.key")
    (tmp_path / "ca.crt").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    with pytest.raises(ConfigError, match="restore both"):
        Authority.load(key_file=tmp_path / "ca.key", certificate_file=tmp_path / "ca.crt")
    with pytest.raises(ConfigError):
        read_certificate(tmp_path / "missing.crt")
    with pytest.raises(ConfigError):
        read_certificate(tmp_path / "ca.key")


def test_a_loopback_certificate_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    make_loopback(tmp_path / "a.key", tmp_path / "a.crt")
    made = read_certificate(tmp_path / "a.crt")
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert usages(made) == [Usage.SERVER_AUTH]
    require_issuer(made, made)


@pytest.mark.parametrize("host", ["localhost", "coordinator.example.org", "127.0.0.1", "::1", "a-b.c3"])
def test_hosts(host: str) -> None:
    assert require_host(host) == host


@pytest.mark.parametrize("host", ["", "a b", "a;b", "-a", "a..b", "a\n", "a_b", "[::1]", "1.2.3.4:80", "x" * 254])
def test_no_hosts(host: str) -> None:
    with pytest.raises(ConfigError):
        require_host(host)
