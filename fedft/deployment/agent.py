"""The resident agent of an institution: it alone touches data, model, policy, key and ledger.

Guarantees:
- Nothing is read of a request before the coordinator's signature over all of it holds.
- The policy wins: what it does not allow is refused before the data set is opened, in one signed word; noise, which
  follows from how many units there are, before anything is charged or trained.
- What leaves is an update or a refusal as rounds/institution.py makes them, or a name; always signed by its own key.
- A head of the coordinator's audit log that does not go on from those kept before is refused, and nothing charged.
- Under secure aggregation a round has one masked update and one set of revealed shares, across restarts too.
- A newer roster counts from the next request or roll call on.
- Once the institution has withdrawn, nothing that depends on a row leaves: no update, stored ones among them, no share
  and no key, whatever is asked; what was being trained is not sent.
- The base model is loaded once for all rounds of the same terms; a restart loses nothing that was charged.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedft.aggregation.base import aggregation_by_name
from fedft.assembly.coordinator import reference_by_task
from fedft.assembly.institution import institution_of, public_fisher_on
from fedft.assembly.parts import adapted_model, encode_rows, load_rows
from fedft.assembly.planning import institution_plan
from fedft.assembly.rows import institution_data
from fedft.config import FederationConfig
from fedft.config.policy import InstitutionPolicy
from fedft.deployment.agent_roster import AgentRoster
from fedft.deployment.policy import dataset_for, model_for, require_allowed, require_noise
from fedft.deployment.terms import config_of, parent_of
from fedft.deployment.withdrawal import Departure
from fedft.errors import FedftError
from fedft.identity.keys import PrivateKey, PublicKey
from fedft.identity.signed import open_signed, seal
from fedft.ledger.chain import Signer
from fedft.ledger.store import Ledger
from fedft.model.adapter import AdaptedModel
from fedft.rounds.continual import inherit
from fedft.rounds.institution import Institution
from fedft.rounds.masking import run_of
from fedft.rounds.member import Member
from fedft.rounds.messages import (
    ANSWER_LABEL,
    RECEIPT_LABEL,
    REQUEST_LABEL,
    ROLL_CALL_LABEL,
    decode_question,
    decode_request,
    decode_terms,
    encode_answer,
    encode_presence,
)
from fedft.rounds.plan import DEFAULT_TASK, RoundPlan, RoundRequest
from fedft.rounds.witness import Witness
from fedft.update.release import Refusal, refusal_for

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Seated:
    """An institution at work for one run's terms."""

    run: str
    terms_digest: str
    institution: Institution


class Agent:
    """Serves one institution of one federation; not for several threads at once.

    Raises
    ------
    ConfigError, IdentityError
        The policy's keys and roster do not fit together.
    LedgerLocked
        Another agent works with the same ledger.
    """

    def __init__(self, policy: InstitutionPolicy) -> None:
        self.policy = policy
        self._key = PrivateKey.load(policy.institution.identity)
        self._coordinator = PublicKey(policy.institution.coordinator)
        policy.agent.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._roster = AgentRoster(policy.institution, policy.agent.state / "roster-memory.json", self._key.public)
        signer = Signer(policy.institution.name, self._key)
        self._ledger = Ledger.open(policy.agent.ledger, signer=signer)
        self._witness = Witness(signer, coordinator=self._coordinator, ledger=self._ledger)
        self._departure = Departure(policy, self._ledger, self._key.public)
        self._member = Member(
            policy.institution.name,
            identity=self._key,
            identities=self._roster,
            coordinator=self._coordinator,
            ledger=self._ledger,
            folder=policy.agent.state / "secagg",
            least_cohort=policy.allow.least_cohort,
        )
        self._model: tuple[str, AdaptedModel] | None = None
        self._seated: _Seated | None = None

    @property
    def name(self) -> str:
        return self.policy.institution.name

    def close(self) -> None:
        self._ledger.close()

    def answer(self, body: bytes) -> bytes:
        """The signed answer to a signed request: an update, or a refusal.

        Raises
        ------
        IdentityError
            Not signed by the coordinator, or altered.
        ConfigError
            Signed, and no request of this version.
        """
        request, terms = decode_request(open_signed(REQUEST_LABEL, body, self._coordinator))
        plan = request.plan
        try:
            self._departure.require_member()
            answer = self._answer(request, terms)
            self._departure.require_member()  # it may have left while this was trained
        except FedftError as error:
            answer = self._refused(error, plan)
        told = self._witness.attested(encode_answer(answer), run=plan.run, round=plan.round)
        return seal(ANSWER_LABEL, told, self._key)

    def receipt(self, body: bytes) -> bytes:
        """The signed reply to the coordinator's signed notice, whose head is kept. Raises as ``answer``."""
        return seal(RECEIPT_LABEL, self._witness.notice(open_signed(RECEIPT_LABEL, body, self._coordinator)), self._key)

    def roll_call(self, body: bytes) -> bytes:
        """The signed name, and the key that the coordinator's signed question asks for. Raises as ``answer``.

        IdentityError, too, while the roster's file is not one with this institution; Withdrawn for a question for a key
        once it has left: it still says its name, to be asked and to refuse.
        """
        nonce, setup = decode_question(open_signed(ROLL_CALL_LABEL, body, self._coordinator))
        if setup:
            self._departure.require_member()
        self._roster.refresh()
        key = self._member.key(setup) if setup else b""
        return seal(ROLL_CALL_LABEL, encode_presence(nonce, self.name, key), self._key)

    def unmask(self, body: bytes) -> bytes:
        """The signed shares of masks, or a refusal, for the coordinator's signed question who uploaded.

        Raises IdentityError, UpdateError for what is none.
        """
        setup, number = self._member.place(body)
        try:
            self._departure.require_member()
            told = self._member.unmask(body)
        except FedftError as error:
            log.warning("%s reveals nothing of round %d: %s", self.name, number, error)
            told = refusal_for(error, institution=self.name, run=run_of(setup), round=number)
        return seal(ANSWER_LABEL, encode_answer(told), self._key)

    def busy(self, event: Literal["answer", "unmask"], body: bytes) -> bytes:
        """The signed refusal of a request, or of a question who uploaded, that is not begun. For any thread.

        Raises as ``answer`` and ``unmask``: what the coordinator did not sign gets no answer.
        """
        if event == "unmask":
            setup, number = self._member.place(body)
            return seal(ANSWER_LABEL, encode_answer(Refusal(self.name, run_of(setup), number, "busy")), self._key)
        request, _ = decode_request(open_signed(REQUEST_LABEL, body, self._coordinator))
        run, number = request.plan.run, request.plan.round
        refusal = encode_answer(Refusal(self.name, run, number, "busy"))
        return seal(ANSWER_LABEL, self._witness.attested(refusal, run=run, round=number), self._key)

    def _answer(self, request: RoundRequest, terms: str) -> bytes | Refusal:
        plan = request.plan
        try:
            self._roster.refresh()
            self._witness.accept(plan.run, request.head)
            return self._institution(plan, terms).answer(request)
        except Exception as error:  # noqa: BLE001 - an institution always answers, in one word
            return self._refused(error, plan)

    def _refused(self, error: Exception, plan: RoundPlan) -> Refusal:
        words = str(error) if isinstance(error, FedftError) else type(error).__name__
        log.warning("%s refuses round %d: %s", self.name, plan.round, words)
        refusal = refusal_for(error, institution=self.name, run=plan.run, round=plan.round)
        self._note(refusal)
        return refusal

    def _institution(self, plan: RoundPlan, text: str) -> Institution:
        seated = self._seated
        if seated is not None and (seated.run, seated.terms_digest) == (plan.run, plan.terms_digest):
            require_allowed(self.policy, decode_terms(text), plan)
            return seated.institution
        self._seated = None
        terms = decode_terms(text)
        require_allowed(self.policy, terms, plan)
        made = self._make_institution(terms, plan)
        self._seated = _Seated(plan.run, plan.terms_digest, made)
        return made

    def _make_institution(self, terms: Mapping[str, Any], plan: RoundPlan) -> Institution:
        policy = self.policy
        dataset, base = dataset_for(policy), model_for(policy, terms)
        config = config_of(terms, institution=self.name, dataset=dataset, model=base.path, device=policy.agent.device)
        section, labels = config.institutions[0], config.task.labels
        model = self._adapted(config)
        rows = load_rows(config, str(dataset.path), labels=labels, private=True)
        data = institution_data(config, section, rows, labels=labels, tokenizer=model.tokenizer)
        costs = institution_plan(config, data)
        require_noise(policy, costs.noise_multiplier)
        reference = {}
        if dataset.reference is not None:
            public = load_rows(config, str(dataset.reference), labels=labels)
            parts = reference_by_task(config, public, config.continual.tasks or (DEFAULT_TASK,))
            reference = {
                task: encode_rows(config, part, model.tokenizer, labels=labels) for task, part in parts.items()
            }
        return institution_of(
            config,
            model,
            data,
            costs,
            dataset=dataset.name,
            home=self._home(plan.run, parent_of(terms)),
            ledger=self._ledger,
            fisher=public_fisher_on(config, model, reference),
            member=self._member,
            allowed_by=f"release.unprotected = {json.dumps(policy.release.unprotected)}",
        )

    def _adapted(self, config: FederationConfig) -> AdaptedModel:
        """The base with an adapter; kept from one run to the next while nothing of it differs."""
        aggregation = aggregation_by_name(config.aggregation.method)
        parts = config.model_dump_json(include={"model", "adapter", "task", "federation"}) + config.training.device
        if self._model is None or self._model[0] != parts:
            self._model = None  # before the next is loaded: two bases may not fit
            made = adapted_model(config, labels=config.task.labels, orthonormal_a=aggregation.orthonormal_a)
            self._model = (parts, made)
        return self._model[1]

    def _home(self, run: str, parent: tuple[str, int] | None) -> Path:
        """Where this run's consolidations stay, with those that it has from a parent's up to the round of its state."""
        home = self._folder(run)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if parent is not None:
            inherit(self._folder(parent[0]), home, parent[1])
        return home

    def _folder(self, run: str) -> Path:
        """A run's name may hold what a file's may not."""
        return self.policy.agent.state / "runs" / hashlib.sha256(run.encode()).hexdigest()[:32]

    def _note(self, refusal: Refusal) -> None:
        try:
            self._ledger.record_refusal(
                run=refusal.run, round=refusal.round, dataset=dataset_for(self.policy).name, reason=refusal.reason
            )
        except Exception as error:  # noqa: BLE001 - the refusal stands, noted or not
            log.warning("%s could not note its refusal of round %d: %s", self.name, refusal.round, type(error).__name__)
