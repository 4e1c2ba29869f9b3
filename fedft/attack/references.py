"""Membership scores that compare a model with reference models, trained with other coins for the same canaries.

Confidences are probabilities that a model gives to a row's own label or answer: exp(-loss), (n,) for n canaries, and
(k, n) for k reference models.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedft.errors import ConfigError

Floats = npt.NDArray[np.float64]
_LEAST = 1e-12
"""Confidences are kept this far from 0 and 1, where logits end."""


def lira(confidences: Floats, references: Floats, inside: npt.NDArray[np.bool_]) -> Floats:
    """Log likelihood ratio of in against out, (n,): LiRA, Carlini et al. 2022, section V, with one variance for all.

    Logits log(p / (1-p)) are normal with a canary's own means in and out; their deviation is pooled over canaries, as
    section VI-B advises for few reference models. A canary that was in, or out, in every reference gets the mean gap.

    Parameters
    ----------
    inside : (k, n), which canaries each reference was trained on
    """
    _require_references(confidences, references)
    target, known = _logits(confidences), _logits(references)
    counts_in, counts_out = inside.sum(axis=0), (~inside).sum(axis=0)
    mean_in = np.where(inside, known, 0.0).sum(axis=0) / np.maximum(counts_in, 1)
    mean_out = np.where(inside, 0.0, known).sum(axis=0) / np.maximum(counts_out, 1)
    both = (counts_in > 0) & (counts_out > 0)
    gap = float((mean_in - mean_out)[both].mean()) if both.any() else 0.0
    mean_in = np.where(counts_in > 0, mean_in, mean_out + gap)
    mean_out = np.where(counts_out > 0, mean_out, mean_in - gap)
    residuals = known - np.where(inside, mean_in, mean_out)
    freedom = max(1, known.size - int((counts_in > 0).sum() + (counts_out > 0).sum()))
    variance = float((residuals**2).sum()) / freedom + 1e-12
    return np.asarray(((target - mean_out) ** 2 - (target - mean_in) ** 2) / (2 * variance))


def rmia(
    confidences: Floats, references: Floats, population: Floats, population_references: Floats, gamma: float = 1.0
) -> Floats:
    """Share of the population that a canary dominates, (n,): RMIA, Zarifzadeh, Liu & Shokri 2024, arXiv 2312.03262.

    A row's ratio is its confidence over the mean of the references'; a canary dominates a row of the population when
    its ratio is at least gamma times the row's. References are in and out by fair coins, so their mean is the marginal.

    Parameters
    ----------
    population : (z,) confidences of the model on public rows that nobody trained on
    population_references : (k, z)
    """
    _require_references(confidences, references)
    _require_references(population, population_references)
    ratio = confidences / np.maximum(references.mean(axis=0), _LEAST)
    others = np.sort(population / np.maximum(population_references.mean(axis=0), _LEAST))
    return np.asarray(np.searchsorted(others, ratio / gamma, side="right") / len(others))


def _logits(confidences: Floats) -> Floats:
    kept = np.clip(confidences, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(kept) - np.log1p(-kept))


def _require_references(rows: Floats, references: Floats) -> None:
    if references.ndim != 2 or len(references) < 1 or references.shape[1:] != rows.shape or not len(rows):
        raise ConfigError(
            f"expected confidences of a reference model or more on {rows.shape} rows, found shape {references.shape}: "
            "score the same rows with every model"
        )
