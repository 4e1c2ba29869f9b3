"""The institution's side of a round: check, charge, train, release, in this order.

Guarantees, for an institution with a Guarantee:
- what cannot be trained is refused before it is charged;
- the spend is in the ledger and synced before the first gradient is taken, and the check before it covers every event
  of the data set, over all runs;
- a round that was answered is answered again with the stored bytes; one that was charged but not answered is trained
  again under the same charge (docs/decisions/0008);
- what comes out is an update in the ledger or a refusal of one word, whatever goes wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch

from fedft.data.formats import EncodedDataSet
from fedft.data.quality import require_batch
from fedft.errors import ConfigError, FedftError, LayoutMismatch, StaleUpdate
from fedft.ledger.entries import Intent
from fedft.ledger.store import Ledger
from fedft.model.adapter import AdaptedModel
from fedft.privacy.accountant import epsilon_of, require_budget_for, require_delta
from fedft.privacy.discrete_gaussian import sample_discrete_gaussian
from fedft.privacy.events import DpSgdRound, PrivacyEvent, UnprotectedRelease
from fedft.privacy.noise import gaussian
from fedft.randomness import SecureStream, reproducible_rng, secure_bytes
from fedft.rounds.evidence import evidence_of
from fedft.rounds.member import Masked, Member, require_masking, stored_upload
from fedft.rounds.plan import RoundPlan, RoundRequest, require_sent_adapter
from fedft.rounds.terms import Guarantee, Masking, TrainingTerms
from fedft.secagg.encoding import Words
from fedft.training.local import LocalPlan, Mechanism, Penalty, Uniform, sum_gradients, train_locally
from fedft.training.schedule import learning_rates
from fedft.training.self_test import SelfTest, require_private
from fedft.types import AdapterVector, InstitutionId
from fedft.update.release import UPDATE_PURPOSE, Refusal, refusal_for, release_update

log = logging.getLogger(__name__)


class Consolidator(Protocol):
    """Gives the penalty that protects what earlier tasks left, if any; see rounds/continual.py."""

    def penalty(self, institution: Institution, request: RoundRequest) -> Penalty | None: ...


class Institution:
    """One institution with its data, model, ledger and terms. ``guarantee`` None: unprotected, written out as such.

    Parameters
    ----------
    data
        Encoded rows by the name of the task they are for.
    dataset
        The name its owner gives the data; the privacy budget belongs to it, whatever the version.
    seed
        Public. Drives sampling and dropout when there is no guarantee, and nothing when there is one.
    note
        Takes lines that depend on the rows and stay with the institution. The program's log does not.
    masking
        None: updates leave as they are.
    about
        Further evidence of every charge: whose unit, and what allowed a release without a guarantee.
    tested
        Self-tests by trained roles: one object for all institutions over the same model, for it is what is tested.

    Raises
    ------
    ConfigError
        The schedule does not take the terms' options.
    """

    def __init__(
        self,
        name: InstitutionId,
        *,
        model: AdaptedModel,
        data: Mapping[str, EncodedDataSet],
        dataset: str,
        ledger: Ledger,
        terms: TrainingTerms,
        guarantee: Guarantee | None,
        seed: int,
        consolidator: Consolidator | None = None,
        on_step: Callable[[int, int], None] | None = None,
        note: Callable[[str], None] | None = None,
        masking: Masking | None = None,
        about: Mapping[str, str] = MappingProxyType({}),
        tested: dict[tuple[str, ...], SelfTest] | None = None,
    ) -> None:
        self.name, self.model, self.data, self.dataset, self.ledger = name, model, data, dataset, ledger
        self.terms, self.guarantee, self.seed, self.about = terms, guarantee, seed, about
        self.training_seconds = 0.0
        self._consolidator, self._on_step, self._note, self._masking = consolidator, on_step, note, masking
        self._tested = {} if tested is None else tested
        self._learning_rates(start=0, steps=1, total=1)  # options that a schedule does not take: before any charge

    def answer(self, request: RoundRequest) -> bytes | Refusal:
        """The round's update as stored bytes, or a refusal.

        Raises nothing but KeyboardInterrupt and SystemExit for any plan that RoundPlan.from_json takes.
        """
        plan = request.plan
        try:
            return self._answer(request)
        except Exception as error:  # noqa: BLE001 - an institution always answers, in one word
            log.warning("%s refuses round %d: %s", self.name, plan.round, _in_words(error))
            refusal = refusal_for(error, institution=self.name, run=plan.run, round=plan.round)
            self._note_refusal(refusal)
            return refusal

    def key(self, setup: str) -> bytes:
        """This institution's sealed key for a setup of secure aggregation. Raises ConfigError without such."""
        return self._member().key(setup)

    def unmask(self, question: bytes) -> bytes | Refusal:
        """The sealed shares that a question asks for, or a refusal. Raises as Member.unmask, and ConfigError as key."""
        return self._member().unmask(question)

    def round_of(self, question: bytes) -> int:
        """Of a question who uploaded. Raises as ``unmask``."""
        return self._member().place(question)[1]

    def spent(self) -> float | None:
        """Epsilon of everything in the ledger for this data set, at the guarantee's delta; None without a guarantee."""
        return None if self.guarantee is None else epsilon_of(self.ledger.events(self.dataset), self.guarantee.delta)

    def charge(
        self,
        plan: RoundPlan,
        purpose: str,
        event: PrivacyEvent,
        data: EncodedDataSet,
        more: Mapping[str, str | int | float] = MappingProxyType({}),
    ) -> Intent:
        """Write the intent, after checking that the data set's budget allows it; an intent that stands is returned.

        more: evidence beyond that of every charge.

        Raises PrivacyBudgetExhausted, and LedgerError when the round was charged for another plan.
        """
        if self.ledger.find_intent(plan.run, plan.round, purpose) is None and self.guarantee is not None:
            past, cap = self.ledger.events(self.dataset), self.guarantee
            require_budget_for(past, event, epsilon=cap.epsilon, delta=cap.delta, dataset=self.dataset)
        tested = self._tested.get(plan.roles)
        return self.ledger.record_intent(
            run=plan.run,
            round=plan.round,
            purpose=purpose,
            dataset=self.dataset,
            plan_digest=plan.digest,
            event=event,
            evidence={**evidence_of(self, data), **({} if tested is None else tested.as_evidence()), **more},
        )

    def _answer(self, request: RoundRequest) -> bytes:
        plan = request.plan
        require_sent_adapter(request)
        self.model.layout.require(request.adapter)
        if not np.isfinite(request.adapter).all():
            raise ConfigError("expected a finite adapter to start from, found NaN or infinity: send another")
        if plan.layout_digest != self.model.layout.digest:
            raise LayoutMismatch(
                f"expected a plan for layout {self.model.layout.digest[:12]}, found {plan.layout_digest[:12]}: use the "
                "coordinator's base model and [adapter] section"
            )
        if self.name not in plan.cohort:
            raise ConfigError(
                f"expected a plan whose cohort names {self.name}, found one without: not this round's turn"
            )
        stored = self.ledger.stored_release(plan.run, plan.round, UPDATE_PURPOSE)
        if stored is None and plan.round < self.ledger.last_round(plan.run):
            raise StaleUpdate(f"expected a round after {self.ledger.last_round(plan.run)}, found {plan.round}")
        masked = self._masked(request)
        data, event = self._task_data(plan), self._event(request, masked)
        if stored is not None:
            self.charge(plan, UPDATE_PURPOSE, event, data)  # paid already: raises for another plan
            return stored if masked is None else stored_upload(stored)
        # First, because it may have to be paid too, and serves later rounds; an update that waits for it would not.
        penalty = None if self._consolidator is None else self._consolidator.penalty(self, request)
        intent = self.charge(plan, UPDATE_PURPOSE, event, data, {} if masked is None else masked.evidence)
        return self._train_and_release(request, intent, penalty, masked)

    def _member(self) -> Member:
        if self._masking is None:
            raise ConfigError("expected nothing of secure aggregation in this run, found a message of it: plan anew")
        return self._masking.member

    def _masked(self, request: RoundRequest) -> Masked | None:
        """What the update is to be masked in, where it is. Raises PolicyError where one side masks, and as join."""
        plan, masking = request.plan, self._masking
        require_masking(asked=bool(plan.masking), agreed=masking is not None)
        if masking is None:
            return None
        size = self.model.layout.only(plan.roles).size
        return masking.member.join(plan, request.keys, size=size, terms=masking.terms, weight=masking.weight)

    def _event(self, request: RoundRequest, masked: Masked | None) -> PrivacyEvent:
        """What the round's update will be, after everything that can be checked about it without looking at a row."""
        plan, data, terms = request.plan, self._task_data(request.plan), self.terms
        if masked is None or masked.noise is None:
            require_batch(data.unit_count, terms.batch_size)
        if self.guarantee is None:
            return UnprotectedRelease()
        require_delta(self.guarantee.delta, data.unit_count)
        if plan.roles not in self._tested:
            self.model.write_vector(request.adapter)  # not what an earlier training left
            draw = gaussian if masked is None or masked.noise is None else sample_discrete_gaussian
            self._tested[plan.roles] = require_private(
                self.model, plan.roles, draw=draw, precision=terms.precision, rows=terms.physical_batch_size
            )
        if masked is not None and masked.noise is not None:
            self._require_one_step(plan, data)
            return masked.noise.event()
        return DpSgdRound(self.guarantee.noise_multiplier, terms.batch_size / data.unit_count, plan.local_steps)

    def _require_one_step(self, plan: RoundPlan, data: EncodedDataSet) -> None:
        """Of a round whose noise is added in shares."""
        noise = None if self._masking is None else self._masking.terms.noise
        if plan.local_steps != 1 or self._consolidator is not None:
            raise ConfigError(
                'expected one step a round, without EWC, with privacy.mode = "distributed", found more: plan it anew'
            )
        if noise is None or data.unit_count > noise.max_units:
            raise ConfigError(
                f"expected at least as many privacy.max_units as there are here, {data.unit_count}, found fewer: "
                "raise it, for all institutions"
            )

    def _train_and_release(
        self, request: RoundRequest, intent: Intent, penalty: Penalty | None, masked: Masked | None
    ) -> bytes:
        plan, data = request.plan, self._task_data(request.plan)
        if masked is not None and masked.noise is not None:
            return self._release_gradients(request, intent, masked, masked.noise.sampling_rate)
        result = train_locally(
            self.model,
            data,
            request.adapter,
            self._local_plan(plan, data),
            roles=plan.roles,
            uniform=self._coin_flips(plan),
            penalty=penalty,
            on_step=self._on_step,
        )
        self._note_training(plan, result.seconds, result.rejected_units)
        if masked is not None:
            return self._release_masked(result.delta, plan, intent, masked)
        return release_update(
            result.delta,
            run=plan.run,
            round=plan.round,
            institution=self.name,
            plan_digest=plan.digest,
            layout_digest=self.model.layout.only(plan.roles).digest,
            intent=intent,
            recorder=self.ledger,
            encoding=plan.encoding,
            uniform=None if plan.encoding == "float32" else self._rounding(plan)[0],
        )

    def _release_masked(self, delta: AdapterVector, plan: RoundPlan, intent: Intent, masked: Masked) -> bytes:
        payload, cut = masked.member.release(delta, masked, intent, self._rounding(plan)[1])
        if self._note is not None:
            self._note(f"{plan.run}, round {plan.round}: secure_aggregation.range cut off {cut} values of the update")
        return payload

    def _release_gradients(self, request: RoundRequest, intent: Intent, masked: Masked, sampling_rate: float) -> bytes:
        plan, data = request.plan, self._task_data(request.plan)
        local = replace(self._local_plan(plan, data), sampling_rate=sampling_rate)
        found = sum_gradients(
            self.model, data, request.adapter, local, roles=plan.roles, uniform=self._coin_flips(plan)
        )
        self._note_training(plan, found.seconds, found.rejected_units)
        return masked.member.release_gradients(found.total, masked, intent)

    def _note_training(self, plan: RoundPlan, seconds: float, rejected_units: int) -> None:
        self.training_seconds += seconds
        if self._note is not None and self.guarantee is not None:
            # Whatever the count is: a disk that refuses the line must not say that there was something to note.
            self._note(f"{plan.run}, round {plan.round}: left out {rejected_units} unit gradients, not finite")

    def _local_plan(self, plan: RoundPlan, data: EncodedDataSet) -> LocalPlan:
        terms, guarantee = self.terms, self.guarantee
        return LocalPlan(
            learning_rates=self._learning_rates(plan.first_step, plan.local_steps, plan.total_steps),
            batch_size=terms.batch_size,
            sampling_rate=terms.batch_size / data.unit_count,
            mechanism=None if guarantee is None else Mechanism(guarantee.clip_norm, guarantee.noise_multiplier),
            optimizer=terms.optimizer,
            weight_decay=terms.weight_decay,
            physical_batch_size=terms.physical_batch_size,
            max_rows_per_unit=terms.max_rows_per_unit,
            max_gradient_norm=terms.max_gradient_norm,
            precision=terms.precision,
        )

    def _learning_rates(self, start: int, steps: int, total: int) -> tuple[float, ...]:
        terms = self.terms
        return learning_rates(
            terms.scheduler,
            terms.learning_rate,
            start=start,
            steps=steps,
            total=total,
            warmup=terms.warmup_steps,
            options=terms.scheduler_options,
        )

    def _coin_flips(self, plan: RoundPlan) -> Uniform:
        """Secret with a guarantee; without one from the seed, so that a resumed run ends with the same bits."""
        if self.guarantee is not None:
            torch.manual_seed(int.from_bytes(secure_bytes(8), "big"))  # dropout's masks are coin flips too
            return SecureStream().uniform
        rng = reproducible_rng(self.seed, "local-training", self.name, plan.round)
        torch.manual_seed(int(rng.integers(1 << 62)))
        return rng.random

    def _rounding(self, plan: RoundPlan) -> tuple[Uniform, Words]:
        """For rounding an update that is not sent as float32: secret as ``_coin_flips``, and after the noise."""
        if self.guarantee is not None:
            stream = SecureStream()
            return stream.uniform, stream.words
        rng = reproducible_rng(self.seed, "rounding", self.name, plan.round)
        return rng.random, rng.bit_generator.random_raw

    def _task_data(self, plan: RoundPlan) -> EncodedDataSet:
        if plan.task not in self.data:
            raise ConfigError(f'expected a task of {", ".join(self.data)}, found "{plan.task}": no rows for it here')
        return self.data[plan.task]

    def _note_refusal(self, refusal: Refusal) -> None:
        try:
            self.ledger.record_refusal(
                run=refusal.run, round=refusal.round, dataset=self.dataset, reason=refusal.reason
            )
        except Exception as error:  # noqa: BLE001 - the refusal stands, noted or not
            log.warning("%s could not note its refusal of round %d: %s", self.name, refusal.round, _in_words(error))


def _in_words(error: Exception) -> str:
    """For the institution's own log. Another library's text may quote a record: of such an error only the type."""
    return str(error) if isinstance(error, FedftError) else type(error).__name__
