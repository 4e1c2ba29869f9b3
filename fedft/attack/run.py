"""A federation played with canaries at one institution, and what an auditor sees of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedft.assembly.coordinator import start_adapter
from fedft.attack.canaries import CanarySetup, Coins
from fedft.config import FederationConfig
from fedft.data.examples import Example
from fedft.ledger.store import Ledger
from fedft.model.checkpoint import read_checkpoint
from fedft.privacy.events import PrivacyEvent
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.simulation.institutions import dataset_of, ledger_path
from fedft.simulation.run import play
from fedft.types import AdapterVector
from fedft.update.envelope import open_envelope
from fedft.update.release import UPDATE_PURPOSE
from fedft.update.wire import as_sent


@dataclass(frozen=True, repr=False)
class Seen:
    """What an auditor sees of an institution in a run.

    adapters: as sent, before each round and after the last. updates: the institution's own, by round from 1, of those
    in which it answered with one. events: of its ledger.
    """

    setup: CanarySetup
    adapters: tuple[AdapterVector, ...]
    updates: Mapping[int, AdapterVector]
    events: tuple[PrivacyEvent, ...]


def watch(
    config: FederationConfig, *, institution: str | None, canaries: Sequence[Example], coins: Coins, folder: Path
) -> Seen:
    """Play ``config`` in the new ``folder``, its ledgers included, with the canaries that the coins choose."""
    setups: list[CanarySetup] = []

    def planted(chosen: FederationConfig) -> CanarySetup:
        setups.append(CanarySetup(chosen, institution=institution, canaries=canaries, coins=coins))
        return setups[0]

    observer = _Watch(RunFolder(folder), lambda: ledger_path(config, folder, setups[0].planted_at))
    play(config, folder=folder, observer=observer, make_setup=planted)
    setup = setups[0]
    adapters = (start_adapter(setup), *(observer.adapters[number] for number in sorted(observer.adapters)))
    size = setup.model.layout.only(setup.aggregation.trains).size
    updates = {n: open_envelope(payload, expected_size=size).delta for n, payload in observer.payloads.items()}
    with Ledger.open(observer.ledger(), read_only=True) as ledger:
        events = ledger.events(dataset_of(config, setup.planted_at))
    return Seen(setup, tuple(as_sent(adapter, config.aggregation.encoding) for adapter in adapters), updates, events)


class _Watch(Observer):
    """Takes adapter and update after each round: the run's folder and the ledger keep those of the newest two."""

    def __init__(self, folder: RunFolder, ledger: Callable[[], Path]) -> None:
        self.adapters: dict[int, AdapterVector] = {}
        self.payloads: dict[int, bytes] = {}
        self.ledger, self._folder = ledger, folder

    def round_finished(self, record: Mapping[str, Any]) -> None:
        number = int(record["round"])
        self.adapters[number] = read_checkpoint(self._folder.checkpoints / f"round-{number:04d}")[0]["adapter"]
        with Ledger.open(self.ledger(), read_only=True) as ledger:
            payload = ledger.stored_release(str(self._folder.config()["run"]), number, UPDATE_PURPOSE)
        if payload is not None:
            self.payloads[number] = payload
