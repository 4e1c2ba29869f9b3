"""Makes the small base model of the scenarios from nothing but the text of ``scenarios/synthetic/corpus.py``.

A byte-level BPE tokenizer and a Llama-architecture causal model of 750,000 parameters: it serves classification
(mean-pooled) and, with the chat template written here, instruction tuning. About five minutes on one core.

    python scenarios/model/make_model.py                 # writes beside this file
    python scenarios/model/make_model.py --steps 50 --out build/model
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, get_scheduler

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "synthetic"))

from corpus import sentences  # noqa: E402  (the generators are scripts, not a package)

VOCABULARY = 2048
PAD, BEGIN, END = "<pad>", "<s>", "</s>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}"
    "{{ 'Instruction: ' + (message['content'] | replace('\\n\\n', '\\nInput: ')) + '\\nAnswer:' }}"
    "{% endif %}{% endfor %}"
)
"""The corpus writes instructions like this; fedft joins instruction and input by an empty line."""

MAX_LENGTH = 128
PASSAGES, HELD_OUT = 100_000, 1_000
BATCH, BUCKET = 64, 64
LEARNING_RATE, WARMUP, WEIGHT_DECAY = 3e-3, 100, 0.05


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Lower-cased byte-level BPE with a begin token: case carries nothing in notes typed in a hurry."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, begin)]
    )
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BEGIN, eos_token=END, model_max_length=MAX_LENGTH,
        padding_side="right", clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """About 750,000 parameters at random, embeddings tied."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=256, max_position_embeddings=MAX_LENGTH, tie_word_embeddings=True, attention_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Passages with begin and end, at most MAX_LENGTH tokens."""
    rows = tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH - 1)["input_ids"]
    return [[*row, tokenizer.eos_token_id] for row in rows]


def batches(rows: Sequence[list[int]], generator: torch.Generator) -> Iterator[Tensor]:
    """(BATCH, t) token ids padded with 0, for ever: passages of about one length side by side waste no padding."""
    while True:
        order = torch.randperm(len(rows), generator=generator).tolist()
        for start in range(0, len(order) - BATCH * BUCKET + 1, BATCH * BUCKET):
            bucket = sorted(order[start : start + BATCH * BUCKET], key=lambda row: len(rows[row]))
            for at in torch.randperm(BUCKET, generator=generator).tolist():
                chosen = [torch.tensor(rows[row]) for row in bucket[at * BATCH : (at + 1) * BATCH]]
                yield torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)


def loss_of(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Mean next-token cross entropy in nats; padding is id 0 and stands on the right."""
    logits = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0)


def train(model: LlamaForCausalLM, rows: Sequence[list[int]], steps: int, seed: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98))
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=min(WARMUP, steps // 10), num_training_steps=steps)
    stream, begun = batches(rows, torch.Generator().manual_seed(seed)), time.perf_counter()
    for step in range(1, steps + 1):
        loss = loss_of(model, next(stream))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            sys.stderr.write(f"step {step} of {steps}  loss {loss.item():.3f}  {time.perf_counter() - begun:.0f} s\n")


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, rows: Sequence[list[int]]) -> float:
    """Nats per token over ``rows``."""
    total, tokens = 0.0, 0
    for start in range(0, len(rows), BATCH):
        chosen = [torch.tensor(row) for row in rows[start : start + BATCH]]
        ids = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        count = int((ids[:, 1:] != 0).sum())
        total, tokens = total + float(loss_of(model, ids)) * count, tokens + count
    return total / tokens


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the scenarios' base model.")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    texts, held_out = list(sentences(arguments.seed, PASSAGES)), list(sentences(arguments.seed + 1, HELD_OUT))
    tokenizer = make_tokenizer(texts)
    tokenizer.save_pretrained(arguments.out)  # before encoding, which leaves its truncation behind
    model = make_model(tokenizer)
    begun = time.perf_counter()
    train(model, encode(tokenizer, texts), arguments.steps, arguments.seed)
    model.save_pretrained(arguments.out)
    loss = held_out_loss(model, encode(tokenizer, held_out))
    figures = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": arguments.steps,
        "held_out_loss": round(loss, 3),
        "held_out_perplexity": round(math.exp(loss), 2),
        "seconds": round(time.perf_counter() - begun),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
