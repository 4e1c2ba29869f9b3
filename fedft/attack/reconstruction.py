"""Whether tokens can be read off an update: DAGER's span check (Petrov et al. 2024, NeurIPS), for LoRA.

A layer's weight gradient is a sum over tokens of output gradients times inputs, so its row space is spanned by the
inputs, and where a layer reads nothing but each token's own embedding, a token that is in that span was in the batch.
With A frozen the update is that of B, and the inputs appear as A·x, with r values each. Once as many tokens as r took
part, the span is everything and the check says nothing: so it is for rounds of any federation worth playing, and then
membership, which canaries test, is what is left to ask. ``worst_case`` shows the other end: one unit of few tokens, one
step, one layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedft.assembly.parts import Labels, adapted_model, encode_rows
from fedft.attack.canaries import as_data_set
from fedft.config import FederationConfig, with_overrides
from fedft.data.examples import Example, select
from fedft.data.formats import Batch, EncodedDataSet, EncodedExample, collate
from fedft.errors import ModelError
from fedft.model.adapter import AdaptedModel
from fedft.privacy.accountant import calibrate
from fedft.randomness import reproducible_rng
from fedft.training.local import LocalPlan, Mechanism, train_locally

Floats = npt.NDArray[np.float64]
_BATCH = 256
_SAME = 1e-4


def distances(update: Floats, candidates: Floats, dimension: int) -> Floats:
    """Of each candidate from the update's leading row space, relative to its norm: 0 inside, up to 1.

    Parameters
    ----------
    update : (d_out, r); candidates : (v, r); dimension : of the row space, at most r
    """
    _, _, rows = np.linalg.svd(update, full_matrices=False)
    span = rows[:dimension]
    outside = candidates - candidates @ span.T @ span
    return np.asarray(np.linalg.norm(outside, axis=1) / np.maximum(np.linalg.norm(candidates, axis=1), 1e-12))


def worst_case(config: FederationConfig, labels: Labels, canaries: Sequence[Example]) -> dict[str, Any]:
    """Of the tokens of one canary, the share found among as many of the nearest, without privacy and with.

    One step on one unit drawn for sure, B alone trained, on the first layer's value projection, with a rank of twice
    the row's tokens. With privacy: clipped, and the noise with which one such step has the file's epsilon and delta; in
    a run of many steps it is larger. applies: whether a layer of the base reads nothing but single tokens; the other
    figures are there only then. by_chance: what guessing finds.
    """
    try:
        model = _wide_model(config, labels)
    except ModelError:
        return {"applies": False}
    layer = list(model.lora_modules())[1]
    if not _reads_tokens_alone(model, layer):
        return {"applies": False}
    row = encode_rows(config, select(as_data_set(canaries), [0]), model.tokenizer, labels=labels)
    rank = model.settings.rank
    short = _shortened(row, rank // 2)
    tokens = np.unique(_with_gradient(short.examples[0]))
    found: dict[str, Any] = {"applies": True, "rank": rank, "tokens": len(tokens)}
    found |= {"vocabulary": len(model.tokenizer), "by_chance": len(tokens) / len(model.tokenizer)}
    found["without_privacy"] = _recall(model, layer, short, tokens, None)
    privacy = config.privacy
    if privacy.epsilon is not None and privacy.delta is not None and privacy.clip_norm is not None:
        noise = calibrate(epsilon=privacy.epsilon, delta=privacy.delta, sampling_rate=1.0, steps=1)
        found["noise_multiplier"] = noise
        found["with_privacy"] = _recall(model, layer, short, tokens, Mechanism(privacy.clip_norm, noise))
    return found


def _recall(
    model: AdaptedModel, layer: str, row: EncodedDataSet, tokens: npt.NDArray[np.int64], mechanism: Mechanism | None
) -> float:
    layout = model.layout
    rng = reproducible_rng(model.settings.seed, "reconstruction")
    start = model.start_vector()
    for spec, where in layout.slices():
        if spec.role != "lora_A":  # a head or a B of zeros would pass no gradient
            start[where] = rng.normal(0.0, 0.05, spec.size)
    plan = LocalPlan((1.0,), batch_size=1, sampling_rate=1.0, mechanism=mechanism, optimizer="sgd")
    result = train_locally(model, row, start, plan, roles=("lora_B",), uniform=rng.random)
    update = layout.only(("lora_B",)).unflatten(result.delta)[f"{layer}.lora_B"].astype(np.float64)
    a = layout.unflatten(start)[f"{layer}.lora_A"].astype(np.float64)
    model.write_vector(start)
    inputs = _inputs(model, layer, [[number] for number in range(len(model.tokenizer))])[:, 0]
    nearest = np.argsort(distances(update, inputs @ a.T, len(tokens)), kind="stable")[: len(tokens)]
    return len(np.intersect1d(nearest, tokens)) / len(tokens)


def _wide_model(config: FederationConfig, labels: Labels) -> AdaptedModel:
    """The base with LoRA on the attention's query and value, of a rank that a short row does not fill."""
    hidden = {"adapter.method": "lora", "adapter.target_modules": None, "adapter.rank": 16, "adapter.dropout": 0.0}
    return adapted_model(with_overrides(config, hidden), labels=labels, orthonormal_a=True)


def _reads_tokens_alone(model: AdaptedModel, layer: str) -> bool:
    """Whether a token's input to the layer is the same at another place and after another token."""
    alone = _inputs(model, layer, [[5], [7]])[:, 0]
    together = _inputs(model, layer, [[7, 5]])[0]
    return bool(np.allclose(alone[::-1], together, rtol=_SAME, atol=_SAME))


def _inputs(model: AdaptedModel, layer: str, rows: Sequence[Sequence[int]]) -> Floats:
    """What the layer reads, (n, t, d_in), of rows of one length."""
    kept: list[torch.Tensor] = []

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        kept.append(inputs[0].detach().double().cpu())

    handle = model.lora_modules()[layer].register_forward_pre_hook(keep)
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), _BATCH):
                model.backbone(**_as_inputs(model, rows[start : start + _BATCH]))
    finally:
        handle.remove()
    return np.asarray(torch.cat(kept).numpy())


def _as_inputs(model: AdaptedModel, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    examples = [EncodedExample(np.asarray(row, np.int64), 0, None, 0) for row in rows]
    batch: Batch = collate(examples, model.tokenizer.pad_token_id, range(len(rows))).to(model.device)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def _shortened(row: EncodedDataSet, length: int) -> EncodedDataSet:
    example = row.examples[0]
    target = example.target_mask
    ids = example.input_ids[:length] if target is None else example.input_ids[-length:]
    kept = EncodedExample(ids, example.label, None if target is None else target[-length:], 0)
    return EncodedDataSet((kept,), (np.zeros(1, np.int64),), row.name, row.fingerprint)


def _with_gradient(example: EncodedExample) -> npt.NDArray[np.int64]:
    """Tokens that the loss depends on through the layer: of an answer all but the last."""
    return example.input_ids if example.target_mask is None else example.input_ids[:-1]
