"""Secure aggregation as a federation file asks for it: terms, the coordinator's part, an institution's part."""

from __future__ import annotations

from fedft.aggregation.base import Aggregation
from fedft.assembly.signing import Signer
from fedft.config import FederationConfig
from fedft.errors import ConfigError
from fedft.privacy.distributed import calibrate_distributed
from fedft.rounds.masked_sum import MaskedRounds
from fedft.rounds.masking import MaskingTerms, SharedNoise
from fedft.rounds.member import Member
from fedft.rounds.run_folder import RunFolder
from fedft.rounds.terms import Masking

ADAM_STEP = 4.0
"""No step of Adam's moves a value by much more than 3.2 learning rates: (1 - β₁)/√(1 - β₂)."""
SGD_STEP = 2.0
"""A step moves a value by at most rate x clip norm, and by noise, which is less in any batch worth taking."""


def masking_terms(config: FederationConfig) -> MaskingTerms:
    """What both sides make of [secure_aggregation] and [privacy]: the same from the same file."""
    secure, noise = config.secure_aggregation, shared_noise(config)
    bound = secure.range or (1.0 if noise else _usual_range(config))
    return MaskingTerms(secure.ring_bits, bound, secure.threshold, noise)


def shared_noise(config: FederationConfig) -> SharedNoise | None:
    """Of privacy.mode = "distributed": what privacy.epsilon over all rounds comes to. Raises UnreachableEpsilon."""
    privacy, batch = config.privacy, config.training.batch_size
    if privacy.mode != "distributed" or privacy.epsilon is None or privacy.delta is None:
        return None
    units, clip_norm = privacy.max_units or batch, privacy.clip_norm or 1.0
    noise = calibrate_distributed(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        sampling_rate=batch / units,
        steps=config.federation.rounds,
    )
    return SharedNoise(noise, clip_norm, batch, units, privacy.colluding)


def masked_rounds(
    config: FederationConfig,
    aggregation: Aggregation,
    *,
    run: str,
    cohort: tuple[str, ...],
    size: int,
    store: RunFolder,
    signer: Signer | None,
) -> MaskedRounds | None:
    """None where updates are not masked. Raises ConfigError before any key is made for what cannot work.

    size: values that travel.
    """
    if not config.secure_aggregation.enabled:
        return None
    require_masks(config, aggregation, cohort=cohort, size=size)
    if signer is None:
        raise ConfigError("expected a coordinator's key for secure aggregation, found none: make one")
    return MaskedRounds(
        masking_terms(config),
        run=run,
        weights=config.aggregation.weights or {},
        max_norm=config.aggregation.max_update_norm,
        identity=signer.identity,
        identities=signer.identities,
        folder=store,
    )


def require_masks(config: FederationConfig, aggregation: Aggregation, *, cohort: tuple[str, ...], size: int) -> None:
    """Raise ConfigError where secure aggregation is asked for, and cannot be had for updates of ``size`` values."""
    if not config.secure_aggregation.enabled:
        return
    if not aggregation.linear:
        raise ConfigError(
            f'expected an aggregation that needs the sum of the updates alone, found "{aggregation.name}", which needs '
            "each of them: choose another aggregation.method, or switch secure_aggregation off"
        )
    terms, weights = masking_terms(config), config.aggregation.weights or {}
    terms.shape(len(cohort))
    terms.code({name: weights.get(name, 1.0) for name in cohort}, size=size)


def masking_of(config: FederationConfig, name: str, member: Member | None) -> Masking | None:
    """An institution's part. Raises ConfigError where the file asks for it and there is no member."""
    if not config.secure_aggregation.enabled:
        return None
    if member is None:
        raise ConfigError("expected an institution with keys for secure aggregation, found none: make them")
    return Masking(member, masking_terms(config), (config.aggregation.weights or {}).get(name, 1.0))


def _usual_range(config: FederationConfig) -> float:
    """Of a value of an update: as far as local steps move one, and a little more (docs/decisions/0018)."""
    training = config.training
    if training.optimizer != "sgd":
        return ADAM_STEP * training.learning_rate * training.local_steps
    clip_norm = config.privacy.clip_norm or training.max_gradient_norm
    if clip_norm is None:
        raise ConfigError("expected secure_aggregation.range where nothing clips gradients, found none: set it")
    return SGD_STEP * training.learning_rate * training.local_steps * clip_norm
