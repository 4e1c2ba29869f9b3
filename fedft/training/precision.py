"""Autocast, and what computing in less than float32 asks of private training: batches of equal shapes.

A matrix product adds up in an order that depends on its shape. In float32 that stays far below what clipping leaves
room for (dp_sgd.ROUNDING_ROOM). In bfloat16 a row's gradient differed by up to 1.4 % with the width to which others had
it padded, and one unit moved a sum of clipped gradients by 1.0014 clip norms (docs/decisions/0031).

Guarantee: in a batch of Shapes, number of rows and width follow from public numbers and from one unit's own rows. So
the same products are computed for a unit's rows whoever else was drawn.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from fedft.model.adapter import AdaptedModel

NARROWEST = 16
"""Tokens. Narrower rows share a width: fewer batches to fill up."""


@dataclass(frozen=True)
class Shapes:
    """Of physical batches: ``rows`` in each, blank ones among them; widths are powers of two, ``widest`` at most."""

    rows: int
    widest: int

    def width(self, tokens: int) -> int:
        """For a unit whose longest row has so many tokens."""
        return max(tokens, min(max(NARROWEST, 1 << (tokens - 1).bit_length()), self.widest))


def private_shapes(model: AdaptedModel, precision: str, rows: int) -> Shapes | None:
    """The shapes that private batches of at most ``rows`` rows must have; None where any will do, in float32."""
    base = model.base
    if not autocasts(base.device, precision) and all(
        p.dtype == torch.float32 for p in base.model.parameters() if p.is_floating_point()
    ):
        return None
    limits = (base.tokenizer.model_max_length, getattr(base.config, "max_position_embeddings", None))
    return Shapes(rows, int(min(limit for limit in limits if limit is not None)))


def autocasts(device: torch.device, precision: str) -> bool:
    """Whether ``training.precision`` means autocast there: on a GPU unless float32 is asked for."""
    return device.type == "cuda" if precision == "auto" else precision == "bfloat16"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """To bfloat16, or nothing; fp16 is not offered: its loss scaling changes what is clipped."""
    return torch.autocast(device.type, torch.bfloat16) if autocasts(device, precision) else nullcontext()
