"""A run's records without its training: real ledgers, witnesses, envelopes and audit log, over a dozen values.

For bench/audit.py and the tests of fedft/audit: a hundred institutions and a thousand rounds in minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from fedft.identity.keys import PrivateKey
from fedft.ledger.chain import Signer
from fedft.ledger.store import Ledger
from fedft.model.vector import AdapterLayout, TensorSpec, vector_digest
from fedft.privacy.events import DpSgdRound
from fedft.records.log import AuditLog
from fedft.rounds.messages import split_attestation
from fedft.rounds.open_round import OpenRound, PlainSum
from fedft.rounds.plan import NO_TERMS, RoundPlan
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.rounds.trail import Trail
from fedft.rounds.witness import Witness
from fedft.types import Digest
from fedft.update.envelope import seal

LAYOUT = AdapterLayout(Digest("b" * 64), (TensorSpec("head.weight", (3, 4), "head"),), scaling=1.0)
EVENT = DpSgdRound(noise_multiplier=1.1, sampling_rate=0.02, steps=10)


class MadeRun:
    """coordinator, keys: the private keys, which a simulation would have deleted. run: its name.

    open_ledger: of a path and who signs; bench/_bulk_ledger.py has a quicker one.
    """

    def __init__(
        self,
        folder: Path,
        institutions: int,
        *,
        rounds: int,
        run: str = "made/1",
        open_ledger: Callable[[Path, Signer], Any] = lambda path, signer: Ledger.open(path, signer=signer),
    ) -> None:
        self.folder, self.run, self._rounds = folder, run, rounds
        self.names = tuple(f"bank-{number:03d}" for number in range(institutions))
        self.coordinator = PrivateKey.generate()
        self.keys = {name: PrivateKey.generate() for name in self.names}
        self.store, self._stack, self.round = RunFolder(folder), ExitStack(), 0
        self.store.create({"run": run, "federation": {"name": "made"}})
        log = AuditLog.open(folder, run=run, key=self.coordinator)
        identities = {name: key.public for name, key in self.keys.items()}
        self.trail = Trail(log, lambda: (identities, ""), aggregation="fedavg")
        self.trail.begin(
            coordinator=self.coordinator.public.text,
            config=self.store.config_bytes(),
            terms=NO_TERMS,
            base_model=LAYOUT.base_digest,
            layout=LAYOUT.digest,
        )
        self.ledgers = {
            name: self._stack.enter_context(open_ledger(self.ledger_path(name), Signer(name, self.keys[name])))
            for name in self.names
        }
        self.witnesses = {
            name: Witness(Signer(name, key), coordinator=self.coordinator.public, ledger=self.ledgers[name])
            for name, key in self.keys.items()
        }

    def ledger_path(self, name: str) -> Path:
        return self.folder / "institutions" / name / "ledger.sqlite"

    def play(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            self.round += 1
            self._play_round()

    def _play_round(self) -> None:
        head, adapter = self.trail.before_round(), np.full(LAYOUT.size, self.round, np.float32)
        plan = self._plan(vector_digest(adapter))
        opened = OpenRound(plan, PlainSum(plan, LAYOUT, weights={}, max_norm=1e3), Observer())
        for name in self.names:
            note, update = split_attestation(self.answer(name, plan, head))
            self.trail.attested(name, note, update, plan)
            opened.notes[name] = note
            opened.receive(name, update)
        # Without names: with the newest record alone each round would look like everyone's first, and be kept.
        record: dict[str, Any] = {"round": self.round, "updates": [], "missing": [], "quorum": True}
        entry = self.trail.entry_of(opened, record, vector_digest(adapter))
        self.store.commit(self.round, tensors={"adapter": adapter}, manifest={"records": [record], "audit": entry})
        self.trail.commit(entry, self.store.checkpoint_digest(self.round))

    def answer(self, name: str, plan: RoundPlan, head: str) -> bytes:
        """What an institution does in a round, but for training."""
        self.witnesses[name].accept(self.run, head)
        intent = self.ledgers[name].record_intent(
            run=self.run, round=plan.round, purpose="update", dataset=name, plan_digest=plan.digest, event=EVENT,
            evidence={"fingerprint": "f" * 64, "units": 500, "clip_norm": 0.5, "delta": 1e-5},
        )  # fmt: skip
        update = seal(
            run=self.run, round=plan.round, institution=name, plan_digest=plan.digest, layout_digest=LAYOUT.digest,
            delta=np.full(LAYOUT.size, 0.01, np.float32),
        )  # fmt: skip
        stored = self.ledgers[name].record_release(intent, update)
        return self.witnesses[name].attested(stored, run=self.run, round=plan.round)

    def end(self) -> None:
        """The last notice, closed ledgers, the last entry."""
        notice = self.trail.notice()
        for name, witness in self.witnesses.items():
            self.trail.noticed(name, notice, witness.notice(notice))
        self.close()
        self.store.write_summary({"rounds": self.round})
        self.trail.end(best_round=self.round)

    def close(self) -> None:
        self._stack.close()

    def _plan(self, adapter: str) -> RoundPlan:
        number, rounds = self.round, max(self._rounds, self.round)
        return RoundPlan(
            run=self.run, round=number, rounds=rounds, task="default", task_index=0, cohort=self.names,
            layout_digest=LAYOUT.digest, adapter_digest=Digest(adapter), roles=("head",), local_steps=1,
            first_step=number - 1, total_steps=rounds,
        )  # fmt: skip


def lines(folder: Path) -> list[dict[str, Any]]:
    """The entries of a folder's log."""
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
