"""The committed base model is small, reads its corpus well, and is what the committed script makes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = Path(__file__).resolve().parents[2] / "scenarios" / "model"
LARGEST_WEIGHTS = 10_000_000


@pytest.fixture(scope="module")
def passages() -> list[str]:
    script = MODEL.parent / "synthetic" / "corpus.py"
    shown = subprocess.run([sys.executable, str(script), "60"], check=True, capture_output=True, text=True)
    return [line for line in shown.stdout.splitlines() if len(line) > 20]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("make_model", MODEL / "make_model.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_script_makes_the_committed_tokenizer_and_a_model_of_the_committed_shape(script: ModuleType) -> None:
    tokenizer = script.make_tokenizer(list(script.sentences(1, script.PASSAGES)))
    assert json.loads(tokenizer.backend_tokenizer.to_str()) == json.loads((MODEL / "tokenizer.json").read_text())
    made, committed = script.make_model(tokenizer), AutoModelForCausalLM.from_pretrained(MODEL)
    shapes = {name: tensor.shape for name, tensor in made.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in committed.state_dict().items()}


def test_a_few_steps_of_the_script_lower_the_loss(script: ModuleType) -> None:
    texts = list(script.sentences(1, script.BATCH * script.BUCKET))
    tokenizer = script.make_tokenizer(texts)
    model, rows = script.make_model(tokenizer), script.encode(tokenizer, texts)
    before = script.held_out_loss(model, rows[:64])
    script.train(model, rows, 10, 1)
    assert script.held_out_loss(model, rows[:64]) < before - 0.5


def test_it_is_small_and_holds_safetensors_alone() -> None:
    assert (MODEL / "model.safetensors").stat().st_size < LARGEST_WEIGHTS
    assert not [path for path in MODEL.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_the_tokenizer_reads_every_passage_and_gives_it_back_in_lower_case(passages: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for passage in passages:
        ids = tokenizer(passage)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == passage.lower()


def test_the_chat_template_writes_instructions_as_the_corpus_does() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    turns = [{"role": "user", "content": "say it.\n\nhives."}, {"role": "assistant", "content": "bumps."}]
    prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<s>Instruction: say it.\nInput: hives.\nAnswer:"
    assert tokenizer.apply_chat_template(turns, tokenize=False) == prompt + " bumps.</s>"


def test_it_predicts_the_corpus_far_better_than_its_words_shuffled(passages: list[str]) -> None:
    """Nats per token: below 2 on the corpus, where a model that knows nothing has log(2048) = 7.6."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)
    right = [tokenizer(passage, return_tensors="pt")["input_ids"] for passage in passages]
    wrong = [torch.cat([ids[:, :1], ids[:, 1:].flip(1)], dim=1) for ids in right]

    @torch.no_grad()
    def loss(rows: list[torch.Tensor]) -> float:
        return sum(float(model(input_ids=ids, labels=ids).loss) for ids in rows) / len(rows)

    assert loss(right) < 2 < 4 < loss(wrong)
