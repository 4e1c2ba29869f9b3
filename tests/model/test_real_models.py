"""Real pretrained models, where they lie beside the repository: loaded, adapted, trained a few steps, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from fedft.data.formats import Batch, EncodedExample, collate
from fedft.model.base import load_base_model
from fedft.model.export import export_adapter
from fedft.training.losses import per_example_loss
from fedft.training.self_test import require_private
from tests.model.test_adapter import adapted
from tests.shared_data import shared_data

STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
NONSENSE = "Park the in outside play to loved she. Lily named girl little a was there, time a upon once."
MODELS = pytest.mark.parametrize("name", ["stories260K", "babyllama-char105"])


def answers(tokenizer: Any, *texts: str) -> Batch:
    ids = [torch.tensor(tokenizer(text)["input_ids"]).numpy() for text in texts]
    return collate([EncodedExample(i, -1, i == i, n) for n, i in enumerate(ids)], tokenizer.pad_token_id)


@MODELS
def test_the_model_knows_a_story_from_nonsense(name: str) -> None:
    model = adapted(shared_data("models", name), task="instruction").eval()
    batch = answers(model.tokenizer, STORY, NONSENSE)
    story, nonsense = per_example_loss(model(batch), batch).tolist()
    assert story < 1.3
    assert nonsense > story + 1


@MODELS
def test_a_few_steps_teach_it_the_nonsense_privately_if_need_be(name: str, tmp_path: Path) -> None:
    folder = shared_data("models", name)
    model = adapted(folder, task="instruction", rank=4)
    assert require_private(model, ("lora_A", "lora_B")).gradients < 1e-3
    batch = answers(model.tokenizer, NONSENSE)
    optimizer = torch.optim.AdamW(model.set_trainable(("lora_A", "lora_B")), lr=0.02)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = per_example_loss(model(batch), batch).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5
    export_adapter(model, tmp_path / "adapter")
    stock: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter").eval()
    found = stock(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(found, model.eval()(batch), atol=1e-3, rtol=1e-3)


@MODELS
def test_it_serves_as_a_classifier_s_backbone_too(name: str) -> None:
    folder = shared_data("models", name)
    model = adapted(folder, num_labels=5)
    assert model(answers(model.tokenizer, STORY, NONSENSE)).shape == (2, 5)
    assert load_base_model(str(folder), task="instruction").digest == model.base_digest
