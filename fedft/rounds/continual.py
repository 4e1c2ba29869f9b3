"""Elastic weight consolidation along a federation's tasks, on the institution's side.

At the first round of a task an institution looks back once: the adapter it received is the anchor, and the Fisher
information says which effective weights mattered. Public rows cost nothing; private rows cost one accounted Gaussian
release, charged before it is taken. The result stays on the institution's disk and serves until the next task.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedft.errors import LedgerError
from fedft.ledger.entries import Intent
from fedft.model.checkpoint import read_checkpoint, whole_folder
from fedft.privacy.events import GaussianRelease
from fedft.rounds.institution import Institution
from fedft.rounds.plan import RoundRequest
from fedft.training.ewc import Consolidation, EwcPenalty, accumulate, load_consolidation, save_consolidation
from fedft.training.fisher import Detail, Fisher, private_fisher
from fedft.types import AdapterVector

PublicFisher = Callable[[AdapterVector, int], Fisher | None]
"""Adapter and index of the task about to begin -> Fisher on public rows of what came before; None if there are none."""


@dataclass(frozen=True)
class PrivateFisherTerms:
    clip_norm: float
    noise_multiplier: float
    detail: Detail = "matrix"


class OnlineEwc:
    """One penalty per task, remembered in ``folder``; implements rounds.institution.Consolidator.

    Guarantee: what the penalty depends on is public, or a DP release that is in the ledger before it is made. Charged,
    made, saved, noted as released, used, in this order, whatever crash comes between: once saved it is used until the
    next task, also after a restart; before it was noted it has influenced nothing, and if it is lost then it is made
    again under the same charge; once noted it is never made again under it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        strength: float,
        decay: float,
        tasks: tuple[str, ...],
        source: PublicFisher | PrivateFisherTerms,
    ) -> None:
        self._folder, self._strength, self._decay, self._tasks, self._source = folder, strength, decay, tasks, source
        self._current: tuple[int, EwcPenalty | None] | None = None

    def penalty(self, institution: Institution, request: RoundRequest) -> EwcPenalty | None:
        index = request.plan.task_index
        if self._current is None or self._current[0] != index:
            consolidation = self._consolidation(institution, request)
            model = institution.model
            made = None
            if consolidation is not None:
                made = EwcPenalty(model.layout, consolidation, self._strength, model.devices())
            self._current = (index, made)
            return made
        return self._current[1]

    def _consolidation(self, institution: Institution, request: RoundRequest) -> Consolidation | None:
        index = request.plan.task_index
        kept = self._kept(index)
        if kept is not None:
            self._note(institution, request)
            return kept
        earlier = next((found for i in range(index - 1, -1, -1) if (found := self._kept(i)) is not None), None)
        fisher, intent = self._fisher(institution, request)
        if fisher is None:
            return earlier
        made = accumulate(earlier, fisher, request.adapter, self._decay)
        digest = _fingerprint(fisher)
        about = {"task_index": index, "run": request.plan.run, "round": request.plan.round, "fisher": digest.hex()}
        save_consolidation(self._path(index), made, about)
        if intent is not None:
            institution.ledger.record_release(intent, digest)
        return made

    def _note(self, institution: Institution, request: RoundRequest) -> None:
        """Of a look that was charged and saved, the release: a crash may have come before it, but no use has."""
        ledger, plan = institution.ledger, request.plan
        if plan.task_index == 0 or not isinstance(self._source, PrivateFisherTerms):
            return
        _, about = read_checkpoint(self._path(plan.task_index))
        intent = ledger.find_intent(about["run"], about["round"], _purpose(plan.task_index))
        if intent is not None and not any(
            entry.kind == "release" and entry.fields["intent"] == intent.sequence for entry in ledger.entries()
        ):
            ledger.record_release(intent, bytes.fromhex(about["fisher"]))

    def _fisher(self, institution: Institution, request: RoundRequest) -> tuple[Fisher | None, Intent | None]:
        """Public, or on the private rows of the task that just ended: charged first, and then with its intent."""
        plan, terms = request.plan, self._source
        if not isinstance(terms, PrivateFisherTerms):
            return terms(request.adapter, plan.task_index), None
        if plan.task_index == 0:
            return None, None
        data = institution.data.get(self._tasks[plan.task_index - 1])
        if data is None:
            return None, None
        purpose = _purpose(plan.task_index)
        if institution.ledger.stored_release(plan.run, plan.round, purpose) is not None:
            raise LedgerError(
                f"expected what round {plan.round} paid for in {self._folder}, found nothing: restore the folder "
                "from a backup; another look at the rows would need another charge"
            )
        event, about = GaussianRelease(terms.noise_multiplier), {"clip_norm": terms.clip_norm}
        intent = institution.charge(plan, purpose, event, data, about)
        institution.model.write_vector(request.adapter)
        fisher = private_fisher(
            institution.model,
            data,
            clip_norm=terms.clip_norm,
            noise_multiplier=terms.noise_multiplier,
            detail=terms.detail,
        )
        return fisher, intent

    def _kept(self, index: int) -> Consolidation | None:
        return load_consolidation(self._path(index)) if self._path(index).exists() else None

    def _path(self, index: int) -> Path:
        return self._folder / f"consolidation-{index}"


def inherit(source: Path, folder: Path, round: int) -> None:
    """Give a run that goes on from another's state after ``round`` what an institution consolidated up to there.

    A look back in the round after that state was taken from the same adapter: it holds too, and is paid. Copied byte
    for byte, once; the source stays as it is. Raises StorageError.
    """
    for path in sorted(source.glob("consolidation-*")):
        if not (folder / path.name).exists() and read_checkpoint(path)[1]["round"] <= round + 1:
            with whole_folder(folder / path.name) as target:
                shutil.copytree(path, target, dirs_exist_ok=True)


def shared_public_fisher(compute: Callable[[AdapterVector, int], Fisher | None]) -> PublicFisher:
    """The same numbers for every institution that asks about the same adapter: computed once, for simulations."""
    made: dict[tuple[bytes, int], Fisher | None] = {}

    def lookup(adapter: AdapterVector, task_index: int) -> Fisher | None:
        key = (hashlib.sha256(adapter.tobytes()).digest(), task_index)
        if key not in made:
            made[key] = compute(adapter, task_index)
        return made[key]

    return lookup


def _purpose(task_index: int) -> str:
    """Of a look back at the task before ``task_index``, in the ledger."""
    return f"fisher-{task_index - 1}"


def _fingerprint(fisher: Fisher) -> bytes:
    """What the ledger keeps of a Fisher that never leaves the building: a digest of its noised values."""
    digest = hashlib.sha256(b"fedft/v1/private-fisher")
    for name in sorted(fisher):
        digest.update(name.encode() + np.ascontiguousarray(fisher[name], dtype="<f4").tobytes())
    return digest.digest()
