"""Agents of a provisioned federation in one process, without Flower's network; and what their coordinator asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedft.assembly.coordinator import PublicParts, make_coordinator
from fedft.assembly.runs import resume_config
from fedft.config import FederationConfig, InstitutionPolicy, load_policy
from fedft.deployment import coordinate, rehearse
from fedft.deployment.agent import Agent
from fedft.deployment.coordinator import Deployment, Members, play_on
from fedft.deployment.terms import terms_of
from fedft.flower.local_grid import LocalGrid
from fedft.flower.records import body_content, body_of
from fedft.flower.strategy import partition_of
from fedft.identity.keys import PrivateKey
from fedft.identity.signed import open_signed, seal
from fedft.ledger.store import Ledger
from fedft.privacy.events import PrivacyEvent
from fedft.rounds.messages import ANSWER_LABEL, REQUEST_LABEL, decode_answer, encode_request
from fedft.rounds.plan import RoundRequest
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.update.release import Refusal


class Provisioned:
    """A coordinator's folder and each institution's, as provisioned; no agent runs."""

    def __init__(self, folder: Path, config: FederationConfig) -> None:
        self.folder, self.config = folder, config
        self.coordinator, self.homes = rehearse.provision(config, folder)

    def policy(self, name: str) -> InstitutionPolicy:
        return load_policy(self.policy_file(name))

    def policy_file(self, name: str) -> Path:
        return self.homes[name].folder / "policy.toml"

    def key(self, name: str) -> PrivateKey:
        return PrivateKey.load(self.homes[name].folder / "identity.key")

    def begin(self, run: Path, config: FederationConfig | None = None) -> None:
        coordinate.begin(config or self.config, run, self.coordinator)

    def request(self, run: Path) -> tuple[RoundRequest, str]:
        """What the coordinator asks next in the run in this folder, and the text of its terms."""
        config, store = resume_config(run), RunFolder(run)
        parts = PublicParts(config)
        terms = terms_of(config, labels=parts.labels, base_digest=parts.model.base_digest, parent=store.parent())
        made = make_coordinator(
            parts,
            run=str(store.config()["run"]),
            cohort=Deployment.read(run).cohort,
            store=store,
            observer=Observer(),
            terms=terms,
            signer=Members(Deployment.read(run)).signer(),
        )
        return made.request(), terms

    def signed(self, request: RoundRequest, terms: str) -> bytes:
        return seal(REQUEST_LABEL, encode_request(request, terms), self.coordinator.key)

    def opened(self, name: str, answer: bytes) -> bytes | Refusal:
        """What institution ``name`` signed."""
        return decode_answer(open_signed(ANSWER_LABEL, answer, self.key(name).public))

    def charges(self, name: str) -> tuple[PrivacyEvent, ...]:
        with Ledger.open(self.policy(name).agent.ledger, read_only=True) as ledger:
            return ledger.events(name)

    def refusals(self, name: str) -> list[tuple[int, str]]:
        """Round and word of each refusal in the ledger."""
        with Ledger.open(self.policy(name).agent.ledger, read_only=True) as ledger:
            return [(e.fields["round"], e.fields["reason"]) for e in ledger.entries() if e.kind == "refusal"]

    def stored(self, name: str, request: RoundRequest) -> bytes | None:
        with Ledger.open(self.policy(name).agent.ledger, read_only=True) as ledger:
            return ledger.stored_release(request.plan.run, request.plan.round, "update")


class Deployed(Provisioned):
    """Its agents live in this process.

    answering, revealing: who answers a request, or a question who uploaded, in an agent's place; asked, questions: all
    of them.
    """

    def __init__(self, folder: Path, config: FederationConfig) -> None:
        super().__init__(folder, config)
        self.agents = {name: Agent(self.policy(name)) for name in self.homes}
        self.answering: dict[str, Callable[[bytes], bytes]] = {}
        self.asked: list[bytes] = []
        self.revealing: dict[str, Callable[[bytes], bytes]] = {}
        self.questions: list[tuple[str, bytes]] = []

    def close(self) -> None:
        for agent in self.agents.values():
            agent.close()

    def start_again(self, name: str) -> Agent:
        self.agents[name].close()
        self.agents[name] = Agent(self.policy(name))
        return self.agents[name]

    def play(self, run: Path, *, grid: type[LocalGrid] = LocalGrid) -> dict[str, Any]:
        if not (run / "config.json").exists():
            self.begin(run)
        play_on(lambda strategy: strategy.start(grid(self._relay(), len(self.agents))), run)
        return dict(RunFolder(run).config())

    def _relay(self) -> ClientApp:
        app, names = ClientApp(), tuple(self.agents)

        @app.query()
        def roll_call(message: Message, context: Context) -> Message:
            agent = self.agents[names[partition_of(context)]]
            return Message(body_content(agent.roll_call(body_of(message.content))), reply_to=message)

        @app.query("receipt")
        def receipt(message: Message, context: Context) -> Message:
            agent = self.agents[names[partition_of(context)]]
            return Message(body_content(agent.receipt(body_of(message.content))), reply_to=message)

        @app.train()
        def train(message: Message, context: Context) -> Message:
            name = names[partition_of(context)]
            self.asked.append(body_of(message.content))
            answer = self.answering.get(name, self.agents[name].answer)
            return Message(body_content(answer(self.asked[-1])), reply_to=message)

        @app.train("unmask")
        def unmask(message: Message, context: Context) -> Message:
            name = names[partition_of(context)]
            self.questions.append((name, body_of(message.content)))
            reveal = self.revealing.get(name, self.agents[name].unmask)
            return Message(body_content(reveal(self.questions[-1][1])), reply_to=message)

        return app
