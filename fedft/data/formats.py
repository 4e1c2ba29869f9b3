"""Rows as tokens: what the model reads, and which tokens the loss is on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedft.data.examples import DataSet
from fedft.errors import BadRecord, ConfigError, DataError
from fedft.types import Digest

NO_TARGET = -100
"""The label that cross entropy ignores."""

PLAIN_PROMPT = "### Instruction:\n{instruction}\n\n### Response:\n"
PLAIN_PROMPT_WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
"""The prompt for tokenizers without a chat template: Alpaca's, without its preamble."""

_CHUNK = 1024


@dataclass(frozen=True, repr=False, slots=True)
class EncodedExample:
    """One row as tokens.

    input_ids (t,) int64. label: class index, -1 for instruction tuning. target_mask (t,): tokens of the answer, for
    instruction tuning. unit: index into EncodedDataSet.units.
    """

    input_ids: npt.NDArray[np.int64]
    label: int
    target_mask: npt.NDArray[np.bool_] | None
    unit: int

    def __repr__(self) -> str:
        return f"EncodedExample(unit={self.unit})"


@dataclass(frozen=True, repr=False)
class EncodedDataSet:
    """Encoded rows, and for each unit the positions of its rows. ``skipped``: rows left out while encoding."""

    examples: tuple[EncodedExample, ...]
    units: tuple[npt.NDArray[np.int64], ...]
    name: str
    fingerprint: Digest
    skipped: int = 0

    @property
    def unit_count(self) -> int:
        return len(self.units)

    def __repr__(self) -> str:
        return f"EncodedDataSet(name={self.name!r}, rows={len(self.examples)}, units={len(self.units)})"


@dataclass(frozen=True, repr=False)
class Batch:
    """Rows side by side, padded on the right.

    input_ids, attention_mask (n, t) int64. labels (n,) int64 class indices, or (n, t) with -100 where there is no
    target. units (m,) int64, m <= n: the unit of each row, 0..unit_count-1 within this batch; rows after the first m
    are blank, and nothing may be made of them.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    units: Tensor
    unit_count: int

    def to(self, device: torch.device | str) -> Batch:
        ids, mask = self.input_ids.to(device), self.attention_mask.to(device)
        return Batch(ids, mask, self.labels.to(device), self.units.to(device), self.unit_count)

    def __repr__(self) -> str:
        return f"Batch(rows={self.input_ids.shape[0]}, width={self.input_ids.shape[1]}, units={self.unit_count})"


def encode_classification(
    data: DataSet, tokenizer: Any, *, text: str, label: str, labels: Sequence[str], max_length: int,
    on_bad_record: str = "error",
) -> EncodedDataSet:  # fmt: skip
    """Tokens with the tokenizer's special tokens, cut at ``max_length``; the label's index in ``labels``.

    Raises BadRecord for a label that is not in ``labels`` and for a text without a token.
    """
    index = {name: number for number, name in enumerate(labels)}
    builder = _Builder(data, on_bad_record)
    limit = _token_limit(tokenizer, max_length)
    for examples in _chunks(data):
        encoded = tokenizer([e.fields[text] for _, e in examples], truncation=True, max_length=limit)["input_ids"]
        for (position, example), ids in zip(examples, encoded, strict=True):
            if example.fields[label] not in index:
                builder.refuse(position, label, f"expected one of the task's {len(index)} labels, found another value")
            elif not ids:
                builder.refuse(position, text, "expected text, found none that the tokenizer can read")
            else:
                builder.add(position, ids, index[example.fields[label]], None)
    return builder.finish()


def encode_instruction(
    data: DataSet, tokenizer: Any, *, max_length: int, on_bad_record: str = "error"
) -> EncodedDataSet:
    """Prompt and answer as tokens, the loss on the answer and its end alone.

    The prompt (fields instruction and input) follows the tokenizer's chat template, or PLAIN_PROMPT. Prompt and answer
    are tokenised apart, so that no token spans the boundary. At ``max_length`` the answer's end is cut, never its
    start.

    Raises BadRecord when the prompt leaves no room for a token of the answer.
    """
    builder, limit = _Builder(data, on_bad_record), _token_limit(tokenizer, max_length)
    for examples in _chunks(data):
        texts = [_prompt_and_answer(tokenizer, example.fields) for _, example in examples]
        # Not verbose: a warning about a long row would put its length into the log.
        prompts = tokenizer([prompt for prompt, _ in texts], add_special_tokens=False, verbose=False)["input_ids"]
        answers = tokenizer([answer for _, answer in texts], add_special_tokens=False, verbose=False)["input_ids"]
        start = _start_tokens(tokenizer)
        for (position, _), prompt, answer in zip(examples, prompts, answers, strict=True):
            prompt, answer = [*start, *prompt], _with_end(tokenizer, answer)
            if not answer or len(prompt) >= limit:
                builder.refuse(position, "output", f"expected an answer within {limit} tokens, found none left of it")
                continue
            ids = [*prompt, *answer][:limit]
            builder.add(position, ids, -1, np.arange(len(ids)) >= len(prompt))
    return builder.finish()


def encode_prompt(tokenizer: Any, instruction: str, given: str = "") -> list[int]:
    """The tokens that stand before an answer in encode_instruction; ``given`` is the field input."""
    prompt = _prompt(tokenizer, {"instruction": instruction, "input": given})
    return [*_start_tokens(tokenizer), *tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]]


def collate(
    examples: Sequence[EncodedExample],
    pad_id: int,
    units: Sequence[int] | None = None,
    *,
    rows: int = 0,
    width: int = 1,
) -> Batch:
    """Rows padded with ``pad_id`` to the longest, or to ``width``, and blank rows after them, up to ``rows``.

    ``units`` numbers the rows' units within the batch, 0..m-1 without a gap; None: as the examples' own, renumbered.
    """
    if units is None:
        seen: dict[int, int] = {}
        units = [seen.setdefault(example.unit, len(seen)) for example in examples]
    shape = (max(rows, len(examples)), max([width, *(len(example.input_ids) for example in examples)]))
    ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    targets = np.full(shape, NO_TARGET, np.int64)
    mask[len(examples) :, 0] = 1  # a row without any token would be NaN
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids[row, :length], mask[row, :length] = example.input_ids, 1
        if example.target_mask is not None:
            targets[row, :length][example.target_mask] = example.input_ids[example.target_mask]
    generative = any(example.target_mask is not None for example in examples)
    labels = targets if generative else np.zeros(shape[0], np.int64)
    if not generative:
        labels[: len(examples)] = [example.label for example in examples]
    owner = np.asarray(units, np.int64)
    count = int(owner.max()) + 1 if len(owner) else 0
    as_tensor = torch.from_numpy
    return Batch(as_tensor(ids), as_tensor(mask), as_tensor(labels), as_tensor(owner), count)


class _Builder:
    """Collects encoded rows and numbers the units in order of appearance."""

    def __init__(self, data: DataSet, on_bad_record: str) -> None:
        if on_bad_record not in ("error", "skip"):
            raise ConfigError('expected on_bad_record "error" or "skip", found another word: correct it')
        self._data, self._skip, self._skipped = data, on_bad_record == "skip", 0
        self._examples: list[EncodedExample] = []
        self._numbers: dict[str, int] = {}
        self._rows: list[list[int]] = []

    def add(self, position: int, ids: Sequence[int], label: int, target: npt.NDArray[np.bool_] | None) -> None:
        unit = self._numbers.setdefault(self._data.examples[position].unit, len(self._numbers))
        if unit == len(self._rows):
            self._rows.append([])
        self._rows[unit].append(len(self._examples))
        self._examples.append(EncodedExample(np.asarray(ids, np.int64), label, target, unit))

    def refuse(self, position: int, field: str, problem: str) -> None:
        if not self._skip:
            raise BadRecord(self._data.name, self._data.examples[position].row, field, problem)
        self._skipped += 1

    def finish(self) -> EncodedDataSet:
        if not self._examples:
            raise DataError(f"{self._data.name}: expected at least one usable row, found none: check task.max_length")
        units = tuple(np.asarray(rows, np.int64) for rows in self._rows)
        return EncodedDataSet(
            tuple(self._examples), units, self._data.name, self._data.fingerprint, self._data.skipped + self._skipped
        )


def _chunks(data: DataSet) -> Iterator[list[tuple[int, Any]]]:
    rows = list(enumerate(data.examples))
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def _token_limit(tokenizer: Any, max_length: int) -> int:
    """``max_length``, or less where the tokenizer knows that its model reads less."""
    return min(max_length, int(getattr(tokenizer, "model_max_length", None) or max_length))


def _prompt(tokenizer: Any, fields: Mapping[str, str]) -> str:
    if getattr(tokenizer, "chat_template", None):
        return _render(tokenizer, [_question(fields)], add_generation_prompt=True)
    given = fields.get("input", "")
    template = PLAIN_PROMPT_WITH_INPUT if given.strip() else PLAIN_PROMPT
    return template.format(instruction=fields["instruction"], input=given)


def _prompt_and_answer(tokenizer: Any, fields: Mapping[str, str]) -> tuple[str, str]:
    prompt, answer = _prompt(tokenizer, fields), fields["output"]
    if not getattr(tokenizer, "chat_template", None):
        return prompt, answer
    turns = [_question(fields), {"role": "assistant", "content": answer}]
    whole = _render(tokenizer, turns, add_generation_prompt=False)
    # The template's own end of turn belongs to the answer; a template that rewrites the prompt keeps the plain answer.
    return prompt, whole[len(prompt) :].rstrip("\n") if whole.startswith(prompt) else answer


def _question(fields: Mapping[str, str]) -> dict[str, str]:
    given = fields.get("input", "")
    content = f"{fields['instruction']}\n\n{given}" if given.strip() else fields["instruction"]
    return {"role": "user", "content": content}


def _render(tokenizer: Any, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    except Exception as error:  # noqa: BLE001 - a template's error may quote the messages: its type alone is kept
        problem = type(error).__name__
    raise DataError(
        f"expected the tokenizer's chat template to take a user and an assistant turn, found it failing ({problem}): "
        "use another base model, or remove the template to train with the plain prompt"
    )


def _start_tokens(tokenizer: Any) -> list[int]:
    """The begin token where the tokenizer sets one by itself; a chat template writes its own."""
    begin = getattr(tokenizer, "bos_token_id", None)
    if begin is None or getattr(tokenizer, "chat_template", None):
        return []
    return [begin] if tokenizer("a")["input_ids"][:1] == [begin] else []


def _with_end(tokenizer: Any, answer: list[int]) -> list[int]:
    """The answer with an end token (eos, else sep, else none), unless its template already ended it."""
    if not answer or (answer[-1] in tokenizer.all_special_ids and answer[-1] != tokenizer.unk_token_id):
        return answer
    end = next((e for e in (tokenizer.eos_token_id, tokenizer.sep_token_id) if e is not None), None)
    return answer if end is None else [*answer, end]
