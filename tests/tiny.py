"""Tiny random models and data for tests, made in a folder in milliseconds: no hub, no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

WORDS = [f"w{i}" for i in range(60)]
SPECIAL = ["[PAD]", "[UNK]", "<s>", "</s>"]


def tokenizer_into(folder: Path) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    return fast


def tiny_bert(folder: Path, seed: int = 0, width: int = 16) -> Path:
    """A BERT encoder of ``width`` and two layers."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=64, hidden_size=width, num_hidden_layers=2, num_attention_heads=2, intermediate_size=2 * width,
        max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer_into(folder)
    return folder


def tiny_llama(folder: Path, seed: int = 0, width: int = 16) -> Path:
    """A Llama decoder of ``width`` and two layers, tied embeddings."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64, hidden_size=width, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=2 * width, max_position_embeddings=64, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer_into(folder)
    return folder


def tiny_gpt2(folder: Path, seed: int = 0, width: int = 16) -> Path:
    """A GPT-2 decoder (Conv1D layers) of ``width`` and two layers."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=64, n_embd=width, n_layer=2, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=3
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer_into(folder)
    return folder


def classification_rows(count: int, seed: int = 0, units: int | None = None) -> list[dict[str, str]]:
    """Rows text, label ("a" | "b" | "c"), patient, hospital: the label's words stand in the text."""
    generator = torch.Generator().manual_seed(seed)

    def below(n: int) -> int:
        return int(torch.randint(n, (1,), generator=generator))

    rows = []
    for number in range(count):
        label = below(3)
        length = 3 + below(8)
        words = [WORDS[label * 20 + below(20)] if below(4) else WORDS[below(60)] for _ in range(length)]
        rows.append(
            {
                "text": " ".join(words),
                "label": "abc"[label],
                "patient": f"p{below(units) if units else number}",
                "hospital": ("north", "south")[below(2)],
            }
        )
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
