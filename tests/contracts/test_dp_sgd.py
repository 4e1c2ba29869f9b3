"""The guarantees of training/dp_sgd.py and training/local.py, sentence by sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from fedft.data.examples import load_data_set
from fedft.data.formats import Batch, EncodedDataSet, collate, encode_classification
from fedft.errors import NotPrivate
from fedft.model.adapter import AdaptedModel, attach_adapter
from fedft.model.base import load_base_model
from fedft.privacy.discrete_gaussian import sample_discrete_gaussian
from fedft.privacy.noise import gaussian
from fedft.randomness import SecureStream
from fedft.training import self_test
from fedft.training.dp_sgd import DpSgd, UnitDPOptimizer, clip_unit_gradients, linear_gradients
from fedft.training.local import LocalPlan, Mechanism, physical_batches, train_locally
from fedft.training.losses import per_example_loss
from fedft.training.self_test import require_private
from fedft.types import AdapterVector, Role
from tests.tiny import classification_rows, tiny_bert, tiny_gpt2, tiny_llama, write_jsonl

ROLES: tuple[Role, ...] = ("lora_B", "head")
CLIP = 0.1


@pytest.fixture(scope="module", params=[tiny_bert, tiny_llama, tiny_gpt2], ids=["bert", "llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    folder = request.param(tmp_path_factory.mktemp("base"))
    base = load_base_model(str(folder), task="classification")
    adapted = attach_adapter(
        base, method="lora", rank=2, alpha=4.0, target_modules=None, dropout=0.0, rslora=False, num_labels=3,
        pooling="mean", seed=1, orthonormal_a=True,
    )  # fmt: skip
    rng = np.random.default_rng(2)
    adapted.write_vector(rng.normal(0, 0.3, adapted.layout.size).astype(np.float32))
    return adapted


@pytest.fixture(scope="module")
def data(model: AdaptedModel, tmp_path_factory: pytest.TempPathFactory) -> EncodedDataSet:
    path = write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", classification_rows(40, units=12))
    loaded = load_data_set(path, fields=("text", "label"), unit_column="patient")
    return encode_classification(loaded, model.tokenizer, text="text", label="label", labels="abc", max_length=16)


def plan(private: bool = True, noise: float = 0.0, rows: int = 64, batch: int = 1, steps: int = 1) -> LocalPlan:
    mechanism = Mechanism(clip_norm=CLIP, noise_multiplier=noise) if private else None
    return LocalPlan((1.0,) * steps, batch, 1.0, mechanism, optimizer="sgd", physical_batch_size=rows)


def gradient_sum(model: AdaptedModel, data: EncodedDataSet, units: Sequence[int], rows: int = 64) -> np.ndarray:
    """What the optimizer is given for these units, without noise: the sum of clipped unit gradients."""
    parameters = model.set_trainable(ROLES)
    model.train()
    optimizer = UnitDPOptimizer(
        torch.optim.SGD(parameters, lr=0.0),
        noise_multiplier=0.0,
        clip_norm=CLIP,
        expected_batch_size=1,
        stream=SecureStream(),
    )
    batches = physical_batches(data, np.array(units, dtype=np.int64), plan(rows=rows), 0, SecureStream().uniform)
    with DpSgd(model, optimizer) as dp_sgd:
        dp_sgd.step(batches, lambda batch: per_example_loss(model(batch), batch))
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).double().numpy()


@pytest.mark.parametrize(("d_in", "d_out"), [(5, 2), (2, 5), (3, 3)])
@pytest.mark.parametrize("tokens", [(), (4,), (4, 3)], ids=["row", "tokens", "blocks"])
def test_a_linear_layers_gradient_is_autograds_row_by_row(d_in: int, d_out: int, tokens: tuple[int, ...]) -> None:
    layer, generator = nn.Linear(d_in, d_out), torch.Generator().manual_seed(0)
    read = torch.randn((6, *tokens, d_in), generator=generator)
    given = torch.randn((6, *tokens, d_out), generator=generator)
    found = linear_gradients(layer, [read], given)
    for row in range(6):
        expected = torch.autograd.grad(layer(read[row]), [layer.weight, layer.bias], given[row])
        torch.testing.assert_close((found[layer.weight][row], found[layer.bias][row]), expected)
    layer.weight.requires_grad_(False)
    assert list(linear_gradients(layer, [read], given)) == [layer.bias]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 5),
    st.floats(1e-6, 1e6),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.integers(0, 9),
)
def test_each_unit_adds_a_vector_of_norm_at_most_the_clip_norm(
    units: int, scale: float, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradients = [
        torch.randn((units, 7, 3), generator=generator) * scale,
        torch.randn((units, 500), generator=generator),
    ]
    for unit in range(units):
        alone = [g[unit : unit + 1].to(dtype) for g in gradients]
        sums, _ = clip_unit_gradients(alone, 0.37)
        assert torch.cat([s.flatten() for s in sums]).double().norm() <= 0.37


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 3e38])
def test_a_unit_with_a_non_finite_gradient_adds_zero(poison: float) -> None:
    healthy = torch.ones(1, 4)
    sums, rejected = clip_unit_gradients([torch.cat([healthy, torch.full((1, 4), poison)])], 1.0)
    alone, _ = clip_unit_gradients([healthy], 1.0)
    assert rejected == 1
    assert torch.equal(sums[0], alone[0])


def test_adding_or_removing_one_unit_changes_the_sum_by_at_most_the_clip_norm(
    model: AdaptedModel, data: EncodedDataSet
) -> None:
    everyone = list(range(len(data.units)))
    assert max(len(rows) for rows in data.units) > 1
    whole = gradient_sum(model, data, everyone)
    changes = [np.linalg.norm(whole - gradient_sum(model, data, everyone[:u] + everyone[u + 1 :])) for u in everyone]
    assert max(changes) <= CLIP * (1 + 1e-5)
    assert max(changes) > 0.9 * CLIP, "the bound must bind, or the test shows nothing"


def test_a_unit_is_clipped_once_whatever_the_physical_batch_size(model: AdaptedModel, data: EncodedDataSet) -> None:
    everyone = list(range(len(data.units)))
    whole = gradient_sum(model, data, everyone, rows=64)
    for rows in (1, 3, 7):
        np.testing.assert_allclose(gradient_sum(model, data, everyone, rows=rows), whole, atol=2e-6)


def test_a_token_mean_loss_over_the_batch_would_break_the_bound(model: AdaptedModel, data: EncodedDataSet) -> None:
    """The control: with rows coupled through the batch, as in a loss averaged over the batch, the self-test refuses."""
    forward = type(model).forward

    class Coupled(type(model)):  # type: ignore[misc]
        def forward(self, batch: Batch) -> torch.Tensor:
            logits = forward(self, batch)
            return logits * (logits.shape[0] / 2)

    original = model.__class__
    model.__class__ = Coupled
    try:
        with pytest.raises(NotPrivate, match="rows influence each other"):
            require_private(model, ROLES)
    finally:
        model.__class__ = original


def test_the_self_test_accepts_and_leaves_the_adapter_as_it_was(model: AdaptedModel) -> None:
    before = model.read_vector()
    found = require_private(model, ROLES)
    assert found.gradients < 1e-4
    assert 0.5 < found.sensitivity <= 1 + 1e-5
    assert found.noise <= 0.03
    assert np.array_equal(before, model.read_vector())


def test_the_self_test_refuses_a_clip_that_does_not_clip(model: AdaptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(gradients: Sequence[torch.Tensor], clip_norm: float) -> tuple[list[torch.Tensor], int]:
        return [gradient.sum(dim=0) for gradient in gradients], 0

    monkeypatch.setattr(self_test, "clip_unit_gradients", unclipped)
    with pytest.raises(NotPrivate, match="at most the clip norm"):
        require_private(model, ROLES)


@pytest.mark.parametrize("factor", [0.0, 0.9, 1.1])
def test_the_self_test_refuses_noise_of_another_deviation(model: AdaptedModel, factor: float) -> None:
    with pytest.raises(NotPrivate, match="noise within 3%"):
        require_private(model, ROLES, draw=lambda stream, n, deviation: gaussian(stream, n, factor * deviation))


def test_the_self_test_takes_discrete_noise(model: AdaptedModel) -> None:
    assert require_private(model, ROLES, draw=sample_discrete_gaussian).noise <= 0.03


def test_an_empty_draw_adds_noise_of_the_stated_variance_and_counts_as_a_step(
    model: AdaptedModel, data: EncodedDataSet
) -> None:
    start, steps = model.read_vector(), []
    chosen = LocalPlan((1.0,) * 5, 4, 1e-12, Mechanism(CLIP, 3.0), optimizer="sgd")
    result = train_locally(
        model,
        data,
        start,
        chosen,
        roles=ROLES,
        uniform=SecureStream().uniform,
        on_step=lambda done, _: steps.append(done),
    )
    assert steps == [1, 2, 3, 4, 5]
    deviation = 3.0 * CLIP / 4 * np.sqrt(5)
    statistic = float(np.sum((result.delta.astype(np.float64) / deviation) ** 2))
    assert 1e-6 < stats.chi2.cdf(statistic, df=result.delta.size) < 1 - 1e-6
    model.write_vector(start)


def test_noise_is_added_once_per_logical_step(model: AdaptedModel, data: EncodedDataSet) -> None:
    """Many physical batches, gradients clipped to nothing visible: the variance is still that of one noise draw."""
    start = model.read_vector()
    chosen = LocalPlan((1.0,), 1, 1.0, Mechanism(1e-6, 1e6), optimizer="sgd", physical_batch_size=1)
    result = train_locally(model, data, start, chosen, roles=ROLES, uniform=SecureStream().uniform)
    statistic = float(np.sum(result.delta.astype(np.float64) ** 2))
    assert 1e-6 < stats.chi2.cdf(statistic, df=result.delta.size) < 1 - 1e-6
    model.write_vector(start)


def test_a_penalty_moves_the_adapter_after_the_noisy_step(model: AdaptedModel, data: EncodedDataSet) -> None:
    """A penalty in the loss would be overwritten or clipped; this one has the last word, at the step's own rate."""
    seen: list[tuple[float, AdapterVector]] = []

    class Pull:
        def pull(self, adapted: AdaptedModel, rate: float) -> None:
            seen.append((rate, adapted.read_vector()))
            adapted.write_vector(start + 1.0)

    start = model.read_vector()
    result = train_locally(model, data, start, plan(), roles=ROLES, uniform=SecureStream().uniform, penalty=Pull())
    np.testing.assert_allclose(result.delta, 1.0, atol=1e-5)
    assert [rate for rate, _ in seen] == list(plan().learning_rates)
    assert not np.array_equal(seen[0][1], start)
    model.write_vector(start)


def test_hooks_that_hold_other_parameters_are_found_at_the_first_step(
    model: AdaptedModel, data: EncodedDataSet
) -> None:
    class Stale(type(model)):  # type: ignore[misc]
        def set_trainable(self, roles: Sequence[str]) -> list[nn.Parameter]:
            return [nn.Parameter(p.detach().clone()) for p in super().set_trainable(roles)]

    original, start = model.__class__, model.read_vector()
    model.__class__ = Stale
    try:
        with pytest.raises((NotPrivate, ValueError)):
            train_locally(model, data, start, plan(noise=1.0), roles=ROLES, uniform=SecureStream().uniform)
    finally:
        model.__class__ = original
        model.write_vector(start)


def test_the_model_carries_no_hooks_after_training(model: AdaptedModel, data: EncodedDataSet) -> None:
    start = model.read_vector()
    for _ in range(2):
        train_locally(model, data, start, plan(noise=1.0), roles=ROLES, uniform=SecureStream().uniform)
    assert not hasattr(model, "autograd_grad_sample_hooks")
    model.write_vector(start)


def test_without_privacy_the_step_is_plain_gradient_descent(model: AdaptedModel, data: EncodedDataSet) -> None:
    start = model.read_vector()
    result = train_locally(
        model, data, start, plan(private=False, batch=12), roles=ROLES, uniform=np.random.default_rng(0).random
    )
    model.write_vector(start)
    parameters = model.set_trainable(ROLES)
    batch = collate(data.examples, 0)
    loss = per_example_loss(model(batch), batch).sum() / 12
    expected = -torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).numpy()
    np.testing.assert_allclose(result.delta, expected, atol=1e-5)
