"""A run and its ledgers in one file, and that file checked as its folder would be. docs/SPEC.md, "Archive of a run".

Guarantee: bundle packs a run that verify_run finds valid, and nothing else; what verify says of an archive it says of
the bytes in it. Nothing in the run's folder or beside a ledger is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill

from fedft import __version__
from fedft.audit.archive import SUMS, pack
from fedft.audit.bundle_names import LEDGERS, RUN, VERIFY, is_packed
from fedft.audit.unpacked import opened
from fedft.audit.verify import LEDGER, Verdict, ledger_file, verify_run
from fedft.audit.verify_files import listed
from fedft.durable import whole_file
from fedft.errors import ConfigError, StorageError
from fedft.ledger.files import no_writer, storage_errors
from fedft.records.files import all_files, digest_of

SUFFIX = ".tar.gz"
_BESIDE = ("", ".head", "-wal")
"""Of a ledger: the files that are handed out. What the -wal holds is part of the history."""


@dataclass(frozen=True)
class Packed:
    """sha256: of the archive. ledgers: whose are in it; left_out: what of the folder is not."""

    bytes: int
    sha256: str
    names: tuple[str, ...]
    ledgers: tuple[str, ...]
    left_out: tuple[str, ...]


def bundle(folder: Path, target: Path, *, ledgers: Sequence[Path] = ()) -> tuple[Verdict, Packed | None]:
    """Check the run in ``folder`` with ``ledgers``, and pack them if all of it holds. None: it does not.

    Raises
    ------
    ConfigError
        No run, no ledger, two of one institution, one that somebody writes to; a target that is there, has another
        ending than .tar.gz, or lies in the folder.
    StorageError
        Something cannot be read or written, or changed meanwhile.
    """
    _require_target(target, folder)
    if folder.is_file():
        raise ConfigError(f"expected a run's folder to pack, found a file at {folder}: an archive is packed already")
    given = [ledger_file(path).resolve() for path in ledgers]
    with storage_errors(folder), ExitStack() as stack:
        for path in (*folder.glob(f"institutions/*/{LEDGER}"), *given):
            if not stack.enter_context(no_writer(path)):
                raise ConfigError(
                    f"expected nobody to write to {path}, found somebody: wait until the run has ended, or give a copy"
                )
        verdict = verify_run(folder, ledgers=given)
        if not verdict.valid:
            return verdict, None
        found = {path.relative_to(folder).as_posix(): path for path in all_files(folder)}
        files: dict[str, Path | bytes] = {f"{RUN}/{name}": path for name, path in found.items() if is_packed(name)}
        owners = verdict.ledgers[len(verdict.ledgers) - len(given) :]
        for name, path in zip(owners, given, strict=True):
            if f"{LEDGERS}/{name}/{LEDGER}" in files:
                raise ConfigError(f"expected one ledger of {name}, found two: give the newest, with --ledger once")
            beside = {f"{LEDGER}{suffix}": path.with_name(path.name + suffix) for suffix in _BESIDE}
            files |= {f"{LEDGERS}/{name}/{kept}": file for kept, file in beside.items() if file.is_file()}
        whose = tuple(sorted({name.split("/")[-2] for name in files if name.endswith(f"/{LEDGER}")}))
        left_out = tuple(name for name in found if not is_packed(name))
        files[VERIFY] = _instructions(verdict, whose, left_out).encode()
        try:
            with whole_file(target) as file:
                pack(file, files)
            size, sha256 = digest_of(target)
        except OSError as error:
            raise StorageError(f"expected to write {target}, found {error.strerror}: choose another place") from None
    return verdict, Packed(size, sha256, (SUMS, *sorted(files)), whose, left_out)


def verify(path: Path, *, ledgers: Sequence[Path] = (), heads: Sequence[str] = (), key: str | None = None) -> Verdict:
    """verify_run for a run's folder or for an archive of one. Raises RecordError too: for what is no such archive."""
    if not path.is_file():
        return verify_run(path, ledgers=ledgers, heads=heads, key=key)
    with opened(path) as found:
        given = [*found.ledgers.values(), *ledgers]
        verdict = verify_run(found.run, ledgers=given, heads=heads, key=key, unpacked=found.root)
    return replace(verdict, not_covered=(*verdict.not_covered, f"{VERIFY}: by whoever packed the archive"))


def _require_target(target: Path, folder: Path) -> None:
    if not target.name.endswith(SUFFIX) or target.exists():
        found = "something there" if target.exists() else target.name
        raise ConfigError(f"expected a new file whose name ends in {SUFFIX}, found {found}: choose another name")
    if not target.parent.is_dir() or target.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"expected a folder outside the run's for {target}, found none: choose another place")


def _instructions(verdict: Verdict, ledgers: Sequence[str], left_out: Sequence[str]) -> str:
    return f"""\
Evidence of the federated run {verdict.run}, packed by fedft {__version__}.
{RUN}/ is the run's folder, {LEDGERS}/ has ledgers that institutions gave beside it.

To check it, trusting nobody and without a network, with fedft from a source that you trust:

    fedft audit verify FILE        every chain, signature, receipt and byte of this archive
    fedft audit recompute FILE     every privacy figure again, from configuration and ledgers

The coordinator signed with the key {verdict.fingerprint}.
Ask its people whether that is theirs, by another way than the one this file came, and give
it: fedft audit verify FILE --key "..."

Ledgers, as their institutions gave them, with the stored bytes of their newest releases:
{fill(", ".join(ledgers), 100) or "none"}
Left out of the run's folder:
{listed(left_out) or "nothing"}

Without fedft, sha256sum --check {SUMS} says whether a copy is whole, and nothing more.
"""
