"""What software ran, as digests that another can compute: fedft's own modules, and the packages beside it."""

from __future__ import annotations

import hashlib
import importlib.metadata
from functools import cache
from pathlib import Path

import fedft


@cache
def code_digest() -> str:
    """SHA-256 over fedft's modules, by path (docs/SPEC.md, "Audit log")."""
    home, total = Path(fedft.__file__).parent, hashlib.sha256()
    for path in sorted(home.rglob("*.py"), key=lambda path: path.relative_to(home).as_posix()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(home).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()


@cache
def packages_digest() -> str:
    """SHA-256 over the lines name==version of what is installed, sorted; names in lower case."""
    found = {
        f"{distribution.metadata['Name'].lower()}=={distribution.version}\n"
        for distribution in importlib.metadata.distributions()
    }
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()
