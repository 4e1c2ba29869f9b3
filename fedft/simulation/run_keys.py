"""Signing keys of a simulated federation, each where its owner would keep it; deleted when the run has ended."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fedft.assembly.signing import Signer
from fedft.errors import StorageError
from fedft.identity.keys import PrivateKey
from fedft.ledger.chain import Signer as LedgerSigner
from fedft.ledger.store import Ledger
from fedft.records.files import KEY
from fedft.rounds.member import Member
from fedft.rounds.witness import Witness
from fedft.secagg.context import Identities

_MASK_KEYS = "secagg"


def make_keys(folder: Path, names: Sequence[str]) -> None:
    """The coordinator's and every institution's, those that are not there yet. Raises StorageError."""
    for home in (folder, *(folder / "institutions" / name for name in names)):
        home.mkdir(parents=True, exist_ok=True)
        if not (home / KEY).exists():
            PrivateKey.generate().save(home / KEY)


def delete_keys(folder: Path) -> None:
    """Of a run that has ended: nothing more is signed in its name. Raises StorageError."""
    try:
        for key in (folder / KEY, *folder.glob(f"institutions/*/{KEY}")):
            key.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"expected to delete the run's keys in {folder}, found {error.strerror}: delete") from error


def delete_mask_keys(folder: Path) -> None:
    """When no round is left to be unmasked: with these and what is stored, masked updates could be read."""
    try:
        for kept in folder.glob(f"institutions/*/{_MASK_KEYS}"):
            shutil.rmtree(kept)
    except OSError as error:
        raise StorageError(
            f"expected to delete the keys of masks in {folder}, found {error.strerror}: delete"
        ) from error


def signer_of(folder: Path, names: Sequence[str]) -> Signer:
    known = _identities(folder, names)
    return Signer(PrivateKey.load(folder / KEY), lambda: known)


def ledger_signer(folder: Path, name: str) -> LedgerSigner:
    """Who signs the heads of the ledger of ``name``."""
    return LedgerSigner(name, PrivateKey.load(folder / "institutions" / name / KEY))


def witness_of(folder: Path, name: str, ledger: Ledger) -> Witness:
    coordinator = PrivateKey.load(folder / KEY).public
    return Witness(ledger_signer(folder, name), coordinator=coordinator, ledger=ledger)


def member_of(folder: Path, name: str, names: Sequence[str], ledger: Ledger) -> Member:
    home = folder / "institutions" / name
    return Member(
        name,
        identity=PrivateKey.load(home / KEY),
        identities=_identities(folder, names),
        coordinator=PrivateKey.load(folder / KEY).public,
        ledger=ledger,
        folder=home / _MASK_KEYS,
    )


def _identities(folder: Path, names: Sequence[str]) -> Identities:
    return {name: PrivateKey.load(folder / "institutions" / name / KEY).public for name in names}
