"""evaluation/predict.py: labels and answers against what the model says row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedft.data.formats import encode_prompt
from fedft.errors import ConfigError, DataError
from fedft.evaluation.predict import generate, predict_labels
from fedft.model.adapter import AdaptedModel, attach_adapter
from fedft.model.base import load_base_model
from tests.tiny import tiny_bert, tiny_gpt2, tiny_llama


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    base = load_base_model(str(tiny_bert(tmp_path_factory.mktemp("bert"))), task="classification", device="cpu")
    model = attach_adapter(
        base, method="lora", rank=2, alpha=4.0, target_modules=None, dropout=0.3, rslora=False, num_labels=3,
        pooling="mean", seed=1, orthonormal_a=False,
    )  # fmt: skip
    model.write_vector(np.random.default_rng(4).normal(0, 0.5, model.layout.size).astype(np.float32))
    return model


def writer(folder: Path) -> AdaptedModel:
    base = load_base_model(str(folder), task="instruction", device="cpu")
    model = attach_adapter(
        base, method="lora", rank=2, alpha=4.0, target_modules=None, dropout=0.0, rslora=False, num_labels=None,
        pooling="mean", seed=1, orthonormal_a=False,
    )  # fmt: skip
    model.write_vector(np.random.default_rng(2).normal(0, 0.5, model.layout.size).astype(np.float32))
    return model


@pytest.fixture(scope="module", params=[tiny_llama, tiny_gpt2])
def causal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    return writer(request.param(tmp_path_factory.mktemp("causal")))


def test_each_text_gets_its_own_label_in_the_given_order(classifier: AdaptedModel) -> None:
    texts = [" ".join(f"w{(7 * i + j) % 60}" for j in range(1 + (5 * i) % 11)) for i in range(13)]
    together = predict_labels(classifier, texts, ["x", "y", "z"], max_length=16, batch_size=4)
    classifier.train()
    alone = [predict_labels(classifier, [text], ["x", "y", "z"], max_length=16)[0] for text in texts]
    assert classifier.training
    assert [label for label, _ in together] == [label for label, _ in alone]
    assert [p for _, p in together] == pytest.approx([p for _, p in alone], rel=1e-5)
    assert len({label for label, _ in together}) > 1
    assert all(1 / 3 <= probability <= 1 for _, probability in together)


def test_wrong_labels_and_texts_are_clear_errors(classifier: AdaptedModel) -> None:
    assert predict_labels(classifier, [], ["x", "y", "z"], max_length=16) == []
    with pytest.raises(ConfigError, match="expected the 3 labels"):
        predict_labels(classifier, ["w1"], ["x", "y"], max_length=16)
    with pytest.raises(DataError, match="text 2: expected text") as caught:
        predict_labels(classifier, ["w1", "   "], ["x", "y", "z"], max_length=16)
    assert "w1" not in str(caught.value)


def test_an_answer_is_the_most_probable_token_over_and_over(causal: AdaptedModel) -> None:
    tokenizer = causal.tokenizer
    prompt = encode_prompt(tokenizer, "w1 w2", "w3")
    tokens: list[int] = []
    causal.eval()
    with torch.no_grad():
        for _ in range(6):
            ids = torch.tensor([prompt + tokens])
            tokens.append(int(causal.backbone(input_ids=ids).logits[0, -1].argmax()))
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id}
    stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    expected = tokenizer.decode(tokens[:stop], skip_special_tokens=True).strip()
    assert generate(causal, ["w1 w2"], inputs=["w3"], max_new_tokens=6) == [expected]
    assert expected


def test_the_base_models_generation_settings_do_not_count(tmp_path: Path) -> None:
    model = writer(tiny_llama(tmp_path))
    expected = generate(model, ["w1 w2"], max_new_tokens=8)
    for name, value in {
        "repetition_penalty": 9.0,
        "no_repeat_ngram_size": 1,
        "do_sample": True,
        "num_beams": 3,
    }.items():
        setattr(model.backbone.generation_config, name, value)
    assert generate(model, ["w1 w2"], max_new_tokens=8) == expected


def test_neighbours_do_not_change_an_answer(causal: AdaptedModel) -> None:
    questions = ["w1 w2", "w5", "w9 w10 w11 w12 w13"]
    together = generate(causal, questions, max_new_tokens=5)
    assert together == [generate(causal, [question], max_new_tokens=5)[0] for question in questions]


def test_an_end_token_ends_the_answer(tmp_path: Path) -> None:
    model = writer(tiny_llama(tmp_path))
    words = generate(model, ["w1 w2"], max_new_tokens=8)[0].split()
    assert len(words) >= 2
    model.tokenizer.eos_token = words[1]
    shortened = generate(model, ["w1 w2"], max_new_tokens=8)[0].split()
    assert shortened == words[: words.index(words[1])]


def test_what_cannot_be_answered_is_a_clear_error(causal: AdaptedModel, classifier: AdaptedModel) -> None:
    assert generate(causal, [], max_new_tokens=5) == []
    with pytest.raises(DataError, match="instruction 2: expected a prompt of 1 to 11 tokens") as caught:
        generate(causal, ["", "w1 " * 30], max_new_tokens=5, max_length=12)
    assert "w1" not in str(caught.value)
    with pytest.raises(ConfigError, match="expected one input for each of 1 instructions, found 2"):
        generate(causal, ["w1"], inputs=["w1", "w2"], max_new_tokens=5)
    with pytest.raises(ConfigError, match="found a classifier"):
        generate(classifier, ["w1"], max_new_tokens=5)
