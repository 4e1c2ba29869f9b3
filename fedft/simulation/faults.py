"""What goes wrong at a simulated institution, on purpose: it does not answer, or it sends what it should not."""

from __future__ import annotations

import numpy as np

from fedft.config import Faults
from fedft.errors import ConfigError
from fedft.randomness import reproducible_rng
from fedft.rounds.institution import Institution
from fedft.rounds.messages import encode_answer
from fedft.rounds.plan import RoundRequest
from fedft.rounds.witness import Witness
from fedft.update.envelope import seal
from fedft.update.release import Refusal


class Dropped(Exception):
    """Raised instead of an answer, before anything is trained or charged."""


class FaultyInstitution:
    """An institution with the faults of its section. A drop by chance depends on the seed and the round alone."""

    def __init__(
        self, institution: Institution, faults: Faults | None, seed: int, witness: Witness | None = None
    ) -> None:
        self._institution, self._faults, self._seed = institution, faults or Faults(), seed
        self._witness = witness

    def answer(self, request: RoundRequest) -> bytes | Refusal:
        number = request.plan.round
        chance = reproducible_rng(self._seed, "drop", self._institution.name, number).random()
        if number in self._faults.drop_rounds or chance < self._faults.drop_probability:
            raise Dropped
        if self._witness is not None:
            self._witness.accept(request.plan.run, request.head)
        answer = self._institution.answer(request)
        if number in self._faults.corrupt_rounds and isinstance(answer, bytes):
            answer = self._poisoned(request)
        if self._witness is None:
            return answer
        return self._witness.attested(encode_answer(answer), run=request.plan.run, round=number)

    def notice(self, data: bytes) -> bytes:
        """The reply to the coordinator's last notice. Raises ConfigError where no log is kept."""
        if self._witness is None:
            raise ConfigError("expected no notice where no audit log is kept, found one: play the run anew")
        return self._witness.notice(data)

    def key(self, setup: str) -> bytes:
        return self._institution.key(setup)

    def unmask(self, question: bytes) -> bytes | Refusal:
        """Nothing in a round of faults.silent_rounds: it uploaded, and is gone."""
        if self._institution.round_of(question) in self._faults.silent_rounds:
            raise Dropped
        return self._institution.unmask(question)

    def _poisoned(self, request: RoundRequest) -> bytes:
        """NaN in place of every value, past the release path that would refuse it: a broken or hostile sender."""
        plan, part = request.plan, self._institution.model.layout.only(request.plan.roles)
        return seal(
            run=plan.run,
            round=plan.round,
            institution=self._institution.name,
            plan_digest=plan.digest,
            layout_digest=part.digest,
            delta=np.full(part.size, np.nan, dtype=np.float32),
            encoding=plan.encoding,
        )
