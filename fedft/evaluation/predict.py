"""What a trained model says about texts of its user: a label with its probability, or a generated answer.

The same promise as quality.py: deterministic, in eval mode, the model left as it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from transformers import GenerationConfig

from fedft.data.formats import EncodedExample, collate, encode_prompt
from fedft.errors import ConfigError, DataError
from fedft.evaluation.quality import evaluating
from fedft.model.adapter import AdaptedModel
from fedft.training.precision import autocast


def predict_labels(
    model: AdaptedModel,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    max_length: int,
    batch_size: int = 64,
    precision: str = "auto",
) -> list[tuple[str, float]]:
    """The most probable label of each text and its probability, in the order of ``texts``.

    Parameters
    ----------
    labels
        The names of the model's classes, in the order it was trained with.

    Raises
    ------
    ConfigError
        Another number of labels than the model has classes.
    DataError
        A text without a token; named by its position from 1.
    """
    if len(labels) != model.num_labels:
        raise ConfigError(
            f"expected the {model.num_labels} labels that the model was trained with, found {len(labels)}: "
            "use the labels kept beside the adapter"
        )
    examples = _encoded(model, texts, max_length)
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].input_ids))
    answers: dict[int, tuple[str, float]] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collate([examples[i] for i in chosen], model.tokenizer.pad_token_id).to(model.device)
        with evaluating(model), autocast(model.device, precision):
            best = model(batch).float().softmax(dim=1).max(dim=1)
        for index, probability, label in zip(chosen, best.values.tolist(), best.indices.tolist(), strict=True):
            answers[index] = (labels[label], probability)
    return [answers[index] for index in range(len(examples))]


def generate(
    model: AdaptedModel,
    instructions: Sequence[str],
    *,
    inputs: Sequence[str] | None = None,
    max_new_tokens: int,
    max_length: int | None = None,
    precision: str = "auto",
) -> list[str]:
    """The most probable next token, over and over, until an end token: one answer for each instruction.

    Answers are made one at a time, so that none depends on its neighbours' length.

    Parameters
    ----------
    inputs
        The field input of each instruction; None: none has one.
    max_length
        Tokens of prompt and answer together that the model reads; None: as many as its tokenizer says.

    Raises
    ------
    ConfigError
        A model that classifies, or another number of inputs than instructions.
    DataError
        A prompt that leaves no room for an answer; named by its position from 1.
    """
    if model.task_kind != "instruction":
        raise ConfigError("expected a model for instruction tuning, found a classifier: predict labels with it instead")
    if inputs is not None and len(inputs) != len(instructions):
        raise ConfigError(f"expected one input for each of {len(instructions)} instructions, found {len(inputs)}")
    limit = int(model.tokenizer.model_max_length if max_length is None else max_length)
    answers = []
    for position, instruction in enumerate(instructions):
        prompt = encode_prompt(model.tokenizer, instruction, inputs[position] if inputs else "")
        room = min(max_new_tokens, limit - len(prompt))
        if not prompt or room < 1:
            raise DataError(
                f"instruction {position + 1}: expected a prompt of 1 to {limit - 1} tokens, found {len(prompt)}: "
                "shorten it or raise task.max_length"
            )
        with evaluating(model), autocast(model.device, precision):
            tokens = _continue(model, prompt, room)
        answers.append(str(model.tokenizer.decode(tokens, skip_special_tokens=True)).strip())
    return answers


def _continue(model: AdaptedModel, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding, whatever the base's own generation settings ask for."""
    tokenizer = model.tokenizer
    # GPT-2's end token is its unknown token too.
    ends = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id} | {tokenizer.eos_token_id, tokenizer.sep_token_id}
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        max_new_tokens=count,
        eos_token_id=sorted(ends - {None}),
        pad_token_id=tokenizer.pad_token_id,
    )
    ids = torch.tensor([prompt], device=model.device)
    decode: Callable[..., torch.Tensor] = cast(Any, model.backbone).generate
    written = decode(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    answer = [int(token) for token in written[0, len(prompt) :]]
    return answer[:-1] if answer and answer[-1] in ends else answer


def _encoded(model: AdaptedModel, texts: Sequence[str], max_length: int) -> list[EncodedExample]:
    if not texts:
        return []
    limit = min(max_length, int(model.tokenizer.model_max_length))
    rows = model.tokenizer(list(texts), truncation=True, max_length=limit, verbose=False)["input_ids"]
    for position, row in enumerate(rows, start=1):
        if not row:
            raise DataError(f"text {position}: expected text, found none that the tokenizer can read: leave it out")
    return [EncodedExample(np.asarray(row, np.int64), 0, None, unit) for unit, row in enumerate(rows)]
