"""A classification head that starts from what its labels are called.

The names of the classes are public words of the federation file, and the base model is public: what follows from them
alone costs no privacy. Under a tight budget it is worth more than many private steps (docs/decisions/0011).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedft.errors import ModelError
from fedft.model.adapter import AdaptedModel
from fedft.types import AdapterVector

SHARPNESS = 10.0
"""Logits at the start are SHARPNESS times cosines: probabilities lean to the likelier classes and stay far from 0."""

_CHUNK = 64


@dataclass(frozen=True)
class _Names:
    """Right-padded tokens (n, t) of the labels' words."""

    input_ids: Tensor
    attention_mask: Tensor


def with_label_names(model: AdaptedModel, start: AdapterVector, labels: Sequence[str]) -> AdapterVector:
    """``start`` with the head's rows turned towards the embeddings of the labels' words; its bias stays.

    Row k is SHARPNESS·(ê_k - mean of ê) / (mean norm of the e_k), where e_k, shape (h,), is the pooled state of the
    frozen base for the words of label k ("card_arrival" reads "card arrival") and ê_k has norm 1. Zero-shot
    classification by names, as in Yin et al. 2019, arXiv 1909.00161, here only a place to start from.

    Raises ModelError when the tokenizer can read none of a label's words.
    """
    states = _embeddings(model, start, [words_of(label) for label in labels])
    norms = np.linalg.norm(states, axis=1, keepdims=True)
    unit = states / np.maximum(norms, 1e-12)
    rows = SHARPNESS * (unit - unit.mean(axis=0)) / float(norms.mean())
    tensors = {name: tensor.copy() for name, tensor in model.layout.unflatten(start).items()}
    tensors["head.weight"] = rows.astype(np.float32)
    return model.layout.flatten(tensors)


def words_of(label: str) -> str:
    """ "card_arrival" and "CardArrival" read "card arrival"."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return re.sub(r"[\W_]+", " ", parted).strip().lower()


@torch.no_grad()
def _embeddings(model: AdaptedModel, start: AdapterVector, words: Sequence[str]) -> np.ndarray:
    """Pooled states, (n, h) float64, of the base alone: at ``start`` B = 0."""
    model.write_vector(start)
    was_training = model.training
    model.eval()
    found = []
    for begin in range(0, len(words), _CHUNK):
        rows = model.tokenizer(list(words[begin : begin + _CHUNK]), padding=True, return_tensors="pt")
        mask = rows["attention_mask"].to(model.device)
        if not bool(mask.any(dim=1).all()):
            raise ModelError("expected labels of words that the tokenizer can read, found one without: rename it")
        found.append(model.pooled(_Names(rows["input_ids"].to(model.device), mask)).double().cpu().numpy())
    model.train(was_training)
    return np.concatenate(found)
