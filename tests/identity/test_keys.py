"""Keys stay private and whole: files, modes, reprs, and what a signature holds for."""

from __future__ import annotations

import copy
import os
import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.errors import ConfigError, IdentityError, StorageError
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.node_keys import load_node_key, make_node_key, prove_node_key, require_node_key, require_node_proof
from fedft.identity.secret_files import MAX_SECRET_BYTES, read_secret, require_secret, write_secret
from fedft.identity.signed import open_signed, seal

LABEL = "fedft/v1/answer"
KEY, OTHER = PrivateKey.generate(), PrivateKey.generate()


@given(st.binary(max_size=300))
def test_what_is_sealed_opens_for_its_key_and_label_alone(payload: bytes) -> None:
    sealed = seal(LABEL, payload, KEY)
    assert open_signed(LABEL, sealed, KEY.public) == payload
    for label, key in ((LABEL, OTHER.public), ("fedft/v1/request", KEY.public)):
        with pytest.raises(IdentityError):
            open_signed(label, sealed, key)


@given(st.binary(max_size=40), st.data())
def test_no_byte_of_it_can_be_altered(payload: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(LABEL, payload, KEY))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IdentityError):
        open_signed(LABEL, bytes(sealed), KEY.public)


@pytest.mark.parametrize("label", ["", "answer", "fedft/v0/answer", "fedft/v1/", "fedft/v1/An", "fedft/v1/a\nb"])
def test_a_label_that_names_nothing_is_refused(label: str) -> None:
    with pytest.raises(IdentityError):
        KEY.sign(label, b"")
    with pytest.raises(IdentityError):
        KEY.public.verify(label, b"", bytes(64))


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(IdentityError):
        KEY.public.verify(LABEL, b"", bytes(size))


def test_a_private_key_is_neither_shown_nor_pickled_nor_copied(tmp_path: Path) -> None:
    KEY.save(tmp_path / "key")
    secret = (tmp_path / "key").read_text().splitlines()[1]
    assert secret not in repr(KEY)
    assert KEY.public.text in repr(KEY)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(KEY)
    assert pickle.loads(pickle.dumps(KEY.public)) == KEY.public


def test_a_key_comes_back_from_its_file(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        KEY.save(tmp_path / "key")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert PrivateKey.load(tmp_path / "key").public == KEY.public
    (tmp_path / "key").chmod(0o400)
    assert PrivateKey.load(tmp_path / "key").public == KEY.public


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    KEY.save(tmp_path / "key")
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        OTHER.save(tmp_path / "key")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError):
        OTHER.save(tmp_path / "link")
    assert (tmp_path / "key").read_bytes() == before
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(StorageError):
        OTHER.save(tmp_path / "no-folder" / "key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666, 0o700, 0o200, 0o4600, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    KEY.save(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    if mode == 0o200 and os.geteuid() != 0:
        mode = 0
    with pytest.raises(ConfigError, match="chmod 600" if mode else "key"):
        PrivateKey.load(tmp_path / "key")
    with pytest.raises(ConfigError):
        require_secret(tmp_path / "key")


def test_a_key_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KEY.save(tmp_path / "key")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="12345"):
        PrivateKey.load(tmp_path / "key")


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    KEY.save(tmp_path / "key")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe", "missing", "."):
        with pytest.raises(ConfigError):
            read_secret(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_another_content_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    write_secret(tmp_path / "key", content)
    with pytest.raises(ConfigError) as caught:
        PrivateKey.load(tmp_path / "key")
    assert "AAAA" not in str(caught.value)
    assert "no key" not in str(caught.value)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    make_node_key(tmp_path / "node.key")
    KEY.save(tmp_path / "identity.key")
    with pytest.raises(ConfigError):
        PrivateKey.load(tmp_path / "node.key")
    with pytest.raises(ConfigError):
        load_node_key(tmp_path / "identity.key")


def test_a_secret_file_is_read_to_a_limit(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", b"x" * (2 * MAX_SECRET_BYTES))
    assert len(read_secret(tmp_path / "key")) == MAX_SECRET_BYTES


def test_a_node_key_is_what_flower_reads(tmp_path: Path) -> None:
    from flwr.cli.supernode.register import try_load_public_key

    text = make_node_key(tmp_path / "node.key")
    (tmp_path / "node.pub").write_text(f"{text}\n")
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600
    assert load_node_key(tmp_path / "node.key") == require_node_key(text) == text
    assert try_load_public_key(tmp_path / "node.pub")
    (tmp_path / "node.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_node_key(tmp_path / "node.key")


def test_who_holds_a_node_key_can_prove_it(tmp_path: Path) -> None:
    text, other = make_node_key(tmp_path / "a"), make_node_key(tmp_path / "b")
    proof = prove_node_key(tmp_path / "a", b"payload").hex()
    require_node_proof(text, b"payload", proof)
    for key, payload, shown in ((other, b"payload", proof), (text, b"another", proof), (text, b"payload", "zz")):
        with pytest.raises(IdentityError):
            require_node_proof(key, payload, shown)


def test_a_fingerprint_can_be_read_aloud() -> None:
    groups = KEY.public.fingerprint.split(" ")
    assert [len(group) for group in groups] == [4] * 8
    assert KEY.public.fingerprint != OTHER.public.fingerprint
    assert PublicKey.from_text(KEY.public.text) == KEY.public
