"""How good a model is on private rows, as one number that is differentially private for each unit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedft.data.formats import EncodedDataSet, collate
from fedft.errors import ConfigError
from fedft.evaluation.quality import evaluating
from fedft.model.adapter import AdaptedModel
from fedft.privacy.noise import gaussian
from fedft.randomness import SecureStream
from fedft.training.precision import autocast

DECIMALS = 3
"""Of the released sum: what is noise is far above, and what the last bits of a float would tell is gone."""


def unit_shares(
    model: AdaptedModel, data: EncodedDataSet, *, batch_size: int = 64, precision: str = "auto"
) -> npt.NDArray[np.float64]:
    """Of each unit the share of its rows whose label is the model's first choice; shape (units,), each from 0 to 1.

    Guarantee: a unit's share depends on its own rows alone, in any precision: no batch has rows of two units, so none
    is padded or rounded as another's rows ask. The model classifies.
    """
    shares = []
    with evaluating(model), autocast(model.device, precision):
        for unit in data.units:
            right = 0
            for start in range(0, len(unit), batch_size):
                rows = [data.examples[row] for row in unit[start : start + batch_size]]
                batch = collate(rows, model.tokenizer.pad_token_id).to(model.device)
                right += int((model(batch).argmax(dim=1) == batch.labels).sum())
            shares.append(right / len(unit))
    return np.array(shares)


def noised_sum(shares: npt.NDArray[np.float64], noise_multiplier: float, stream: SecureStream) -> float:
    """The sum of ``shares`` plus Gaussian noise of standard deviation ``noise_multiplier``, in DECIMALS decimals.

    Guarantee: for shares from 0 to 1, one a unit, adding or removing one unit changes the sum by at most 1: a
    GaussianRelease(noise_multiplier). Rounding comes after the noise.

    Raises ConfigError for a share outside 0 to 1.
    """
    if shares.size and not (np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1):
        raise ConfigError("expected shares from 0 to 1, found others: nothing was released")
    return round(float(shares.sum()) + float(gaussian(stream, 1, noise_multiplier)[0]), DECIMALS)
