"""The guarantees of training/ewc.py and training/fisher.py."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from fedft.data.examples import load_data_set
from fedft.data.formats import EncodedDataSet, collate, encode_classification, encode_instruction
from fedft.errors import ConfigError
from fedft.model.adapter import AdaptedModel, attach_adapter
from fedft.model.base import load_base_model
from fedft.training.ewc import Consolidation, EwcPenalty, accumulate, load_consolidation, save_consolidation
from fedft.training.fisher import clipped_squares, private_fisher, public_fisher
from fedft.types import Role
from tests.tiny import classification_rows, tiny_bert, tiny_llama, write_jsonl


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    base = load_base_model(str(tiny_bert(tmp_path_factory.mktemp("base"))), task="classification")
    adapted = attach_adapter(
        base, method="lora", rank=2, alpha=4.0, target_modules=None, dropout=0.0, rslora=False, num_labels=3,
        pooling="mean", seed=1, orthonormal_a=False,
    )  # fmt: skip
    rng = np.random.default_rng(2)
    adapted.write_vector(rng.normal(0, 0.3, adapted.layout.size).astype(np.float32))
    return adapted


@pytest.fixture(scope="module")
def data(model: AdaptedModel, tmp_path_factory: pytest.TempPathFactory) -> EncodedDataSet:
    path = write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", classification_rows(30, units=10))
    loaded = load_data_set(path, fields=("text", "label"), unit_column="patient")
    return encode_classification(loaded, model.tokenizer, text="text", label="label", labels="abc", max_length=16)


def random_consolidation(model: AdaptedModel, seed: int) -> Consolidation:
    rng = np.random.default_rng(seed)
    fisher = {m: rng.random((b.shape[0], a.shape[1])).astype(np.float32) for m, a, b in model.layout.lora_pairs()}
    fisher |= {t.name: rng.random(t.shape).astype(np.float32) for t in model.layout.tensors if t.role == "head"}
    return Consolidation(rng.normal(0, 0.3, model.layout.size).astype(np.float32), fisher)


def pulled(
    model: AdaptedModel, penalty: EwcPenalty, rate: float, roles: Sequence[Role] = ("lora_A", "lora_B", "head")
) -> npt.NDArray[np.float64]:
    """Where one proximal step takes the adapter; the model is left as it was."""
    kept = model.read_vector()
    model.set_trainable(roles)
    penalty.pull(model, rate)
    found = model.read_vector().astype(np.float64)
    model.write_vector(kept)
    return found


@pytest.mark.parametrize("roles", [("lora_B", "head"), ("lora_A",)])
@pytest.mark.parametrize("shape", ["entry", "matrix"])
def test_a_pull_ends_where_the_proximal_problem_has_its_minimum(
    model: AdaptedModel, roles: tuple[Role, ...], shape: str
) -> None:
    """|y - x|²/2 + rate·penalty(y) is convex in one factor, so a zero slope along every direction is the minimum."""
    chosen = random_consolidation(model, 3)
    if shape == "matrix":
        chosen = Consolidation(chosen.anchor, {k: np.asarray(v.mean(), np.float32) for k, v in chosen.fisher.items()})
    penalty, rate, kept = EwcPenalty(model.layout, chosen, 7.0, model.devices()), 0.3, model.read_vector()
    end = pulled(model, penalty, rate, roles)
    trained = np.concatenate([np.full(t.size, t.role in roles) for t in model.layout.tensors])
    assert np.array_equal(end[~trained], kept[~trained])

    def objective(y: npt.NDArray[np.float64]) -> float:
        model.write_vector(y.astype(np.float32))
        return 0.5 * float(np.sum((y - kept) ** 2)) + rate * penalty.value(model)

    for seed in range(5):
        direction = np.random.default_rng(seed).normal(size=kept.size) * trained
        slopes = [objective(y + 0.01 * direction) - objective(y - 0.01 * direction) for y in (end, kept.astype(float))]
        assert abs(slopes[0]) < 2e-3 * max(abs(slopes[1]), 1e-3)
    assert objective(end) < objective(kept.astype(float))
    model.write_vector(kept)


def test_a_small_pull_is_a_gradient_step(model: AdaptedModel) -> None:
    """In both factors at once: the penalty's slope along the way moved is -|moved|²/rate."""
    penalty = EwcPenalty(model.layout, random_consolidation(model, 3), 7.0, model.devices())
    rate, kept = 1e-4, model.read_vector()
    moved = pulled(model, penalty, rate) - kept
    model.write_vector((kept + moved).astype(np.float32))
    above = penalty.value(model)
    model.write_vector((kept - moved).astype(np.float32))
    below = penalty.value(model)
    model.write_vector(kept)
    assert (above - below) / 2 == pytest.approx(-float(np.sum(moved**2)) / rate, rel=0.05)


def test_nothing_moves_at_the_anchor(model: AdaptedModel) -> None:
    kept = model.read_vector()
    penalty = EwcPenalty(model.layout, Consolidation(kept, random_consolidation(model, 3).fisher), 7.0, model.devices())
    assert penalty.value(model) == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(pulled(model, penalty, 1.0), kept, atol=1e-4)


@pytest.mark.parametrize("strength", [1.0, 1e3, 1e6])
def test_a_pull_of_any_strength_lowers_the_penalty(model: AdaptedModel, strength: float) -> None:
    """An explicit step would diverge at the last two."""
    penalty = EwcPenalty(model.layout, random_consolidation(model, 3), strength, model.devices())
    kept, values = model.read_vector(), [penalty.value(model)]
    for _ in range(5):
        model.write_vector(pulled(model, penalty, 1.0).astype(np.float32))
        values.append(penalty.value(model))
    model.write_vector(kept)
    assert all(later <= earlier * (1 + 1e-4) for earlier, later in pairwise(values))
    assert values[1] < 0.9 * values[0]


def test_the_penalty_does_not_see_the_gauge_of_the_factors(model: AdaptedModel) -> None:
    """(A, B) -> (R A, B R^-1) leaves ΔW, hence the penalty, where it was."""
    penalty = EwcPenalty(model.layout, random_consolidation(model, 3), 7.0, model.devices())
    kept, before = model.read_vector(), penalty.value(model)
    tensors = {k: v.copy() for k, v in model.layout.unflatten(kept).items()}
    turn = np.array([[1.5, 0.4], [-0.2, 0.8]])
    for _, a, b in model.layout.lora_pairs():
        tensors[a.name] = (turn @ tensors[a.name]).astype(np.float32)
        tensors[b.name] = (tensors[b.name] @ np.linalg.inv(turn)).astype(np.float32)
    model.write_vector(model.layout.flatten(tensors))
    assert penalty.value(model) == pytest.approx(before, rel=1e-4)
    model.write_vector(kept)


def test_online_ewc_adds_the_penalties_of_two_tasks_at_one_anchor(model: AdaptedModel) -> None:
    first, second = random_consolidation(model, 3), random_consolidation(model, 5)
    both = accumulate(first, second.fisher, second.anchor, decay=0.5)
    together = EwcPenalty(model.layout, both, 1.0, model.devices()).value(model)
    moved = Consolidation(second.anchor, first.fisher)
    one = EwcPenalty(model.layout, moved, 0.5, model.devices()).value(model)
    two = EwcPenalty(model.layout, second, 1.0, model.devices()).value(model)
    assert together == pytest.approx(one + two, rel=1e-5)


def test_the_fisher_is_the_mean_of_squared_per_example_gradients(model: AdaptedModel, data: EncodedDataSet) -> None:
    """Against autograd on an explicit ΔW, one row at a time, averaged over every label with its probability."""
    module, lora = next(iter(model.lora_modules().items()))
    many = [public_fisher(model, data, examples=30, seed=s) for s in range(60)]
    estimate = np.mean([f[module] for f in many], axis=0)
    delta = torch.zeros(estimate.shape, requires_grad=True)
    exact = torch.zeros_like(delta)
    handle = lora.register_forward_hook(lambda _m, inputs, output: output + inputs[0] @ delta.T)
    model.eval()
    for example in data.examples:
        log_p = model(collate([example], 0)).log_softmax(-1)[0]
        for value in log_p:
            (g,) = torch.autograd.grad(value, delta, retain_graph=True)
            exact += value.exp().detach() * g.square() / len(data.examples)
    handle.remove()
    assert np.corrcoef(estimate.ravel(), exact.detach().numpy().ravel())[0, 1] > 0.97
    assert estimate.sum() == pytest.approx(float(exact.sum()), rel=0.15)


def test_a_head_of_zeros_still_has_a_fisher_of_its_own(model: AdaptedModel, data: EncodedDataSet) -> None:
    kept = model.read_vector()
    zeros = {t.name: np.zeros(t.shape, np.float32) for t in model.layout.tensors}
    model.write_vector(model.layout.flatten(zeros))
    fisher = {k: v.max() for k, v in public_fisher(model, data, examples=8, seed=0).items() if k != "head.bias"}
    assert fisher["head.weight"] > 0
    model.write_vector(kept)


@pytest.mark.parametrize("detail", ["entry", "matrix"])
def test_one_unit_adds_squares_of_norm_at_most_the_clip_norm_squared(detail: str) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        raw = {
            "a": torch.randn((5, 4), generator=generator) * 10 ** (seed % 4 - 1),
            "b": torch.randn(6, generator=generator),
        }
        squares = clipped_squares(raw, 0.5, detail)  # type: ignore[arg-type]
        assert torch.cat([s.flatten() for s in squares.values()]).norm() <= 0.25 * (1 + 1e-12)
    poisoned = clipped_squares({"a": torch.tensor([1.0, float("nan")])}, 0.5, detail)  # type: ignore[arg-type]
    assert float(poisoned["a"].sum()) == 0.0


def test_the_private_fisher_carries_the_stated_noise(model: AdaptedModel, data: EncodedDataSet) -> None:
    """Clip norm so small that only noise is left: half the entries are clamped, the rest half-normal."""
    clip, sigma, units = 1e-6, 1e9, len(data.units)
    fisher = private_fisher(model, data, clip_norm=clip, noise_multiplier=sigma, detail="entry")
    values = np.concatenate([v.ravel() for v in fisher.values()]).astype(np.float64) * units / (sigma * clip**2)
    positive = values[values > 0]
    assert abs(len(positive) / len(values) - 0.5) < 4 * 0.5 / np.sqrt(len(values))
    assert stats.kstest(positive, "halfnorm").pvalue > 1e-6


def test_the_matrix_fisher_is_the_mean_of_the_entries(
    model: AdaptedModel, data: EncodedDataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both draw the same labels here: else they would differ by the luck of few rows."""
    monkeypatch.setattr("fedft.training.fisher.secure_bytes", bytes)
    released = private_fisher(model, data, clip_norm=1.0, noise_multiplier=1e-13, detail="matrix")
    exact = private_fisher(model, data, clip_norm=1.0, noise_multiplier=1e-13, detail="entry")
    assert {v.shape for v in released.values()} == {()}
    for name, value in exact.items():
        assert released[name] == pytest.approx(value.mean(), rel=1e-4, abs=1e-14)


def test_a_consolidation_survives_the_disk(model: AdaptedModel, tmp_path: Path) -> None:
    kept = random_consolidation(model, 3)
    save_consolidation(tmp_path / "ewc", kept, {"task": "first"})
    loaded = load_consolidation(tmp_path / "ewc")
    assert np.array_equal(loaded.anchor, kept.anchor)
    assert all(np.array_equal(loaded.fisher[name], value) for name, value in kept.fisher.items())


def test_the_fisher_of_a_language_model_is_taken_at_a_fresh_adapter(tmp_path: Path) -> None:
    base = load_base_model(str(tiny_llama(tmp_path / "base")), task="instruction")
    adapted = attach_adapter(
        base, method="lora", rank=2, alpha=4.0, target_modules=None, dropout=0.0, rslora=False, num_labels=None,
        pooling="mean", seed=1, orthonormal_a=False,
    )  # fmt: skip
    rows = [{"instruction": "w1 w2", "input": "", "output": "w3 w4 w5"} for _ in range(6)]
    loaded = load_data_set(
        write_jsonl(tmp_path / "rows.jsonl", rows), fields=("instruction", "output"), optional_fields=("input",)
    )
    fisher = public_fisher(adapted, encode_instruction(loaded, adapted.tokenizer, max_length=32), examples=6, seed=0)
    assert set(fisher) == set(adapted.lora_modules())
    assert all(value.max() > 0 for value in fisher.values())


def test_a_fisher_of_zeros_is_refused(tmp_path: Path, data: EncodedDataSet, model: AdaptedModel) -> None:
    class Constant(type(model)):  # type: ignore[misc]
        def forward(self, batch: object) -> torch.Tensor:
            return super().forward(batch) * 0.0  # type: ignore[no-any-return]

    original = model.__class__
    model.__class__ = Constant
    try:
        with pytest.raises(ConfigError, match="found 0 everywhere"):
            public_fisher(model, data, examples=8, seed=0)
    finally:
        model.__class__ = original
