"""The attack on a federation's privacy claim: canaries at one institution, the run, its control, and the evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fedft import __version__
from fedft.assembly.coordinator import PublicParts, start_adapter
from fedft.attack.canaries import Coins, Kind, as_data_set, make_canaries, toss
from fedft.attack.evidence import CLAIM, CONTROL, ceiling, complete, play_of
from fedft.attack.reconstruction import worst_case
from fedft.attack.references import lira, rmia
from fedft.attack.run import Seen, watch
from fedft.attack.scores import Floats, LocalSteps, gradient_norms, gradient_score, losses
from fedft.attack.uploads import check_uploads
from fedft.config import FederationConfig, with_overrides
from fedft.data.examples import Example
from fedft.data.formats import EncodedDataSet
from fedft.deployment.terms import terms_of
from fedft.errors import ConfigError
from fedft.privacy.accountant import epsilon_curve, epsilon_of
from fedft.privacy.events import DpSgdRound
from fedft.simulation.run import play
from fedft.training.schedule import learning_rates

DELTAS = tuple(10.0**-power for power in np.arange(0.1, 9.01, 0.25))
"""At which the claim's trade-off curve is taken."""

POPULATION_ROWS = 500
CONTROL_DELTA = 1e-6
"""The control claims nothing; at the delta of a claim, 2 x canaries x delta would eat into what it can show."""


@dataclass(frozen=True)
class AttackTerms:
    """institution: None is the first. canaries: each is in with probability 1/2. seed: 32 hexadecimal digits.

    references: further plays of each kind, for LiRA and RMIA. least: the epsilon that the control has to show.
    """

    seed: str
    institution: str | None = None
    canaries: int = 400
    kind: Kind = "random"
    references: int = 0
    least: float = 3.0

    @property
    def scores(self) -> int:
        return 4 if self.references else 2


def attack(
    config: FederationConfig,
    terms: AttackTerms,
    *,
    scratch: Path,
    tell: Callable[[str], None] = lambda words: None,
    control_play: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The evidence of an attack on ``config``, played in the empty folder ``scratch`` with ledgers of its own.

    Without privacy in the file there is no claim, and the control is all that is played. control_play: of an earlier
    attack on the same federation at another epsilon, to be used again.

    Raises
    ------
    ConfigError
        A file with variants or a sequence of tasks, an unknown institution, too few canaries for ``terms.least``.
    """
    audited = _audited(config)
    delta = audited.privacy.delta
    most = ceiling(terms.canaries, CONTROL_DELTA, terms.scores)
    if most < terms.least:
        raise ConfigError(
            f"expected canaries that can show an epsilon of {terms.least:g}, found that {terms.canaries}, all guessed "
            f"rightly, show {most:g}: use more, or lower what the control has to show"
        )
    parts = PublicParts(audited)
    canaries = make_canaries(parts, kind=terms.kind, count=terms.canaries, seed=int(terms.seed, 16))
    control, rate = _control(audited, parts, canaries)
    player = _Player(terms, canaries, scratch, tell)
    plays = [] if delta is None else [player.play(CLAIM, audited, delta)]
    plays.append(dict(control_play or player.play(CONTROL, control, CONTROL_DELTA)))
    about = {
        "fedft_version": __version__,
        "time_utc": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "terms": json.loads(terms_of(audited, labels=parts.labels, base_digest=parts.model.base_digest)),
        "institution": player.institution,
        "canaries": {"kind": terms.kind, "count": terms.canaries, "seed": terms.seed},
        "references": terms.references,
        "control_learning_rate": rate,
        "reconstruction": worst_case(audited, parts.labels, canaries),
        "uploads": _uploads(config, scratch, tell),
    }
    return complete(about, plays, least=terms.least)


@dataclass
class _Player:
    terms: AttackTerms
    canaries: Sequence[Example]
    scratch: Path
    tell: Callable[[str], None]
    institution: str | None = None

    def play(self, name: str, config: FederationConfig, delta: float) -> dict[str, Any]:
        """The play ``name`` with its references, as evidence."""
        seen, coins = self._watch(name, config)
        setup = seen.setup
        rows = setup.encode(as_data_set(self.canaries))
        scores = {"gradient": _by_gradient(seen, rows, config), "loss": _gain(seen, rows)}
        if self.terms.references:
            scores |= self._compared(name, config, seen, rows)
        curve = list(zip(epsilon_curve(seen.events, DELTAS), DELTAS, strict=True))
        return play_of(
            name, coins=coins, scores=scores, epsilon=epsilon_of(seen.events, delta), delta=delta, curve=curve
        )

    def _watch(self, name: str, config: FederationConfig) -> tuple[Seen, Coins]:
        self.tell(f"playing {name}")
        coins = toss(int(self.terms.seed, 16), name, len(self.canaries))
        chosen = self.institution or self.terms.institution
        seen = watch(config, institution=chosen, canaries=self.canaries, coins=coins, folder=self.scratch / name)
        self.institution = seen.setup.planted_at
        return seen, coins

    def _compared(self, name: str, config: FederationConfig, seen: Seen, rows: EncodedDataSet) -> dict[str, Floats]:
        target, population = _confidences(seen, rows)
        references, inside = [], []
        for number in range(1, self.terms.references + 1):
            other, coins = self._watch(f"{name}-reference-{number}", config)
            references.append(_confidences(other, rows))
            inside.append(coins)
        known, public = (np.array([reference[side] for reference in references]) for side in (0, 1))
        return {"lira": lira(target, known, np.array(inside)), "rmia": rmia(target, known, population, public)}


def _audited(config: FederationConfig) -> FederationConfig:
    """The same training, with ledgers of its own, without masks, evaluation between rounds, early end and checks.

    The epsilon of an institution's ledger is about what it releases, whoever sees that; masks come on top.
    """
    if config.variants or config.continual.tasks:
        raise ConfigError(
            "expected a federation file without variants and without a sequence of tasks, found one with: choose a "
            "variant with --variant, or attack the tasks one by one"
        )
    if config.privacy.mode == "distributed":
        raise ConfigError(
            'expected privacy.mode "dp-sgd" or "off", found "distributed", whose claim is about sums of several '
            "institutions: what one releases is masked; attack the same file with --set privacy.mode=dp-sgd "
            "--set privacy.max_units=, where its noise is its own"
        )
    return with_overrides(
        config,
        {
            "evaluation.every": config.federation.rounds,
            "evaluation.patience": None,
            "outcome.checks": [],
            "simulation.ledger_dir": None,
            "secure_aggregation.enabled": False,
        },
    )


def _control(
    config: FederationConfig, parts: PublicParts, canaries: Sequence[Example]
) -> tuple[FederationConfig, float]:
    """The same without privacy, and its learning rate.

    A learning rate for clipped gradients lets SGD diverge on whole ones: it is lowered by as much as clipping shortens
    the median canary's gradient at the start.
    """
    rate = config.training.learning_rate
    if config.privacy.mode == "off":
        return config, rate
    if config.training.optimizer == "sgd" and config.privacy.clip_norm is not None:
        rows = parts.encode(as_data_set(canaries))
        norms = gradient_norms(parts.model, rows, start_adapter(parts), parts.aggregation.trains)
        rate *= min(1.0, config.privacy.clip_norm / float(np.median(norms)))
    return with_overrides(config, {"privacy.mode": "off", "training.learning_rate": rate}), rate


def _by_gradient(seen: Seen, rows: EncodedDataSet, config: FederationConfig) -> Floats:
    """Summed over the rounds in which the institution released an update."""
    setup = seen.setup
    own = setup.encode(setup.own_rows)
    units = own.unit_count + rows.unit_count / 2
    noise = next((event.noise_multiplier for event in seen.events if isinstance(event, DpSgdRound)), 0.0)
    found = np.zeros(len(rows.examples))
    for number, update in seen.updates.items():
        found += gradient_score(
            setup.model,
            rows,
            own,
            adapter=seen.adapters[number - 1],
            update=update,
            roles=setup.aggregation.trains,
            steps=_steps(config, number, units, noise),
        )
    return found


def _steps(config: FederationConfig, round_number: int, units: float, noise_multiplier: float) -> LocalSteps:
    training = config.training
    clip_norm = None if config.privacy.mode == "off" else config.privacy.clip_norm
    rates = learning_rates(
        training.scheduler,
        training.learning_rate,
        start=(round_number - 1) * training.local_steps,
        steps=training.local_steps,
        total=config.federation.rounds * training.local_steps,
        warmup=training.warmup_steps,
        options=training.scheduler_options,
    )
    return LocalSteps(
        rates,
        training.batch_size,
        min(1.0, training.batch_size / units),
        clip_norm,
        training.optimizer,
        noise_multiplier * (clip_norm or 0.0),
    )


def _gain(seen: Seen, rows: EncodedDataSet) -> Floats:
    """By how much the run lowered each canary's loss."""
    model = seen.setup.model
    return losses(model, rows, seen.adapters[0]) - losses(model, rows, seen.adapters[-1])


def _confidences(seen: Seen, rows: EncodedDataSet) -> tuple[Floats, Floats]:
    """Of canaries, and of public rows."""
    public = next(iter(seen.setup.evaluation.values()))
    some = EncodedDataSet(public.examples[:POPULATION_ROWS], public.units, public.name, public.fingerprint)
    first, second = (np.exp(-losses(seen.setup.model, of, seen.adapters[-1])) for of in (rows, some))
    return first, second


def _uploads(config: FederationConfig, scratch: Path, tell: Callable[[str], None]) -> Mapping[str, Any] | None:
    """Whether what the coordinator gets of one masked round is uniform; None without secure aggregation."""
    if not config.secure_aggregation.enabled:
        return None
    tell("playing one masked round")
    one = with_overrides(
        config, {"federation.rounds": 1, "evaluation.every": 1, "outcome.checks": [], "simulation.ledger_dir": None}
    )
    play(one, folder=scratch / "masked")
    return asdict(check_uploads(scratch / "masked"))
