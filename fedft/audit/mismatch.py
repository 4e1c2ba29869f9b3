"""The first thing that is wrong with a run, in words that name it."""

from __future__ import annotations

from dataclasses import dataclass

from fedft.identity.keys import PublicKey


@dataclass(frozen=True)
class Mismatch:
    """where: file and entry. signed_by: whose signature covers what was expected; "" where nobody's does."""

    where: str
    expected: str
    found: str
    signed_by: str = ""

    def as_text(self) -> str:
        signed = f" (signed by {self.signed_by})" if self.signed_by else ""
        return f"{self.where}: expected {self.expected}{signed}, found {self.found}"


class Broken(Exception):
    """Ends a verification with its finding."""

    def __init__(self, where: str, expected: str, found: str, signed_by: str = "") -> None:
        self.finding = Mismatch(where, expected, found, signed_by)
        super().__init__(self.finding.as_text())


def signer(name: str, key: PublicKey) -> str:
    return f"{name}, {key.text[:24]}..."
