"""What tests of fedft audit verify share: the run of version 1, kept for ever, and a change that is put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedft.audit.mismatch import Mismatch
from fedft.audit.verify import verify_run

ROOT = Path(__file__).parents[2]
KEPT_FOR_EVER = ROOT / "tests" / "vectors" / "run-v1"


def finding_of(folder: Path, **options: Any) -> Mismatch:
    found = verify_run(folder, **options).finding
    assert found is not None, "valid"
    return found


@contextmanager
def replaced(path: Path, content: bytes | None) -> Iterator[None]:
    """``content`` in a file's place, or no file, for the length of the block."""
    before = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)
