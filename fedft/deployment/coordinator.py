"""What the ServerApp does: play what is left of the run in a folder over the SuperLink, signed.

Guarantees:
- Every plan leaves under the coordinator's key; nothing is believed but what the roster's key of its sender signed.
- The roster is read anew in every round: an institution that was removed takes no part from the next one on.
- A run that is started again on its folder goes on from its last finished round.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedft.assembly.coordinator import PublicParts, make_coordinator
from fedft.assembly.outcome import summarize
from fedft.assembly.planning import promised_plan
from fedft.assembly.runs import resume_config
from fedft.assembly.signing import Signer
from fedft.deployment.events import EventWriter
from fedft.deployment.provision_leaving import withdrawals_in
from fedft.deployment.terms import terms_of
from fedft.durable import write_whole
from fedft.errors import ConfigError, FedftError, StorageError
from fedft.flower.strategy import FedftStrategy
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.roster import Roster
from fedft.identity.signed import open_signed, seal
from fedft.model.checkpoint import storage_errors
from fedft.model.export import export_adapter
from fedft.records.log import has_ended
from fedft.rounds.run_folder import RunFolder

log = logging.getLogger(__name__)

FILE = "deployment.json"
POLL_S = 0.5
"""Between two questions to the SuperLink for replies."""


@dataclass(frozen=True)
class Deployment:
    """Beside config.json: where the coordinator's key and roster are, and how often the SuperLink is asked for replies.

    cohort: who was a member when the run began.
    """

    identity: str
    roster: str
    cohort: tuple[str, ...]
    poll_s: float = POLL_S

    def write(self, folder: Path) -> None:
        body = {"identity": self.identity, "roster": self.roster, "cohort": list(self.cohort), "poll_s": self.poll_s}
        with storage_errors(folder):
            write_whole(folder / FILE, (json.dumps(body, indent=2) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Deployment:
        """Raises ConfigError when the folder's run was not made for a deployment, StorageError for a damaged file."""
        if not (folder / FILE).is_file():
            raise ConfigError(
                f"expected a run begun with fedft coordinate, found no {FILE} in {folder}: check the path"
            )
        try:
            body = json.loads((folder / FILE).read_text())
            return cls(body["identity"], body["roster"], tuple(body["cohort"]), float(body["poll_s"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"expected {FILE} as it was written, found it damaged: restore it") from error


class Members:
    """Signs as the coordinator, and opens what members of the roster, as it stands now, have signed."""

    def __init__(self, deployment: Deployment) -> None:
        self._key = PrivateKey.load(Path(deployment.identity))
        self._roster = Path(deployment.roster)

    def sign(self, label: str, payload: bytes) -> bytes:
        return seal(label, payload, self._key)

    def signer(self) -> Signer:
        """For the audit log and secure aggregation: the same key, and the roster as it stands at each call."""
        return Signer(
            self._key,
            self._identities,
            lambda: Roster.read(self._roster, self._key.public).digest,
            lambda: withdrawals_in(self._roster.parent),
        )

    def _identities(self) -> dict[str, PublicKey]:
        return {member.name: member.key for member in Roster.read(self._roster, self._key.public).members}

    def opened(self, label: str, institution: str, data: bytes) -> bytes:
        """Raises IdentityError for one who is not, or no longer, a member, and for another's signature."""
        roster = Roster.read(self._roster, self._key.public)
        return open_signed(label, data, roster.member(institution).key)


def play_on(start: Callable[[FedftStrategy], object], folder: Path) -> None:
    """The rest of the run, which ``start`` gives its Grid; its end, good or bad, is the last of its events."""
    events = EventWriter(folder)
    with RunFolder(folder).alone():
        _told(lambda: _play(start, folder, events), events)


def _told(play: Callable[[], dict[str, Any]], events: EventWriter) -> None:
    try:
        summary = play()
    except Exception as error:
        unforeseen = f"{type(error).__name__}, which fedft did not foresee: see the ServerApp's log"
        with suppress(StorageError):  # the error itself may be that nothing can be written here
            events.failed(str(error) if isinstance(error, FedftError) else unforeseen)
        raise
    events.run_finished(summary)


def _play(start: Callable[[FedftStrategy], object], folder: Path, events: EventWriter) -> dict[str, Any]:
    begun = time.perf_counter()
    config, deployment, store = resume_config(folder), Deployment.read(folder), RunFolder(folder)
    if has_ended(folder):
        return store.summary()
    members, parts = Members(deployment), PublicParts(config)
    terms = terms_of(config, labels=parts.labels, base_digest=parts.model.base_digest, parent=store.parent())
    run = str(store.config()["run"])
    events.run_started(config.federation.name, config.federation.rounds, deployment.cohort)
    coordinator = make_coordinator(
        parts,
        run=run,
        cohort=deployment.cohort,
        store=store,
        observer=events,
        terms=terms,
        signer=members.signer(),
    )
    unknown = dict.fromkeys(deployment.cohort)
    strategy = FedftStrategy(
        coordinator,
        round_timeout_s=config.federation.round_timeout_s,
        terms=terms,
        sign=members.sign,
        opened=members.opened,
        poll_s=deployment.poll_s,
        measured=lambda: {"seconds_training": None, "epsilon": unknown, "cap": unknown},
    )
    start(strategy)
    parts.model.write_vector(coordinator.state.best)
    export_adapter(parts.model, folder / "adapter", labels=parts.labels)
    promised = promised_plan(config)
    summary = summarize(
        parts,
        dict.fromkeys(deployment.cohort, promised),
        coordinator,
        engine="superlink",
        seconds=time.perf_counter() - begun,
    )
    store.write_summary(summary)
    coordinator.end()
    return summary
