"""The coordinator's folder: what init makes, who is admitted, and that every way in that should be closed is."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fedft.deployment.provision import Coordinator
from fedft.deployment.provision_institution import Institution
from fedft.deployment.provision_request import make_join_request, read_join_request
from fedft.errors import ConfigError, FederationError, IdentityError, StorageError
from fedft.identity.documents import canonical, write_document
from fedft.identity.keys import PrivateKey
from fedft.identity.roster import Roster
from tests.deployment.federation import Made, private_files


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made.at(tmp_path)


def revoked_serials(made: Made) -> set[int]:
    found = x509.load_pem_x509_crl((made.coordinator.folder / "proxy" / "ca.crl").read_bytes())
    return {entry.serial_number for entry in found}


def serial_of(made: Made, name: str) -> int:
    file = made.coordinator.folder / "members" / name / "client.crt"
    return x509.load_pem_x509_certificate(file.read_bytes()).serial_number


def test_init_makes_private_files_private_and_an_empty_roster(made: Made) -> None:
    folder = made.coordinator.folder
    secrets = private_files(folder)
    assert [path.relative_to(folder).as_posix() for path in secrets] == [
        "ca.key", "coordinator.key", "proxy/server.key", "superlink/server.key",
    ]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    opened = Coordinator.open(folder)
    assert opened == made.coordinator
    assert opened.check() == Roster("hospitals", 0, opened.key.public, ())
    assert revoked_serials(made) == set()
    assert str(folder) in (folder / "flower" / "config.toml").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "two words"}, {"name": ""}, {"name": "../x"}, {"host": ""}, {"host": "a b"}, {"host": "x;}"},
        {"host": "-x.org"}, {"host": "x" * 300}, {"host": "https://x.org"}, {"listen": "0.0.0.0; #"}, {"port": 0},
        {"port": 65536}, {"superlink_port": -1},
    ],
    ids=str,
)  # fmt: skip
def test_init_refuses_what_would_end_in_a_configuration(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Coordinator.init(tmp_path / "new", **{"name": "hospitals", "host": "x.org", **change})
    assert not list(tmp_path.iterdir())


def test_init_leaves_a_folder_with_something_in_it_alone(made: Made) -> None:
    before = (made.coordinator.folder / "coordinator.key").read_bytes()
    with pytest.raises(ConfigError, match="new folder"):
        Coordinator.init(made.coordinator.folder, name="hospitals", host="x.org")
    assert (made.coordinator.folder / "coordinator.key").read_bytes() == before


def test_an_init_that_is_cut_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Roster, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError):
        Coordinator.init(tmp_path / "new", name="hospitals", host="x.org")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["coordinator.key", "ca.key", "proxy/server.key", "superlink/server.key"])
def test_a_key_that_others_may_read_is_refused_at_the_start(made: Made, name: str) -> None:
    (made.coordinator.folder / name).chmod(0o640)
    with pytest.raises(ConfigError, match=r"0600.*0640"):
        Coordinator.open(made.coordinator.folder)
    (made.coordinator.folder / name).unlink()
    if name != "ca.key":  # which may be kept elsewhere
        with pytest.raises(ConfigError):
            Coordinator.open(made.coordinator.folder)


@pytest.mark.parametrize("empty", [False, True])
def test_without_the_authoritys_key_it_works_and_admits_revokes_or_renews_nobody(made: Made, empty: bool) -> None:
    north, south = made.member("north"), made.institution("south")
    key = made.coordinator.folder / "ca.key"
    kept = key.rename(made.folder / "elsewhere")
    if empty:
        key.touch(0o600)
    opened = Coordinator.open(made.coordinator.folder)
    assert [member.name for member in opened.check().members] == ["north"]
    opened.kit("north", made.folder / "again.tar.gz")
    before = sorted((path, path.stat().st_mtime_ns) for path in opened.folder.rglob("*"))
    replacing = opened.read_request(north.request_replacement())
    for change in (
        lambda: opened.admit(made.request_of(south)),
        lambda: opened.admit(replacing, replacing=True),
        lambda: opened.revoke("north"),
        opened.renew,
    ):
        with pytest.raises(ConfigError, match="bring it back"):
            change()
    assert before == sorted((path, path.stat().st_mtime_ns) for path in opened.folder.rglob("*"))
    kept.rename(key)
    assert [member.name for member in opened.admit(made.request_of(south)).members] == ["north", "south"]


def test_another_coordinators_key_or_none_is_refused(made: Made, tmp_path: Path) -> None:
    (made.coordinator.folder / "coordinator.key").unlink()
    PrivateKey.generate().save(made.coordinator.folder / "coordinator.key")
    with pytest.raises(ConfigError, match="restore"):
        Coordinator.open(made.coordinator.folder)
    with pytest.raises(ConfigError, match="fedft provision init"):
        Coordinator.open(tmp_path / "nothing")


def test_admission_issues_a_certificate_and_the_next_roster(made: Made) -> None:
    north = made.institution("north")
    request = made.request_of(north)
    roster = made.coordinator.admit(request)
    assert (roster.version, roster.member("north")) == (1, request.member)
    assert Roster.read(made.coordinator.folder / "roster.json", made.coordinator.federation.coordinator) == roster
    assert made.coordinator.listed()[0] | {"days": 0} == {
        "name": "north", "fingerprint": request.member.key.fingerprint, "days": 0, "registered": False,
    }  # fmt: skip
    second = made.coordinator.admit(made.request_of(made.institution("south")))
    assert [member.name for member in second.members] == ["north", "south"]
    assert not private_files(made.coordinator.folder / "members")


def test_nobody_is_admitted_twice(made: Made) -> None:
    north = made.member("north")
    with pytest.raises(IdentityError, match="--replace"):
        made.coordinator.admit(made.request_of(north))
    with pytest.raises(IdentityError, match="old identity key"):
        made.coordinator.admit(made.request_of(made.institution("north", "impostor")), replacing=True)
    assert made.coordinator.roster.version == 1


def test_nobody_is_admitted_with_anothers_keys(made: Made, tmp_path: Path) -> None:
    north, south = made.member("north"), made.institution("south")
    federation = made.coordinator.federation

    def request(key: Institution, node: Institution) -> bytes:
        return make_join_request(
            federation=federation.name,
            coordinator=federation.coordinator,
            name="south",
            keys=[PrivateKey.load(key.folder / "identity.key")],
            node_key=made.request_of(node).member.node_key,
            node_key_file=node.folder / "supernode" / "node.key",
            certificate_request=made.request_of(south).certificate_request,
        )

    for number, data in enumerate((request(north, south), request(south, north))):
        (tmp_path / f"{number}.json").write_bytes(data)
        with pytest.raises(IdentityError, match="keys of its own"):
            made.coordinator.admit(made.coordinator.read_request(tmp_path / f"{number}.json"))
    assert made.coordinator.roster.version == 1


def test_a_new_key_that_the_old_one_signed_for_replaces_it(made: Made) -> None:
    north = made.member("north")
    before, serial = made.request_of(north), serial_of(made, "north")
    north.request_replacement()
    request = made.coordinator.read_request(north.folder / "next" / "request.json")
    with pytest.raises(IdentityError, match="--replace"):
        made.coordinator.admit(request)
    roster = made.coordinator.admit(request, replacing=True)
    assert roster.version == 2
    assert not request.public_keys & before.public_keys
    assert roster.member("north") == request.member
    assert revoked_serials(made) == {serial}


def test_a_stranger_replaces_nobodys_keys(made: Made) -> None:
    with pytest.raises(IdentityError, match="leave --replace out"):
        made.coordinator.admit(made.request_of(made.institution("north")), replacing=True)


def test_who_is_revoked_is_off_the_roster_and_its_keys_do_not_come_back(made: Made) -> None:
    north, _ = made.member("north"), made.member("south")
    serial = serial_of(made, "north")
    roster = made.coordinator.revoke("north")
    assert (roster.version, [member.name for member in roster.members]) == (3, ["south"])
    assert revoked_serials(made) == {serial}
    with pytest.raises(IdentityError, match="revoked"):
        made.coordinator.admit(made.request_of(north))
    with pytest.raises(IdentityError):
        made.coordinator.revoke("north")
    with pytest.raises(IdentityError):
        made.coordinator.kit("north", made.folder / "kit.tar.gz")
    again = made.coordinator.admit(made.request_of(made.institution("north", "north-2")))
    assert (again.version, again.member("north").name) == (4, "north")
    assert revoked_serials(made) == {serial}


@pytest.mark.parametrize("change", ["revoke", "replace"])
def test_a_change_that_is_cut_off_before_the_roster_can_be_made_again(
    made: Made, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    north = made.member("north")
    serial = serial_of(made, "north")
    request = made.coordinator.read_request(north.request_replacement())

    def act() -> None:
        if change == "revoke":
            made.coordinator.revoke("north")
        else:
            made.coordinator.admit(request, replacing=True)

    with monkeypatch.context() as cut:
        cut.setattr(Roster, "write", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(StorageError):
            act()
    assert made.coordinator.roster.version == 1
    assert serial in revoked_serials(made)
    act()
    assert made.coordinator.roster.version == 2
    assert serial in revoked_serials(made)
    if change == "replace":
        assert serial_of(made, "north") not in revoked_serials(made)
        north.accept(made.kit("north"))
        north.check()


def test_one_change_at_a_time(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.member("north")
    other = Coordinator.open(made.coordinator.folder)

    def meanwhile(*_: object) -> None:
        with pytest.raises(ConfigError, match="another fedft provision"):
            other.revoke("north")

    monkeypatch.setattr(Coordinator, "_set_aside", meanwhile)
    made.coordinator.revoke("north")


def test_renewal_keeps_keys_and_replaces_certificates(made: Made) -> None:
    folder = made.coordinator.folder
    before = {path: path.read_bytes() for path in folder.rglob("server.*")}
    made.coordinator.renew()
    after = {path: path.read_bytes() for path in folder.rglob("server.*")}
    assert {path.name for path in before if before[path] == after[path]} == {"server.key"}
    made.coordinator.check()


def test_a_reload_that_fails_says_so(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not made.coordinator.reload_proxy()
    monkeypatch.setattr("fedft.deployment.proxy._is_nginx", lambda _: True)
    monkeypatch.setattr("fedft.deployment.proxy.nginx_command", lambda *_: ["false"])
    with pytest.raises(FederationError, match="restart the proxy"):
        made.coordinator.reload_proxy()


class TestRequests:
    """What a request must be before anyone is asked about its fingerprint."""

    def fields(self, made: Made, institution: Institution) -> dict[str, Any]:
        return dict(json.loads((institution.folder / "request.json").read_bytes())["signed"])

    def read(self, made: Made, data: bytes) -> None:
        federation = made.coordinator.federation
        read_join_request(data, federation=federation.name, coordinator=federation.coordinator)

    def test_it_holds_nothing_private(self, made: Made) -> None:
        institution = made.institution("north")
        request = (institution.folder / "request.json").read_bytes()
        assert b"PRIVATE" not in request
        for path in private_files(institution.folder):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert not any(line in request for line in path.read_bytes().splitlines() if len(line) > 30)

    def test_no_byte_of_it_can_be_altered(self, made: Made) -> None:
        data = (made.institution("north").folder / "request.json").read_bytes()
        for at in range(0, len(data), 7):
            with pytest.raises(IdentityError):
                self.read(made, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"name": "south"}, "private key of its SuperNode"),
            ({"federation": "banks"}, "another federation"),
            ({"coordinator": PrivateKey.generate().public.text}, "another federation or coordinator"),
            ({"key": PrivateKey.generate().public.text}, "other signers"),
            ({"node_key": "ssh-ed25519 AAAA"}, "node key"),
            ({"node_proof": "00"}, "private key of its SuperNode"),
            ({"certificate_request": "none"}, "certificate request"),
            ({"name": "a b"}, "name of letters"),
            ({"note": "hello"}, "other fields"),
            ({"name": 7}, "other fields"),
        ],
        ids=[str(number) for number in range(10)],
    )
    def test_every_part_fits_the_others(self, made: Made, change: dict[str, Any], message: str) -> None:
        institution = made.institution("north")
        key = PrivateKey.load(institution.folder / "identity.key")
        data = write_document("fedft/v1/join", {**self.fields(made, institution), **change}, [key])
        with pytest.raises(IdentityError, match=message):
            self.read(made, data)

    def test_a_certificate_request_for_another_name_is_refused(self, made: Made) -> None:
        north, south = made.institution("north"), made.institution("south")
        fields = self.fields(made, north)
        fields["certificate_request"] = self.fields(made, south)["certificate_request"]
        data = write_document("fedft/v1/join", fields, [PrivateKey.load(north.folder / "identity.key")])
        with pytest.raises(IdentityError, match="certificate request"):
            self.read(made, data)

    def test_without_a_signature_it_is_none(self, made: Made) -> None:
        signed = {**self.fields(made, made.institution("north"))}
        with pytest.raises(IdentityError):
            self.read(made, canonical({"signatures": {}, "signed": signed}) + b"\n")
        with pytest.raises(ConfigError):
            made.coordinator.read_request(made.folder / "missing.json")
