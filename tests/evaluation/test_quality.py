"""evaluation/quality.py: the metrics against values worked out by hand, and what evaluation leaves behind."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedft.data.examples import load_data_set
from fedft.data.formats import EncodedDataSet, collate, encode_classification, encode_instruction
from fedft.errors import ConfigError, DataError
from fedft.evaluation import quality
from fedft.evaluation.quality import evaluate, evaluating, forgetting, is_better, macro_f1, main_metric
from fedft.model.adapter import AdaptedModel, attach_adapter
from fedft.model.base import load_base_model
from fedft.training.losses import per_example_loss
from tests.tiny import classification_rows, tiny_bert, tiny_llama, write_jsonl


def adapted(folder: Path, *, task: Any, num_labels: int | None) -> AdaptedModel:
    base = load_base_model(str(folder), task=task, device="cpu")
    model = attach_adapter(
        base, method="lora", rank=2, alpha=4.0, target_modules=None, dropout=0.3, rslora=False, num_labels=num_labels,
        pooling="mean", seed=1, orthonormal_a=False,
    )  # fmt: skip
    rng = np.random.default_rng(4)
    model.write_vector(rng.normal(0, 0.5, model.layout.size).astype(np.float32))
    return model


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    return adapted(tiny_bert(tmp_path_factory.mktemp("bert")), task="classification", num_labels=3)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    return adapted(tiny_llama(tmp_path_factory.mktemp("llama")), task="instruction", num_labels=None)


@pytest.fixture(scope="module")
def rows(classifier: AdaptedModel, tmp_path_factory: pytest.TempPathFactory) -> EncodedDataSet:
    path = write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", classification_rows(37))
    data = load_data_set(path, fields=("text", "label"))
    return encode_classification(data, classifier.tokenizer, text="text", label="label", labels="abc", max_length=16)


@pytest.fixture(scope="module")
def dialogues(writer: AdaptedModel, tmp_path_factory: pytest.TempPathFactory) -> EncodedDataSet:
    bodies = [
        {"instruction": f"w{i} w{i + 1}", "output": " ".join(f"w{(i * j) % 60}" for j in range(1, 2 + i % 7))}
        for i in range(23)
    ]
    path = write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", bodies)
    data = load_data_set(path, fields=("instruction", "output"))
    return encode_instruction(data, writer.tokenizer, max_length=48)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], 1.0),
        # TP, FP, FN: class 0: 1, 1, 1 -> 2/4; class 1: 1, 1, 1 -> 2/4; class 3 in neither: left out.
        ([0, 0, 1, 1], [0, 1, 1, 0], 0.5),
        # Class 0: 2, 1, 0 -> 4/5; class 1: 0, 0, 1 -> 0; the others are absent.
        ([0, 0, 1], [0, 0, 0], 0.4),
        # Class 2 is predicted and never true: it counts as 0. Class 0: 1, 0, 1 -> 2/3.
        ([0, 0], [0, 2], 1 / 3),
    ],
)
def test_macro_f1_by_hand(truth: list[int], predicted: list[int], expected: float) -> None:
    assert macro_f1(np.array(truth), np.array(predicted), 4) == pytest.approx(expected)


def test_macro_f1_is_the_harmonic_mean_of_precision_and_recall_over_the_classes_that_appear() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, predicted = rng.integers(0, 9, 12).tolist(), rng.integers(0, 9, 12).tolist()
        scores = []
        for label in set(truth) | set(predicted):
            both = sum(t == p == label for t, p in zip(truth, predicted, strict=True))
            precision = both / max(predicted.count(label), 1)
            recall = both / max(truth.count(label), 1)
            scores.append(2 * precision * recall / (precision + recall) if both else 0.0)
        assert macro_f1(np.array(truth), np.array(predicted), 9) == pytest.approx(np.mean(scores))


def test_macro_f1_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="expected at least one row"):
        macro_f1(np.empty(0, np.int64), np.empty(0, np.int64), 3)


def test_classification_metrics_are_those_of_the_rows_one_by_one(
    classifier: AdaptedModel, rows: EncodedDataSet
) -> None:
    losses, right = [], []
    with evaluating(classifier):
        for example in rows.examples:
            batch = collate([example], 0)
            logits = classifier(batch)
            losses.append(float(per_example_loss(logits, batch)))
            right.append(int(logits.argmax()) == example.label)
    found = evaluate(classifier, rows, batch_size=8)
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert 0 < found["accuracy"] < 1
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["rows"] == 37
    assert set(found) == {"accuracy", "macro_f1", "loss", "rows"}


def test_a_model_of_zeros_guesses_at_random_with_the_loss_of_a_coin(
    classifier: AdaptedModel, rows: EncodedDataSet
) -> None:
    kept = classifier.read_vector()
    classifier.write_vector(np.zeros_like(kept))
    try:
        assert evaluate(classifier, rows, batch_size=8)["loss"] == pytest.approx(math.log(3), rel=1e-6)
    finally:
        classifier.write_vector(kept)


def test_instruction_loss_weighs_tokens_and_not_answers(writer: AdaptedModel, dialogues: EncodedDataSet) -> None:
    total, tokens = 0.0, 0
    with evaluating(writer):
        for example in dialogues.examples:
            logits = writer(collate([example], 0))[0].double()
            assert example.target_mask is not None
            for position in np.flatnonzero(example.target_mask):
                total -= float(logits[position - 1].log_softmax(-1)[int(example.input_ids[position])])
                tokens += 1
    found = evaluate(writer, dialogues, batch_size=5)
    assert found["loss"] == pytest.approx(total / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-4)
    assert found["rows"] == 23


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_does_not_change_the_figures(
    classifier: AdaptedModel, rows: EncodedDataSet, writer: AdaptedModel, dialogues: EncodedDataSet, batch_size: int
) -> None:
    for model, data in ((classifier, rows), (writer, dialogues)):
        expected = evaluate(model, data, batch_size=16)
        assert evaluate(model, data, batch_size=batch_size) == pytest.approx(expected, rel=1e-5)


def test_rows_of_a_large_vocabulary_are_split_further(
    writer: AdaptedModel, dialogues: EncodedDataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, sizes = evaluate(writer, dialogues, batch_size=1000), []
    hook = writer.register_forward_hook(lambda module, args, output: sizes.append(output.numel()))
    monkeypatch.setattr(quality, "LOGITS_IN_MEMORY", 4000)
    try:
        assert evaluate(writer, dialogues, batch_size=1000) == pytest.approx(expected, rel=1e-5)
    finally:
        hook.remove()
    assert len(sizes) > 3
    assert max(sizes) <= 4000


def test_evaluation_is_repeatable_and_leaves_every_mode_as_it_was(
    classifier: AdaptedModel, rows: EncodedDataSet
) -> None:
    classifier.train()
    classifier.head.eval()
    modes = [module.training for module in classifier.modules()]
    vector = classifier.read_vector()
    first = evaluate(classifier, rows, batch_size=8)
    assert [module.training for module in classifier.modules()] == modes
    classifier.eval()
    assert evaluate(classifier, rows, batch_size=8) == first, "dropout was active"
    assert np.array_equal(classifier.read_vector(), vector)


def test_the_mode_is_restored_after_an_error(classifier: AdaptedModel) -> None:
    classifier.train()

    def fail() -> None:
        with evaluating(classifier):
            assert not classifier.training
            assert torch.is_inference_mode_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(module.training for module in classifier.modules())


def test_training_goes_on_after_evaluation(writer: AdaptedModel, dialogues: EncodedDataSet) -> None:
    evaluate(writer, dialogues, batch_size=8)
    parameters = writer.set_trainable(("lora_B",))
    batch = collate(dialogues.examples[:3], 0)
    per_example_loss(writer(batch), batch).sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)


def test_max_rows_are_spread_over_the_data_set(classifier: AdaptedModel, rows: EncodedDataSet) -> None:
    chosen = replace(rows, examples=tuple(rows.examples[i] for i in (0, 9, 18, 27)))
    found = evaluate(classifier, rows, batch_size=8, max_rows=4)
    assert found == pytest.approx(evaluate(classifier, chosen, batch_size=8))
    assert found["rows"] == 4
    assert evaluate(classifier, rows, batch_size=8, max_rows=99)["rows"] == 37


def test_nothing_to_evaluate_is_a_clear_error(classifier: AdaptedModel, rows: EncodedDataSet) -> None:
    with pytest.raises(DataError, match="expected at least one row to evaluate, found none"):
        evaluate(classifier, replace(rows, examples=(), units=()), batch_size=8)
    with pytest.raises(ConfigError, match=r"evaluation\.batch_size"):
        evaluate(classifier, rows, batch_size=0)
    with pytest.raises(ConfigError, match=r"evaluation\.max_rows"):
        evaluate(classifier, rows, batch_size=8, max_rows=0)


def test_rows_of_another_task_are_a_clear_error(
    classifier: AdaptedModel, rows: EncodedDataSet, dialogues: EncodedDataSet
) -> None:
    beyond = replace(rows, examples=(replace(rows.examples[0], label=3),))
    for data in (beyond, dialogues):
        with pytest.raises(DataError, match="expected labels of the model's 3 classes"):
            evaluate(classifier, data, batch_size=8)


def test_the_figures_are_plain_numbers_for_json(classifier: AdaptedModel, rows: EncodedDataSet) -> None:
    found = evaluate(classifier, rows, batch_size=8)
    assert json.loads(json.dumps(found)) == found


def test_the_main_metric_and_which_way_it_counts() -> None:
    assert main_metric("classification") == "accuracy"
    assert main_metric("instruction") == "loss"
    assert main_metric("classification", "macro_f1") == "macro_f1"
    with pytest.raises(ConfigError, match='found "accuracy"'):
        main_metric("instruction", "accuracy")
    assert is_better("accuracy", 0.6, 0.5)
    assert not is_better("accuracy", 0.5, 0.5)
    assert is_better("loss", 0.5, 0.6)
    assert not is_better("perplexity", 7.0, 6.0)
    assert not is_better("loss", math.nan, 0.6)
    assert is_better("loss", 0.6, math.nan)
    assert not is_better("loss", math.nan, math.nan)
    with pytest.raises(ConfigError, match="as a metric"):
        is_better("bleu", 1.0, 0.0)


def test_forgetting_is_best_before_minus_now() -> None:
    history = [
        {"a": {"accuracy": 0.7, "loss": 0.9}},
        {"a": {"accuracy": 0.9, "loss": 0.5}, "b": {"accuracy": 0.2, "loss": 2.0}},
        {"a": {"accuracy": 0.6, "loss": 0.8}, "b": {"accuracy": 0.5, "loss": 1.0}, "c": {"accuracy": 0.1, "loss": 3.0}},
    ]
    assert forgetting(history, "accuracy") == pytest.approx({"a": 0.3, "b": -0.3})
    assert forgetting(history, "loss") == pytest.approx({"a": 0.3, "b": -1.0})
    assert forgetting(history[:1], "accuracy") == {}
    assert forgetting([], "accuracy") == {}
