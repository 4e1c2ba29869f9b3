"""Compute what does not change once: the outputs of an encoder's layers below the lowest one that is trained.

A benchmark that trains many adapters on one frozen BERT-shaped base spends most of its time on layers that give the
same states for the same row every time. ``keep_frozen_states`` puts a memory in front of them. Everything else is the
product's own code, and figures are the same up to the rounding of float32 (tests/bench/test_frozen_layers.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from fedft.assembly.parts import adapted_model
from fedft.config import FederationConfig
from fedft.model.adapter import AdaptedModel, TokenBatch

States = dict[bytes, Tensor]
"""A row's tokens -> its states (t, h) below the lowest adapted layer."""

_MEMORY: dict[tuple[str, int], States] = {}
_CHUNK = 64


@dataclass(frozen=True)
class _Tokens:
    input_ids: Tensor
    attention_mask: Tensor


class WithMemory(nn.Module):
    """A BERT-shaped encoder whose layers below ``first`` are looked up; it computes the same function."""

    def __init__(self, encoder: nn.Module, first: int, states: States) -> None:
        super().__init__()
        self.encoder, self._first, self._states = encoder, first, states

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        encoder: Any = self.encoder
        keys = [row.tobytes() for row in _unpadded(input_ids, attention_mask)]
        missing = [i for i, key in enumerate(keys) if key not in self._states]
        for start in range(0, len(missing), _CHUNK):
            self._compute(input_ids, attention_mask, keys, missing[start : start + _CHUNK])
        hidden = nn.utils.rnn.pad_sequence([self._states[key] for key in keys], batch_first=True)
        hidden = nn.functional.pad(hidden, (0, 0, 0, input_ids.shape[1] - hidden.shape[1]))
        upper = encoder.encoder.layer[self._first :]
        mask = self._mask(hidden, attention_mask)
        for layer in upper:
            hidden = layer(hidden, mask)
        return SimpleNamespace(last_hidden_state=hidden)

    @torch.no_grad()
    def _compute(self, input_ids: Tensor, attention_mask: Tensor, keys: list[bytes], rows: list[int]) -> None:
        encoder: Any = self.encoder
        width = max(int(attention_mask[i].sum()) for i in rows)
        ids, attention = input_ids[rows, :width], attention_mask[rows, :width]
        hidden = encoder.embeddings(input_ids=ids)
        mask = self._mask(hidden, attention)
        for layer in encoder.encoder.layer[: self._first]:
            hidden = layer(hidden, mask)
        for position, row in enumerate(rows):
            self._states[keys[row]] = hidden[position, : int(attention[position].sum())].clone()

    def _mask(self, hidden: Tensor, attention_mask: Tensor) -> Any:
        encoder: Any = self.encoder
        return create_bidirectional_mask(config=encoder.config, inputs_embeds=hidden, attention_mask=attention_mask)


@contextmanager
def keep_frozen_states() -> Iterator[None]:
    """Inside, every classifier that the product sets up on a BERT-shaped encoder remembers its frozen layers."""

    def adapted(config: FederationConfig, **options: Any) -> AdaptedModel:
        model = adapted_model(config, **options)
        if hasattr(getattr(model.backbone, "encoder", None), "layer"):
            remember(model)
        return model

    with patch("fedft.assembly.coordinator.adapted_model", adapted):
        yield


def remember(model: AdaptedModel) -> None:
    """Put the memory in front of the frozen layers; of a head alone, in front of its pooled features."""
    layers = [int(found.group(1)) for path in model.lora_modules() if (found := re.search(r"layer\.(\d+)\.", path))]
    backbone: Any = model.backbone
    first = min(layers, default=len(backbone.encoder.layer))
    if not layers:
        remember_pooled(model, _MEMORY.setdefault((model.base_digest, first), {}))
        return
    model.backbone = WithMemory(backbone, first, _MEMORY.setdefault((model.base_digest, first), {}))


def remember_pooled(model: AdaptedModel, features: States) -> None:
    """``features``: a row's tokens -> what the head reads, (h,)."""
    compute = model.pooled

    def pooled(batch: TokenBatch) -> Tensor:
        keys = [row.tobytes() for row in _unpadded(batch.input_ids, batch.attention_mask)]
        missing = [i for i, key in enumerate(keys) if key not in features]
        if missing:
            with torch.no_grad():
                found = compute(_Tokens(batch.input_ids[missing], batch.attention_mask[missing]))
            features.update((keys[i], row.clone()) for i, row in zip(missing, found, strict=True))
        return torch.stack([features[key] for key in keys])

    model.__dict__["pooled"] = pooled  # on this one instance


def _unpadded(input_ids: Tensor, attention_mask: Tensor) -> list[npt.NDArray[np.int64]]:
    lengths = attention_mask.sum(dim=1).tolist()
    return [row[:length] for row, length in zip(input_ids.numpy(), lengths, strict=True)]
