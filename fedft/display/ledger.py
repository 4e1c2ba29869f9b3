"""A privacy ledger as its owner reads it: what was charged and released, and the epsilon it comes to. No content."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedft.display.words import epsilon_text, figure
from fedft.errors import ConfigError
from fedft.ledger import Entry, Ledger
from fedft.ledger.entries import as_receipt, as_withdrawal
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.distributed import local_epsilon
from fedft.privacy.events import DataIndependentRelease, DistributedStep, PrivacyEvent, UnprotectedRelease


@dataclass(frozen=True)
class Account:
    """What a data set's events come to. epsilon None: no delta is known; infinite: a release without a guarantee.

    local_epsilon: if secure aggregation failed, where noise was added in shares.
    """

    dataset: str
    events: int
    delta: float | None
    epsilon: float | None
    local_epsilon: float | None = None


@dataclass(frozen=True)
class LedgerStory:
    """One ledger, read once."""

    name: str
    path: Path
    entries: tuple[Entry, ...]
    accounts: tuple[Account, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "institution": self.name,
            "path": str(self.path),
            "accounts": [{**vars(one), "epsilon_infinite": one.epsilon == math.inf} for one in self.accounts],
            "entries": [
                {"sequence": e.sequence, "time_utc": e.time_utc, "kind": e.kind, **e.fields} for e in self.entries
            ],
        }


def find_ledgers(path: Path, *, institution: str | None = None) -> dict[str, Path]:
    """Ledgers by institution: ``path`` itself, those of a run's folder or of its variants, or those of a folder.

    Raises ConfigError when there is none.
    """
    files = [path] if path.is_file() else [*sorted(path.glob("**/*.sqlite")), *_kept_elsewhere(path)]
    named = {_name(file): file for file in files}
    if len(named) < len(files):
        named = {str(file.relative_to(path)): file for file in files}
    chosen = {name: file for name, file in named.items() if institution in (None, _name(file))}
    if not chosen:
        of = f" of {institution}" if institution else ""
        known = f" but those of {', '.join(named)}" if named else ""
        raise ConfigError(f"expected a ledger{of} at {path}, found none{known}: correct the path or the name")
    return chosen


def _name(file: Path) -> str:
    return file.resolve().parent.name if file.name == "ledger.sqlite" else file.stem


def _kept_elsewhere(run: Path) -> list[Path]:
    """Where a run's configuration keeps budgets across runs (simulation.ledger_dir)."""
    try:
        shared = json.loads((run / "config.json").read_text())["simulation"]["ledger_dir"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return sorted(Path(shared).glob("*.sqlite")) if shared else []


def read_story(name: str, path: Path, *, delta: float | None = None) -> LedgerStory:
    """Read, verify and add up. ``delta`` None: the one each data set was last charged at. Raises LedgerError."""
    with Ledger.open(path, read_only=True) as ledger:
        entries = ledger.entries()
        events = {dataset: ledger.events(dataset) for dataset in ledger.datasets()}
    accounts = tuple(
        _account(dataset, found, delta or _last_delta(entries, dataset)) for dataset, found in events.items()
    )
    return LedgerStory(name, path, entries, accounts)


def story_view(story: LedgerStory) -> RenderableType:
    """Its entries, one a line, and what they come to."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for head in ("#", "time (UTC)", "entry", "round", "what"):
        table.add_column(head, overflow="fold", justify="right" if head in ("#", "round") else "left")
    several = len(story.accounts) > 1
    for entry in story.entries:
        time = entry.time_utc.replace("T", " ").removesuffix("Z")
        where = f" ({entry.fields['dataset']})" if several and "dataset" in entry.fields else ""
        table.add_row(
            str(entry.sequence), time, entry.kind, str(entry.fields.get("round", "")), f"{_what(entry)}{where}"
        )
    return Group(Text(f"{story.name}: {story.path}", style="bold"), table, *map(_account_line, story.accounts), Text())


def _account(dataset: str, events: Sequence[PrivacyEvent], delta: float | None) -> Account:
    charged = sum(not isinstance(event, DataIndependentRelease) for event in events)
    if any(isinstance(event, UnprotectedRelease) for event in events):
        return Account(dataset, charged, delta, math.inf)
    if delta is None:
        return Account(dataset, charged, None, None)
    shared = any(isinstance(event, DistributedStep) for event in events)
    return Account(dataset, charged, delta, epsilon_of(events, delta), local_epsilon(events, delta) if shared else None)


def _account_line(account: Account) -> Text:
    start = f"data set {account.dataset}: {account.events} events charged, "
    if account.epsilon is None:
        return Text(f"{start}epsilon unknown without a delta: give --delta", style="yellow")
    if math.isinf(account.epsilon):
        return Text(f"{start}no guarantee: it was used without privacy", style="yellow")
    spent = f"epsilon {epsilon_text(account.epsilon)} at delta {account.delta:g} (add or remove one unit)"
    alone = (
        "" if account.local_epsilon is None else f"; {epsilon_text(account.local_epsilon)} if secure aggregation failed"
    )
    return Text(f"{start}{spent}{alone}")


def _what(entry: Entry) -> str:
    fields = entry.fields
    if entry.kind == "intent":
        return f"{fields['purpose']}: {_event(fields['event'])}"
    if entry.kind == "release":
        return f"{fields['purpose']}: {fields['bytes']:,} bytes, {fields['sha256'][:12]}"
    if entry.kind == "refusal":
        return f"refused: {fields['reason']}"
    if entry.kind == "receipt":
        head = as_receipt(entry)
        return f"coordinator's log of {head.run}: {head.count} entries, {head.hash[:12]}"
    if entry.kind == "withdrawal":
        left = as_withdrawal(entry)
        return f"{left.name} has left {left.federation}, {left.time_utc}"
    return f"ledger {fields['ledger'][:12]}"


def _event(event: Mapping[str, Any]) -> str:
    if event["kind"] == "dp-sgd-round":
        noise, rate = figure(event["noise_multiplier"]), figure(event["sampling_rate"])
        return f"{event['steps']} steps, noise {noise}, rate {rate}"
    if event["kind"] == "distributed-step":
        noise, rate = figure(event["noise_multiplier"]), figure(event["sampling_rate"])
        return f"{event['steps']} steps, noise {noise} in the sum of {event['least_honest']}, rate {rate}, masked"
    noise = f", noise {figure(event['noise_multiplier'])}" if "noise_multiplier" in event else ""
    return f"{event['kind']}{noise}"


def _last_delta(entries: Iterable[Entry], dataset: str) -> float | None:
    stated = [
        float(entry.fields["evidence"]["delta"])
        for entry in entries
        if entry.kind == "intent" and entry.fields["dataset"] == dataset and "delta" in entry.fields["evidence"]
    ]
    return stated[-1] if stated else None
