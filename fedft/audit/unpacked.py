"""The files of an archive, in a temporary folder for as long as somebody reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fedft.audit.archive import unpack
from fedft.audit.bundle_names import LEDGERS, RUN, VERIFY
from fedft.audit.verify import LEDGER
from fedft.errors import RecordError, StorageError
from fedft.records.log import HEAD, LOG

_REQUIRED = (VERIFY, f"{RUN}/{LOG}", f"{RUN}/{HEAD}", f"{RUN}/config.json")


@dataclass(frozen=True)
class Unpacked:
    """ledgers: those from outside the run's folder, by institution."""

    root: Path
    run: Path
    ledgers: dict[str, Path]


@contextmanager
def opened(path: Path) -> Iterator[Unpacked]:
    """An archive's files in a temporary folder, for the length of the block. Raises RecordError, StorageError."""
    with ExitStack() as stack:
        try:
            root = Path(
                stack.enter_context(TemporaryDirectory(prefix="fedft-audit-", ignore_cleanup_errors=True))
            ).resolve()
        except OSError as error:
            raise StorageError(f"expected a place for temporary files, found {error.strerror}: set TMPDIR") from None
        names = set(unpack(path, root))
        owners = {name.split("/")[1] for name in names if name.startswith(f"{LEDGERS}/")}
        for name in (*_REQUIRED, *(f"{LEDGERS}/{owner}/{LEDGER}" for owner in sorted(owners))):
            if name not in names:
                raise RecordError(f"{path}: expected the archive of a run, with {name}, found none: ask for the whole")
        yield Unpacked(root, root / RUN, {name: root / LEDGERS / name / LEDGER for name in sorted(owners)})
