"""Signing keys of a simulated federation, where secure aggregation needs some: each where its owner would keep it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedft.assembly.masking import Signer
from fedft.identity.keys import PrivateKey
from fedft.ledger.store import Ledger
from fedft.rounds.member import Member
from fedft.secagg.context import Identities

KEY = "identity.key"


def make_keys(folder: Path, names: Sequence[str]) -> None:
    """The coordinator's and every institution's, those that are not there yet. Raises StorageError."""
    for home in (folder, *(folder / "institutions" / name for name in names)):
        home.mkdir(parents=True, exist_ok=True)
        if not (home / KEY).exists():
            PrivateKey.generate().save(home / KEY)


def signer_of(folder: Path, names: Sequence[str]) -> Signer:
    known = _identities(folder, names)
    return Signer(PrivateKey.load(folder / KEY), lambda: known)


def member_of(folder: Path, name: str, names: Sequence[str], ledger: Ledger) -> Member:
    home = folder / "institutions" / name
    return Member(
        name,
        identity=PrivateKey.load(home / KEY),
        identities=_identities(folder, names),
        coordinator=PrivateKey.load(folder / KEY).public,
        ledger=ledger,
        folder=home / "secagg",
    )


def _identities(folder: Path, names: Sequence[str]) -> Identities:
    return {name: PrivateKey.load(folder / "institutions" / name / KEY).public for name in names}
