"""Where simulated institutions live: in this process, or in the actors of Flower's simulation runtime."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from fedft.assembly.planning import InstitutionPlan
from fedft.config import parse_config
from fedft.flower.handlers import make_client_app
from fedft.flower.local_grid import LocalGrid
from fedft.flower.ray_engine import play_on_ray, require_ray
from fedft.flower.strategy import FedftStrategy, partition_of
from fedft.ledger.store import Ledger
from fedft.privacy.accountant import epsilon_of
from fedft.rounds.coordinator import Coordinator
from fedft.rounds.institution import Institution
from fedft.rounds.progress import Observer
from fedft.simulation.faults import FaultyInstitution
from fedft.simulation.institutions import (
    dataset_of,
    ledger_path,
    make_institution,
    open_ledger,
    public_fisher_of,
    with_faults,
    write_quality,
)
from fedft.simulation.planning import FederationPlan
from fedft.simulation.setup import Setup


class Engine(Protocol):
    """A context in which the institutions are at home."""

    def __enter__(self) -> Engine: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def play(self, coordinator: Coordinator, observer: Observer) -> None: ...


class LocalEngine:
    """All institutions in this process over one base model; their ledgers stay open for the whole run."""

    def __init__(self, setup: Setup, plan: FederationPlan, folder: Path) -> None:
        self._setup, self._plan, self._folder = setup, plan, folder
        self._stack = ExitStack()
        self._institutions: dict[str, Institution] = {}
        self._observer = Observer()

    def __enter__(self) -> LocalEngine:
        with ExitStack() as stack:
            fisher = public_fisher_of(self._setup)
            for name in self._setup.institution_names:
                write_quality(self._setup, self._folder, name)
                ledger = stack.enter_context(open_ledger(self._setup.config, self._folder, name))
                plan = self._plan.institutions[name]
                self._institutions[name] = make_institution(
                    self._setup, plan, self._folder, name, ledger, fisher, on_step=self._stepper(name)
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def play(self, coordinator: Coordinator, observer: Observer) -> None:
        self._observer = observer
        names, config = self._setup.institution_names, self._setup.config
        app = make_client_app(lambda context: names[partition_of(context)], self._open)
        strategy = FedftStrategy(
            coordinator, round_timeout_s=config.federation.round_timeout_s, measured=self._measured
        )
        strategy.start(LocalGrid(app, len(names)))

    def _open(self, name: str) -> AbstractContextManager[FaultyInstitution]:
        return nullcontext(with_faults(self._setup.config, self._institutions[name], self._folder))

    def _stepper(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self._observer.step(name, done, total)

    def _measured(self) -> dict[str, Any]:
        """Seconds inside local training so far this round, and what each data set has spent and may."""
        seconds = sum(institution.training_seconds for institution in self._institutions.values())
        for institution in self._institutions.values():
            institution.training_seconds = 0.0
        spent = {name: institution.spent() for name, institution in self._institutions.items()}
        return {"seconds_training": seconds, **told(self._plan, spent, self._observer)}


class FlowerEngine:
    """Institutions in Ray actors. An actor loads data and model once and opens a ledger for each answer.

    Raises ConfigError when Ray is not installed.
    """

    def __init__(self, setup: Setup, plan: FederationPlan, folder: Path) -> None:
        require_ray()
        self._setup, self._plan, self._folder = setup, plan, folder
        self._observer = Observer()

    def __enter__(self) -> FlowerEngine:
        for name in self._setup.institution_names:
            write_quality(self._setup, self._folder, name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing stays open here."""

    def play(self, coordinator: Coordinator, observer: Observer) -> None:
        self._observer = observer
        config = self._setup.config
        told = json.dumps(config.model_dump(mode="json"))
        home = ActorHome(told, str(self._folder), self._plan.institutions, self._setup.without)
        strategy = FedftStrategy(
            coordinator, round_timeout_s=config.federation.round_timeout_s, measured=self._measured
        )
        play_on_ray(
            strategy.start,
            make_client_app(home.name_of, home.open),
            len(self._setup.institution_names),
            gpus=self._setup.model.device.type == "cuda",
        )

    def _measured(self) -> dict[str, Any]:
        spent = {name: self._spent(name, plan) for name, plan in self._plan.institutions.items()}
        return {"seconds_training": None, **told(self._plan, spent, self._observer)}

    def _spent(self, name: str, plan: InstitutionPlan) -> float | None:
        path = ledger_path(self._setup.config, self._folder, name)
        if plan.delta is None or not path.exists():
            return None
        with Ledger.open(path, read_only=True) as ledger:
            return epsilon_of(ledger.events(dataset_of(self._setup.config, name)), plan.delta)


@dataclass(frozen=True)
class ActorHome:
    """What an actor is told: the configuration, where institutions keep their things, their plans, who takes no part.

    Pickled, inside Ray alone.
    """

    config_json: str
    folder: str
    plans: Mapping[str, InstitutionPlan]
    without: tuple[str, ...] = ()

    def name_of(self, context: Any) -> str:
        return _actor_setup(self.config_json, self.without).institution_names[partition_of(context)]

    @contextmanager
    def open(self, name: str) -> Iterator[FaultyInstitution]:
        setup, folder = _actor_setup(self.config_json, self.without), Path(self.folder)
        with open_ledger(setup.config, folder, name) as ledger:
            institution = make_institution(setup, self.plans[name], folder, name, ledger, public_fisher_of(setup))
            yield with_faults(setup.config, institution, folder)


@lru_cache(maxsize=1)
def _actor_setup(config_json: str, without: tuple[str, ...]) -> Setup:
    import torch

    config = parse_config(json.loads(config_json), folder=Path())
    if config.simulation.threads is not None:
        torch.set_num_threads(config.simulation.threads)
    return Setup(config, without)


def told(plan: FederationPlan, spent: dict[str, float | None], observer: Observer) -> dict[str, Any]:
    caps = {name: institution.cap for name, institution in plan.institutions.items()}
    for name, epsilon in spent.items():
        observer.spent(name, epsilon, caps[name])
    infinite = [name for name, epsilon in spent.items() if epsilon == math.inf]
    return {"epsilon": spent, "epsilon_infinite": infinite, "cap": caps}
