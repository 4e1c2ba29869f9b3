"""A whole run, trusting nobody: every chain, signature, receipt and file, up to the first that does not hold.

Guarantee: a verdict is valid only if every byte of every file of the folder is as the log says, but for those that
not_covered names, and every ledger that is there or was given fits the log. No torch, no network; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedft.audit.mismatch import Broken, Mismatch
from fedft.audit.verify_files import check_checkpoints, check_config, check_end, check_metrics
from fedft.audit.verify_ledgers import LedgerCheck
from fedft.audit.verify_log import LogStory, read_log
from fedft.errors import ConfigError, IdentityError, RecordError
from fedft.identity.notes import MAX_NOTE
from fedft.records.heads import LogHead
from fedft.records.log import LOG

LEDGER = "ledger.sqlite"


@dataclass(frozen=True)
class Verdict:
    """finding: the first that does not hold; None: all of it does. What comes before it was found to hold.

    fingerprint: of the coordinator's key, to be compared with what its people say. ledgers: whose were checked.
    """

    run: str
    fingerprint: str
    entries: int
    rounds: int
    ledgers: tuple[str, ...]
    not_covered: tuple[str, ...]
    finding: Mismatch | None

    @property
    def valid(self) -> bool:
        return self.finding is None

    def as_json(self) -> dict[str, Any]:
        return {"valid": self.valid, **asdict(self)}


def verify_run(
    folder: Path,
    *,
    ledgers: Sequence[Path] = (),
    heads: Sequence[str] = (),
    key: str | None = None,
    unpacked: Path | None = None,
) -> Verdict:
    """Check the run in ``folder``.

    Parameters
    ----------
    ledgers
        Of institutions, beside those in the folder: their files, or folders with a ledger.sqlite.
    heads
        Signed heads of the log that someone remembers: notes, or files with one.
    key
        Public text or fingerprint of the coordinator's key as its people say it.
    unpacked
        The root of an archive's files, where the folder is in it: paths are told from there, and files of names that
        no archive holds may be missing, which is said.

    Raises ConfigError for input that is none: no run's folder, no ledger, no head.
    """
    _require_run(folder)
    files = [ledger_file(path) for path in ledgers]
    remembered = [_head(text) for text in heads]
    check = _Check(folder, files, remembered, key, unpacked)
    finding = None
    try:
        check.all()
    except Broken as broken:
        finding = broken.finding
    except OSError as error:
        where = _shown(Path(error.filename or folder), unpacked)
        finding = Mismatch(where, "a file that can be read", str(error.strerror))
    return check.verdict(finding)


class _Check:
    """One verification: what it has found to hold so far."""

    def __init__(
        self,
        folder: Path,
        ledgers: list[Path],
        heads: list[tuple[str, LogHead]],
        key: str | None,
        unpacked: Path | None,
    ) -> None:
        self._folder, self._given, self._heads, self._key = folder, ledgers, heads, key
        self._unpacked = unpacked
        self._story: LogStory | None = None
        self._ledgers: list[str] = []
        self._words: list[str] = []

    def all(self) -> None:
        story = self._story = read_log(self._folder)
        self._check_key(story)
        for note, head in self._heads:
            try:
                LogHead.open(note, story.coordinator)
            except IdentityError:
                raise Broken("the remembered head", "the coordinator's signature", "another", story.signer) from None
            story.require_holds(head, "the remembered head")
        check_config(self._folder, story)
        check_metrics(self._folder, story)
        check_checkpoints(self._folder, story)
        self._check_ledgers(story)
        self._words += check_end(self._folder, story, packed=self._unpacked is not None)
        if story.end is None:
            last = f"one that stops after round {len(story.rounds)}: the run goes on, was interrupted, or was cut off"
            raise Broken(f"{LOG}, entry {len(story.hashes) + 1}", "a log that ends", last, story.signer)

    def verdict(self, finding: Mismatch | None) -> Verdict:
        story = self._story
        return Verdict(
            run="" if story is None else story.run,
            fingerprint="" if story is None else story.coordinator.fingerprint,
            entries=0 if story is None else len(story.hashes),
            rounds=0 if story is None else len(story.rounds),
            ledgers=tuple(self._ledgers),
            not_covered=tuple(self._words),
            finding=finding,
        )

    def _check_key(self, story: LogStory) -> None:
        said, found = self._key, story.coordinator
        if said is None or said == found.text or "".join(said.lower().split()) == found.fingerprint.replace(" ", ""):
            return
        raise Broken(f"{LOG}, entry 1", f"the coordinator's key {said}", f"{found.text}, {found.fingerprint}")

    def _check_ledgers(self, story: LogStory) -> None:
        check = LedgerCheck(story)
        for path in sorted(self._folder.glob(f"institutions/*/{LEDGER}")):
            self._check_ledger(check, path, path.relative_to(self._folder).as_posix(), path.parent.name)
        for path in self._given:
            shown = _shown(path, self._unpacked)
            self._check_ledger(check, path, shown, None if shown == str(path) else path.parent.name)
        unseen = sorted(story.heads.keys() - set(self._ledgers))
        self._words += [f"the ledger of {name}: give it with --ledger" for name in unseen]

    def _check_ledger(self, check: LedgerCheck, path: Path, shown: str, name: str | None) -> None:
        whose, words = check.check(path, shown, name)
        self._ledgers.append(whose)
        self._words += words


def _shown(path: Path, root: Path | None) -> str:
    return str(path) if root is None or not path.is_relative_to(root) else path.relative_to(root).as_posix()


def _require_run(folder: Path) -> None:
    if not (folder / "config.json").is_file() and not (folder / LOG).is_file():
        raise ConfigError(
            f"expected a run's folder, with {LOG} and config.json, or an archive of one, found none at {folder}: check "
            "the path"
        )
    inner = sorted(path.parent.name for path in folder.glob(f"*/{LOG}"))
    if inner and not (folder / LOG).is_file():
        raise ConfigError(f"expected one run, found one with variants: name one of them, as {folder / inner[0]}")


def ledger_file(path: Path) -> Path:
    """A ledger's own path, or that of the one in a folder. Raises ConfigError where there is none."""
    file = path / LEDGER if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"expected an institution's ledger at {path}, found none: check the path")
    return file


def _head(text: str) -> tuple[str, LogHead]:
    """A signed head, as text or in a file."""
    note = text
    try:
        if "\n" not in text and Path(text).is_file():
            with Path(text).open("rb") as file:
                note = file.read(MAX_NOTE + 1).decode()
        return note, LogHead.claimed(note)
    except (OSError, ValueError, RecordError):
        raise ConfigError(
            "expected a signed head of a run's log, or a file with one, found something else: give audit.head as it was"
        ) from None
