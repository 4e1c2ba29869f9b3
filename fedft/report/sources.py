"""All that a report is made from: the run's folder verified and recomputed, policies, evidence of attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedft.attack.evidence import read_evidence
from fedft.audit.folder import Run, read_files
from fedft.audit.recompute import Recomputed, recompute
from fedft.audit.verify import Verdict, ledger_file, verify_run
from fedft.config.policy import PolicyProcessing, read_shown_policy
from fedft.errors import ConfigError, RecordError
from fedft.records.entries import LogEntry
from fedft.records.files import digest_of
from fedft.records.log import LOG, read_entries

_FILES = (
    "config.json",
    "metrics.jsonl",
    "summary.json",
    "adapter/adapter_model.safetensors",
    "adapter/head.safetensors",
)


@dataclass(frozen=True)
class Log:
    """Of the coordinator's audit log, up to the first entry that cannot be read. keys: as they stand at its end.

    left: by institution that signed that it leaves, the last round with its update.
    """

    start: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    rounds: tuple[LogEntry, ...] = ()
    left: Mapping[str, int] = field(default_factory=dict)
    first_utc: str = ""
    last_utc: str = ""


@dataclass(frozen=True)
class Policy:
    """What an institution's policy says of the processing, and the policy's digest."""

    processing: PolicyProcessing
    sha256: str


@dataclass(frozen=True)
class Sources:
    """verdict: None where there is nothing that could be verified. files: SHA-256 by name."""

    run: Run
    recomputed: Recomputed
    verdict: Verdict | None
    log: Log
    policies: Mapping[str, Policy]
    attacks: tuple[tuple[str, Mapping[str, Any]], ...]
    files: Mapping[str, str]

    def shown(self, text: str) -> str:
        """``text`` without the path of the folder and of what lies beside it, which is this machine's."""
        folder = self.run.folder
        for path in (folder.resolve(), folder, folder.resolve().parent):
            text = text.replace(f"{path}/", "")
        return text.replace(str(folder), folder.name)

    @property
    def institutions(self) -> tuple[str, ...]:
        """Every name that the run, its log or a ledger mentions."""
        return tuple(dict.fromkeys((*self.run.institutions, *self.log.keys, *self.recomputed.ledgers)))


def gather(
    folder: Path,
    *,
    ledgers: Sequence[tuple[str | None, Path]] = (),
    policies: Sequence[Path] = (),
    attacks: Sequence[Path] = (),
    unpacked: Path | None = None,
) -> Sources:
    """Read and check everything.

    Parameters
    ----------
    ledgers : as for fedft audit recompute
    policies : of institutions
    attacks : evidence that fedft audit attack kept
    unpacked : as for verify_run

    Raises
    ------
    StorageError
        This is no run folder, or a file in it is not what fedft writes.
    ConfigError
        A ledger, a policy or a file of evidence that is none, or two policies of one institution.
    """
    run = read_files(folder)
    for _, path in ledgers:
        ledger_file(path)
    stated = _policies(policies)
    attacked = tuple((digest_of(path)[1], evidence) for path in attacks for evidence in [read_evidence(path)])
    try:
        verdict = verify_run(folder, ledgers=[path for _, path in ledgers], unpacked=unpacked)
    except ConfigError:
        verdict = None
    return Sources(
        run=run,
        recomputed=recompute(folder, ledgers),
        verdict=verdict,
        log=_log(folder / LOG),
        policies=stated,
        attacks=attacked,
        files={name: digest_of(folder / name)[1] for name in _FILES if (folder / name).is_file()},
    )


def _log(path: Path) -> Log:
    if not path.is_file():
        return Log()
    start: Mapping[str, Any] = {}
    keys: Mapping[str, str] = {}
    rounds, times, left = [], [], {}
    try:
        for entry in read_entries(path):
            times.append(entry.time_utc)
            if entry.kind == "start":
                start = entry.fields
            elif entry.kind == "roster":
                keys = entry.fields["keys"]
            elif entry.kind == "round":
                rounds.append(entry)
            elif entry.kind == "withdrawal":
                left[str(entry.fields["institution"])] = int(entry.fields["last_round"])
    except RecordError:
        pass  # the verdict says so
    return Log(start, keys, tuple(rounds), left, times[0] if times else "", times[-1] if times else "")


def _policies(paths: Sequence[Path]) -> dict[str, Policy]:
    found: dict[str, Policy] = {}
    for path in paths:
        policy, digest = read_shown_policy(path)
        name = policy.institution.name
        if name in found:
            raise ConfigError(f"expected one policy for each institution, found two of {name}: give one")
        found[name] = Policy(policy.processing, digest)
    return found
