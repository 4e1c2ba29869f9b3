"""An institution's folder: its keys stay, a kit counts only if the coordinator signed it, nothing older returns."""

from __future__ import annotations

import io
import json
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fedft.config.policy import load_policy
from fedft.deployment.provision_institution import Institution
from fedft.deployment.provision_kit import Kit
from fedft.errors import ConfigError, FedftError, IdentityError, StorageError
from fedft.identity.keys import PrivateKey
from tests.deployment.federation import Made, private_files

SECRETS = ["forwarder/client.key", "forwarder/loopback.key", "identity.key", "supernode/node.key"]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made.at(tmp_path)


def test_its_keys_are_private_and_its_own(made: Made) -> None:
    north, south = made.institution("north"), made.institution("south")
    files = private_files(north.folder)
    assert [path.relative_to(north.folder).as_posix() for path in files] == SECRETS
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert len({path.read_bytes() for path in [*files, *private_files(south.folder)]}) == 8
    assert Institution.open(north.folder) == north


def test_a_kit_holds_what_one_needs_and_nothing_secret(made: Made) -> None:
    made.coordinator.admit(made.request_of(made.institution("north")))
    made.coordinator.kit("north", made.folder / "kit")
    names = {path.relative_to(made.folder / "kit").as_posix() for path in (made.folder / "kit").rglob("*.*")}
    assert names == {
        "kit.json", "roster.json", "coordinator.pub", "forwarder/ca.crt", "forwarder/client.crt",
        "forwarder/nginx.conf", "policy.template.toml", "README.md",
    }  # fmt: skip
    assert not private_files(made.folder / "kit")
    archive = made.kit("north")
    with tarfile.open(archive) as tar:
        assert set(tar.getnames()) == names
        assert tar.getnames()[0] == "kit.json"
        assert {member.mode for member in tar} == {0o644}
    with pytest.raises(ConfigError, match="choose another name"):
        made.coordinator.kit("north", archive)


@pytest.mark.parametrize("form", ["archive", "folder", "file"])
def test_a_kit_is_put_in_place(made: Made, form: str) -> None:
    north = made.institution("north")
    made.coordinator.admit(made.request_of(north))
    made.coordinator.kit("north", made.folder / "kit")
    path = {"archive": made.kit("north"), "folder": made.folder / "kit", "file": made.folder / "kit" / "kit.json"}[form]
    roster = north.accept(path)
    assert roster == north.check() == made.coordinator.roster
    assert not [path for kind in ("partial", "tmp") for path in north.folder.rglob(f"*.{kind}")]
    policy = load_policy(north.folder / "policy.toml")
    assert (policy.institution.name, policy.institution.federation) == ("north", "hospitals")
    assert policy.institution.coordinator == made.coordinator.federation.coordinator.text
    assert policy.institution.identity.samefile(north.folder / "identity.key")
    assert "fedft agent --policy policy.toml" in (north.folder / "README.md").read_text()


def test_the_institutions_policy_is_its_own(made: Made) -> None:
    north = made.institution("north")
    made.coordinator.admit(made.request_of(north))
    made.coordinator.kit("north", made.folder / "kit")
    for name in ("policy.template.toml", "forwarder/nginx.conf", "README.md"):
        (made.folder / "kit" / name).write_text("what the coordinator would like to run here\n")
    north.accept(made.folder / "kit")
    for path in north.folder.rglob("*"):
        assert path.is_dir() or b"would like" not in path.read_bytes()
    (north.folder / "policy.toml").write_text("# mine\n")
    north.accept(made.kit("north"))
    assert (north.folder / "policy.toml").read_text() == "# mine\n"


def altered_kit(made: Made, of: str, /, *, signer: PrivateKey | None = None, **changes: Any) -> Path:
    """A kit with other values; signed by the coordinator itself unless another ``signer`` is given."""
    coordinator = made.coordinator.federation.coordinator
    kit = Kit.read(made.kit(of), coordinator)
    target = made.folder / "altered.json"
    target.write_bytes(Kit(**{**vars(kit), **changes}).sealed(signer or made.coordinator.key))
    return target


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_kit_of_another_signer_is_refused(made: Made, tmp_path: Path) -> None:
    north = made.member("north")
    before = snapshot(north.folder)
    stranger = PrivateKey.generate()
    other = Made.at(tmp_path / "other")
    other_north = other.institution("north")
    other.coordinator.admit(other.request_of(other_north))
    for path in (
        altered_kit(made, "north", signer=stranger),
        altered_kit(made, "north", signer=stranger, coordinator=stranger.public),
        other.kit("north"),
    ):
        with pytest.raises(IdentityError, match="another signer"):
            north.accept(path)
    assert snapshot(north.folder) == before


def test_no_byte_of_a_kit_can_be_altered(made: Made) -> None:
    north = made.member("north")
    before = snapshot(north.folder)
    made.coordinator.kit("north", made.folder / "kit")
    data = (made.folder / "kit" / "kit.json").read_bytes()
    for at in range(0, len(data), 11):
        (made.folder / "kit" / "kit.json").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(IdentityError):
            north.accept(made.folder / "kit")
    assert snapshot(north.folder) == before


def test_a_kit_that_does_not_fit_is_refused(made: Made) -> None:
    north, _ = made.member("north"), made.member("south")
    south_kit = Kit.read(made.kit("south"), north.coordinator)
    before = snapshot(north.folder)
    for changes, message in (
        ({"name": "south"}, "another's"),
        ({"federation": "banks"}, "another's"),
        ({"certificate": south_kit.certificate}, "another"),
        ({"authority": made.coordinator.folder.joinpath("proxy", "server.crt").read_bytes()}, "another issuer"),
        ({"certificate": b"none"}, "PEM"),
        ({"roster": b"none"}, "canonical"),
        ({"host": "x; }"}, "other fields or values"),
        ({"port": 0}, "other fields or values"),
        ({"port": True}, "other fields or values"),
    ):
        with pytest.raises(IdentityError, match=message):
            north.accept(altered_kit(made, "north", **changes))
    with pytest.raises(IdentityError, match="another's"):
        north.accept(made.kit("south"))
    assert snapshot(north.folder) == before


def test_a_kit_with_an_older_roster_is_refused(made: Made) -> None:
    north = made.member("north")
    older = made.kit("north")
    made.member("south")
    north.accept(made.kit("north"))
    with pytest.raises(IdentityError, match="version 2"):
        north.accept(older)
    (north.folder / "roster.json").write_bytes(Kit.read(older, north.coordinator).roster)
    with pytest.raises(IdentityError, match="version 2"):
        north.check()


def test_keys_are_replaced_once_a_kit_for_the_new_ones_is_accepted(made: Made) -> None:
    north = made.member("north")
    before = {name: (north.folder / name).read_bytes() for name in SECRETS}
    older = made.kit("north")
    (north.folder / "policy.toml").write_text("# mine\n")
    request = made.coordinator.read_request(north.request_replacement())
    north.check()
    made.coordinator.admit(request, replacing=True)
    north.accept(made.kit("north"))
    north.check()
    after = {name: (north.folder / name).read_bytes() for name in SECRETS}
    assert not set(before.values()) & set(after.values())
    assert {name: (north.folder / "before-2" / name).read_bytes() for name in SECRETS} == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in private_files(north.folder)} == {0o600}
    assert not (north.folder / "next").exists()
    assert (north.folder / "policy.toml").read_text() == "# mine\n"
    with pytest.raises(IdentityError):
        north.accept(older)


def test_a_replacement_that_is_cut_off_goes_on_with_the_next_accept(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = made.member("north")
    before = {name: (north.folder / name).read_bytes() for name in SECRETS}
    made.coordinator.admit(made.coordinator.read_request(north.request_replacement()), replacing=True)
    expected = {name: (north.folder / "next" / name).read_bytes() for name in SECRETS}
    kit, replaced = made.kit("north"), Path.replace
    for cut in range(7):

        def cut_off(path: Path, target: Path, counted: list[int] = [], last: int = cut) -> Path:  # noqa: B006
            counted.append(1)
            if len(counted) > last:
                raise OSError(5, "Input/output error")
            return replaced(path, target)

        with monkeypatch.context() as context:
            context.setattr(Path, "replace", cut_off)
            with pytest.raises(StorageError):
                north.accept(kit)
        assert (north.folder / "next" / "identity.key").exists()
    with monkeypatch.context() as context:
        context.setattr(shutil, "rmtree", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(StorageError):
            north.accept(kit)
    north.accept(kit)
    north.check()
    assert {name: (north.folder / name).read_bytes() for name in SECRETS} == expected
    assert {name: (north.folder / "before-2" / name).read_bytes() for name in SECRETS} == before
    assert not [path for kind in ("partial", "tmp") for path in north.folder.rglob(f"*.{kind}")]


@pytest.mark.parametrize("name", SECRETS)
def test_a_key_that_others_may_read_is_refused_by_the_check(made: Made, name: str) -> None:
    north = made.member("north")
    (north.folder / name).chmod(0o644)
    with pytest.raises(ConfigError, match=r"0600.*0644"):
        north.check()


@pytest.mark.parametrize("name", ["roster.json", "forwarder/client.crt", "forwarder/ca.crt", "identity.key"])
def test_what_is_missing_or_another_is_refused_by_the_check(made: Made, name: str) -> None:
    north = made.member("north")
    content = (north.folder / name).read_bytes()
    (north.folder / name).write_bytes(b"something else")
    if name != "identity.key":  # a private key is looked at by its own program alone
        with pytest.raises(FedftError):
            north.check()
    (north.folder / name).unlink()
    with pytest.raises(FedftError):
        north.check()
    (north.folder / name).write_bytes(content)
    (north.folder / name).chmod(0o600)
    north.check()


def test_an_expired_certificate_is_refused(made: Made) -> None:
    north = made.institution("north")
    made.coordinator.admit(made.request_of(north), days=0)
    with pytest.raises(IdentityError, match="valid now"):
        north.accept(made.kit("north"))


def test_requests_are_made_in_new_folders_alone(made: Made) -> None:
    north = made.institution("north")
    before = snapshot(north.folder)
    with pytest.raises(ConfigError, match="--replace"):
        made.institution("north")
    assert snapshot(north.folder) == before
    with pytest.raises(ConfigError):
        made.institution("no name")
    with pytest.raises(ConfigError, match="fedft provision request"):
        Institution.open(made.folder / "nothing")
    (north.folder / "institution.json").write_text("{}")
    with pytest.raises(StorageError):
        Institution.open(north.folder)


@pytest.mark.parametrize("first", [None, "../kit.json", "kit.json as a link", "other", "too large"])
def test_an_archive_that_is_no_kit_is_refused(made: Made, first: str | None) -> None:
    north = made.member("north")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        if first is not None:
            entry = tarfile.TarInfo("kit.json" if first in ("kit.json as a link", "too large") else first)
            if first == "kit.json as a link":
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            content = b"" if entry.issym() else b"x" * (5 * 2**20 if first == "too large" else 10)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    (made.folder / "kit.tar.gz").write_bytes(packed.getvalue())
    with pytest.raises(ConfigError):
        north.accept(made.folder / "kit.tar.gz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00"])
def test_what_is_no_archive_is_refused(made: Made, content: bytes) -> None:
    north = made.member("north")
    (made.folder / "kit.tgz").write_bytes(content)
    with pytest.raises(ConfigError):
        north.accept(made.folder / "kit.tgz")
    with pytest.raises(ConfigError):
        north.accept(made.folder / "missing.tar.gz")


def test_the_facts_that_are_remembered_are_no_secrets(made: Made) -> None:
    north = made.institution("north")
    facts = json.loads((north.folder / "institution.json").read_bytes())
    assert set(facts) == {"label", "name", "federation", "coordinator", "forwarder_port"}
