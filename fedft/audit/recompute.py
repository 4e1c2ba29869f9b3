"""Every privacy figure of a run again, from its configuration and the institutions' ledgers alone.

Guarantee: ``recompute`` raises nothing for whatever is in a run's folder, an archive or a ledger; what cannot be read
is a finding, and nothing that was not read counts as in order. It needs no network, no GPU and no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedft import __version__
from fedft.audit.accounts import TOLERANCE, Account, accounts_of, disagreements, steps_of, valid_delta
from fedft.audit.asked import Asked, asked_of
from fedft.audit.checks import charge_findings, run_findings
from fedft.audit.findings import Finding, bad_input, claim, exit_code
from fedft.audit.folder import Run, dataset_of, number, part, pick, read_files, sections
from fedft.audit.records import record_findings, rounds_with_update
from fedft.audit.spending import LOCAL_ACCURACY, Spending, events_of, read_spending
from fedft.audit.unpacked import opened
from fedft.errors import FedftError
from fedft.privacy.accountant import epsilon_of

LABEL = "fedft/v1/audit-recompute"
MOST_STEPS = 10**6
"""In one ledger: 1,000 rounds of 1,000. More takes accountants minutes, and a ledger is read before it is believed."""


@dataclass(frozen=True)
class Recomputed:
    """What came out. accounts: by institution and data set; ledgers: what each says, by institution."""

    folder: Path
    run: str
    mode: str
    accounts: tuple[Account, ...]
    ledgers: Mapping[str, Spending]
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        return exit_code(self.findings)

    def as_json(self) -> dict[str, Any]:
        return {
            "label": LABEL,
            "fedft_version": __version__,
            "run": self.run,
            "privacy_mode": self.mode,
            "relation": "add or remove one unit",
            "accounts": [
                {**asdict(account), "epsilon_infinite": account.epsilon == math.inf} for account in self.accounts
            ],
            "ledgers": {name: {"entries": one.entries, "head": one.head} for name, one in self.ledgers.items()},
            "findings": [asdict(finding) for finding in self.findings],
            "exit_code": self.exit_code,
        }


def recompute(
    folder: Path,
    ledgers: Sequence[tuple[str | None, Path]] = (),
    *,
    packed: Mapping[str, Path] = MappingProxyType({}),
    delta: float | None = None,
) -> Recomputed:
    """Read the run in ``folder``, compute again, compare.

    Parameters
    ----------
    ledgers
        Further ledgers, or others than the folder's: whose, where that is known, and the file.
    packed
        Ledgers by institution that came with the folder: they count before the folder's own, after ``ledgers``.
    delta
        At which epsilon is computed. None: as each ledger states.
    """
    try:
        run = read_files(folder)
        files, problems = _files(run, ledgers, packed)
    except FedftError as error:
        return _unreadable(folder, str(error))
    except OSError as error:
        return _unreadable(folder, f"expected to read the folder, found {error.strerror or type(error).__name__}")
    findings = list(_whole(run))
    findings += problems
    spendings: dict[str, Spending] = {}
    for name, path in files.items():
        try:
            spendings[name] = read_spending(name, path)
        except FedftError as error:
            findings.append(bad_input("ledger-unreadable", name, str(error)))
    left_out = pick(run.config, "parent.without") or ()
    known_names = dict.fromkeys((*run.institutions, *sections(run.config), *spendings))
    names = [name for name in known_names if name not in left_out]
    accounts: list[Account] = []
    for name in names:
        if name in spendings:
            made, problems = _recomputed(run, spendings[name], delta)
            accounts += made
            findings += problems
        elif name not in files:
            findings.append(_missing(run, name))
    if not spendings:
        findings.append(
            bad_input("nothing-read", str(folder), "expected ledgers to recompute from, found none to read")
        )
    run_name, mode = str(run.config.get("run") or ""), str(pick(run.config, "privacy.mode") or "")
    return Recomputed(folder, run_name, mode, tuple(accounts), spendings, tuple(dict.fromkeys(findings)))


def recompute_any(
    path: Path, ledgers: Sequence[tuple[str | None, Path]] = (), *, delta: float | None = None
) -> Recomputed:
    """The same for a run's folder or for an archive of one."""
    if not path.is_file():
        return recompute(path, ledgers, delta=delta)
    try:
        with opened(path) as found:
            made, root = recompute(found.run, ledgers, packed=found.ledgers, delta=delta), str(found.root)
    except FedftError as error:
        return _unreadable(path, str(error))
    told = [
        replace(one, where=one.where.replace(root, str(path)), text=one.text.replace(root, str(path)))
        for one in made.findings
    ]
    return replace(made, folder=path, findings=tuple(told))


def _whole(run: Run) -> Iterator[Finding]:
    """Whether the folder is that of one finished run of a version that this one knows."""
    if not run.config:
        yield bad_input("half-written", "config.json", "expected the run's configuration, found none")
    written = run.config.get("fedft_version")
    if run.config and (not isinstance(written, str) or _version(written) > _version(__version__)):
        yield bad_input(
            "newer-format",
            "config.json",
            f"expected a run of fedft up to {__version__}, found one of {written}: use that version",
        )
    variants = part(run.config, "variants") or part(run.summary, "variants")
    if variants:
        inner = ", ".join(str(run.folder / name) for name in variants)
        yield bad_input("several-runs", str(run.folder), f"expected one run, found variants: give one of {inner}")
    elif not run.summary:
        planned = pick(run.config, "federation.rounds")
        yield bad_input(
            "unfinished",
            "summary.json",
            f"expected a finished run, found {len(run.rounds)} of {planned} rounds and no summary: it is still going "
            "or was interrupted; figures are those of now",
        )
    if run.cut_line:
        yield bad_input("half-written", "metrics.jsonl", "expected whole lines, found the last one cut off")


def _recomputed(run: Run, spending: Spending, delta: float | None) -> tuple[list[Account], list[Finding]]:
    made: list[Account] = []
    if steps_of(spending.charges) > MOST_STEPS:
        words = f"expected at most {MOST_STEPS:,} steps on a data set, found more: no accountant is asked for so many"
        return made, [bad_input("too-many-steps", spending.name, words)]
    try:
        made = accounts_of(spending, delta)
        return made, list(_of_ledger(run, spending, made))
    except Exception as error:  # noqa: BLE001 - a library that stumbles over a number confirms nothing
        words = f"expected figures of its events, found {type(error).__name__}: nothing of it is confirmed"
        return made, [bad_input("not-computed", spending.name, words)]


def _of_ledger(run: Run, spending: Spending, accounts: Sequence[Account]) -> Iterator[Finding]:
    yield from charge_findings(spending)
    for account in accounts:
        yield from disagreements(account, steps_of(spending.on(account.dataset)))
    try:
        asked = asked_of(run, spending.name)
    except FedftError as error:
        yield bad_input("half-written", "config.json", str(error))
        return
    yield from run_findings(spending, asked)
    yield from record_findings(run, spending, asked)
    yield from _figures(run, spending, asked)


def _figures(run: Run, spending: Spending, asked: Asked) -> Iterator[Finding]:
    """What the run states of the institution, and the cap, against what the ledger comes to."""
    charges, name = spending.of_run(asked.run), spending.name
    stated = part(part(run.summary, "institutions"), name)
    noises = {getattr(charge.event, "noise_multiplier", None) for charge in charges if charge.purpose == "update"}
    noise = number(stated.get("noise_multiplier"))
    if noise is not None and noises - {None, noise}:
        listed = ", ".join(f"{value:g}" for value in sorted(noises - {None}))  # type: ignore[type-var]
        yield claim("stated-noise", name, f"the run states noise multiplier {noise:g}, its ledger {listed}")
    dataset = charges[-1].dataset if charges else asked.dataset
    delta = next((d for charge in charges if (d := valid_delta(charge.value("delta"))) is not None), asked.delta)
    spent_on = spending.on(dataset or "")
    rounds = [charge for charge in charges if charge.purpose != LOCAL_ACCURACY]
    last = max((entry for charge in rounds for entry in charge.entries), default=None)
    if not asked.is_private or valid_delta(delta) is None or delta is None:
        return
    # What came after the run in the same ledger was not spent when it stated its figure.
    epsilon = epsilon_of(events_of(spent_on, 2**53 if last is None else last), delta)
    infinite = stated.get("epsilon_infinite") is True
    said = math.inf if infinite else number(stated.get("epsilon"))
    if run.summary and not run.is_elsewhere and said is not None and not _same(said, epsilon):
        yield claim(
            "stated-epsilon",
            name,
            f"the run states epsilon {said:.6g} at delta {delta:g}, its ledger comes to {epsilon:.6g}",
        )
    cap = next((c for charge in reversed(charges) if (c := charge.value("cap")) is not None), asked.cap)
    own = max((entry for charge in charges for entry in charge.entries), default=0)
    if own > (last or 0):
        epsilon = epsilon_of(events_of(spent_on, own), delta)
    if charges and cap is not None and epsilon > cap + TOLERANCE:
        yield claim(
            "over-cap",
            name,
            f"expected at most the cap of epsilon {cap:g}, found {epsilon:.6g} at delta {delta:g}",
        )


def _files(
    run: Run, given: Sequence[tuple[str | None, Path]], packed: Mapping[str, Path]
) -> tuple[dict[str, Path], list[Finding]]:
    """Ledgers by institution: given, packed, the folder's, those that the configuration keeps; the first counts."""
    found: dict[str, Path] = {}
    problems = []
    for name, path in given:
        owner = name or _owner(path) or path.stem
        if owner in found:
            words = f"expected one ledger for each institution, found {found[owner]} and {path}: name them NAME=FILE"
            problems.append(bad_input("ledger-twice", owner, words))
        found.setdefault(owner, path)
    for name, path in packed.items():
        found.setdefault(name, path)
    for path in sorted(run.folder.glob("institutions/*/ledger.sqlite")):
        found.setdefault(path.parent.name, path)
    kept = pick(run.config, "simulation.ledger_dir")
    for name in (*run.institutions, *sections(run.config)) if isinstance(kept, str) else ():
        path = Path(str(kept)) / f"{dataset_of(run.config, name)}.sqlite"
        if path.is_file():
            found.setdefault(name, path)
    return found, problems


def _owner(path: Path) -> str | None:
    """Whose a ledger says it is, in its newest charge; None where it does not, or cannot be read."""
    try:
        charges = read_spending("", path).charges
    except FedftError:
        return path.parent.name if path.name == "ledger.sqlite" else None
    said = next((text for charge in reversed(charges) if (text := charge.text("institution"))), None)
    return said or (path.parent.name if path.name == "ledger.sqlite" else None)


def _missing(run: Run, name: str) -> Finding:
    answered = len(rounds_with_update(run, name))
    where = " It is kept by the institution:" if run.is_elsewhere else ""
    return bad_input(
        "ledger-missing",
        name,
        f"expected its ledger, found none, and updates of {answered} rounds: nothing of it was recomputed.{where} give "
        f"it with --ledger {name}=FILE",
    )


def _unreadable(folder: Path, words: str) -> Recomputed:
    return Recomputed(folder, "", "", (), {}, (bad_input("no-run", str(folder), words),))


def _same(stated: float, found: float) -> bool:
    return stated == found or abs(stated - found) <= TOLERANCE


def _version(text: str) -> tuple[int, ...]:
    """ "0.1.0" -> (0, 1, 0); what is no number counts as the highest."""
    return tuple(
        int(word) if word.isascii() and word.isdigit() and len(word) < 9 else 10**9 for word in text.split(".")
    )
