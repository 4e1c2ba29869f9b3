"""The adapter as one vector: layout, start, reading and writing, what is trained, and in which dtype."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from fedft.data.formats import Batch, EncodedExample, collate
from fedft.errors import LayoutMismatch, ModelError
from fedft.model.adapter import AdaptedModel, attach_adapter, forbidden_for_dp
from fedft.model.base import TaskKind, load_base_model
from fedft.training.dp_sgd import per_row_gradients
from fedft.training.losses import per_example_loss
from fedft.types import ALL_ROLES, Role
from tests.tiny import tiny_bert, tiny_gpt2, tiny_llama

Maker = Callable[[Path], Path]
MAKERS = pytest.mark.parametrize("make", [tiny_bert, tiny_llama, tiny_gpt2], ids=["bert", "llama", "gpt2"])


def adapted(folder: Path, task: TaskKind = "classification", dtype: str = "float32", **changes: Any) -> AdaptedModel:
    options: dict[str, Any] = {
        "method": "lora", "rank": 2, "alpha": 4.0, "target_modules": None, "dropout": 0.0, "rslora": False,
        "num_labels": 3 if task == "classification" else None, "pooling": "mean", "seed": 1, "orthonormal_a": False,
    }  # fmt: skip
    return attach_adapter(load_base_model(str(folder), task=task, dtype=dtype), **(options | changes))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def rows(*lengths: int, generative: bool = False) -> Batch:
    rng = np.random.default_rng(0)
    examples = []
    for number, length in enumerate(lengths):
        ids = rng.integers(4, 64, size=length)
        mask = np.arange(length) >= 2 if generative else None
        examples.append(EncodedExample(ids, -1 if generative else number % 3, mask, number))
    return collate(examples, 0)


def random_vector(model: AdaptedModel, seed: int = 0, scale: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, model.layout.size).astype(np.float32)


@MAKERS
def test_names_roles_and_shapes_of_the_layout(make: Maker, tmp_path: Path) -> None:
    model = adapted(make(tmp_path))
    names = list(model.named_adapter_parameters())
    assert names == [spec.name for spec in model.layout.tensors]
    assert names[-2:] == ["head.weight", "head.bias"]
    assert names[:-2] == [f"{path}.{role}" for path in model.lora_modules() for role in ("lora_A", "lora_B")]
    for path, a, b in model.layout.lora_pairs():
        layer: Any = model.lora_modules()[path]
        d_in, d_out = layer.in_features, layer.out_features
        assert (a.shape, b.shape) == ((2, d_in), (d_out, 2))
    assert [spec.shape for spec in model.layout.tensors[-2:]] == [(3, 16), (3,)]
    assert (model.layout.scaling, model.base_parameters) == (2.0, model.base.parameters)


def test_the_layout_is_the_same_in_every_process_and_differs_with_base_rank_scale_and_targets(
    bert: Path, tmp_path: Path
) -> None:
    digest = adapted(bert).layout.digest
    assert adapted(bert, seed=2, dropout=0.1).layout.digest == digest
    others = [
        adapted(tiny_bert(tmp_path, seed=5)),
        adapted(bert, rank=3),
        adapted(bert, alpha=8.0),
        adapted(bert, rslora=True),
        adapted(bert, target_modules=("query",)),
        adapted(bert, num_labels=4),
        adapted(bert, method="head"),
    ]
    assert len({digest, *(model.layout.digest for model in others)}) == 1 + len(others)


def test_rslora_scales_by_the_root_of_the_rank(bert: Path) -> None:
    model = adapted(bert, rslora=True, rank=4, alpha=6.0)
    assert model.layout.scaling == 3.0
    layers: list[Any] = list(model.lora_modules().values())
    assert {layer.scaling["default"] for layer in layers} == {3.0}


def test_the_start_is_drawn_from_the_seed_alone_and_changes_nothing(bert: Path) -> None:
    torch.manual_seed(1)
    one = adapted(bert)
    torch.manual_seed(2)
    two, other = adapted(bert), adapted(bert, seed=2)
    assert np.array_equal(one.start_vector(), two.start_vector())
    assert np.array_equal(one.read_vector(), one.start_vector())
    assert not np.array_equal(one.start_vector(), other.start_vector())
    tensors = one.layout.unflatten(one.start_vector())
    for spec in one.layout.tensors:
        assert bool(tensors[spec.name].any()) == (spec.role == "lora_A")
    assert np.abs(tensors["encoder.layer.0.attention.self.query.lora_A"]).max() <= 16**-0.5
    assert torch.equal(one(rows(5, 7)), torch.zeros(2, 3))


@MAKERS
def test_an_orthonormal_start_has_orthonormal_rows(make: Maker, tmp_path: Path) -> None:
    model = adapted(make(tmp_path), orthonormal_a=True)
    tensors = model.layout.unflatten(model.start_vector())
    for _, a, _ in model.layout.lora_pairs():
        np.testing.assert_allclose(tensors[a.name] @ tensors[a.name].T, np.eye(2), atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1.0, 1e30]))
def test_what_is_written_is_read_bit_for_bit(written: AdaptedModel, seed: int, scale: float) -> None:
    vector = random_vector(written, seed, scale)
    held = list(written.named_adapter_parameters().values())
    addresses = [parameter.data_ptr() for parameter in held]
    written.write_vector(vector)
    assert np.array_equal(written.read_vector(), vector)
    assert [p.data_ptr() for p in written.named_adapter_parameters().values()] == addresses
    assert all(a is b for a, b in zip(held, written.named_adapter_parameters().values(), strict=True))
    tensors = written.layout.unflatten(vector)
    assert all(np.array_equal(p.detach().numpy(), tensors[n]) for n, p in written.named_adapter_parameters().items())


@pytest.fixture(scope="module")
def written(bert: Path) -> AdaptedModel:
    return adapted(bert)


def test_neither_vector_shares_memory_with_the_model(bert: Path) -> None:
    model = adapted(bert)
    vector = random_vector(model)
    model.write_vector(vector)
    kept, read = vector.copy(), model.read_vector()
    vector[:] = 7.0
    assert np.array_equal(model.read_vector(), kept)
    read[:] = 7.0
    assert np.array_equal(model.read_vector(), kept)
    kept.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.write_vector(kept)


@pytest.mark.parametrize("change", [lambda v: v[:-1], lambda v: v.astype(np.float64), lambda v: v[None]])
def test_a_vector_of_another_layout_is_refused(bert: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    model = adapted(bert)
    before = model.read_vector()
    with pytest.raises(LayoutMismatch, match="expected float32 of shape"):
        model.write_vector(change(before))
    assert np.array_equal(model.read_vector(), before)


@MAKERS
def test_the_adapted_layers_compute_what_the_layout_says(make: Maker, tmp_path: Path) -> None:
    """Each adapted layer's output is W x + s B A x, GPT-2's transposed weights included."""
    model = adapted(make(tmp_path)).eval()
    vector = random_vector(model)
    model.write_vector(vector)
    tensors = {name: torch.from_numpy(value) for name, value in model.layout.unflatten(vector).items()}
    for path, a, b in model.layout.lora_pairs():
        layer: Any = model.lora_modules()[path]
        x = torch.randn(2, 5, a.shape[1], generator=torch.Generator().manual_seed(3))
        change = model.layout.scaling * tensors[b.name] @ tensors[a.name]
        torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ change.T, atol=1e-5, rtol=1e-5)


@MAKERS
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_does_not_change_a_row(make: Maker, pooling: str, tmp_path: Path) -> None:
    if pooling == "cls" and make is not tiny_bert:
        with pytest.raises(ModelError, match="whose first token sees no other"):
            adapted(make(tmp_path), pooling=pooling)
        return
    model = adapted(make(tmp_path), pooling=pooling).eval()
    model.write_vector(random_vector(model))
    together = model(rows(4, 11, 7))
    assert together.shape == (3, 3)
    torch.testing.assert_close(together[:1], model(rows(4)), atol=1e-5, rtol=1e-5)


def test_mean_pooling_is_the_mean_over_the_rows_own_tokens(bert: Path) -> None:
    model = adapted(bert).eval()
    model.write_vector(random_vector(model))
    batch = rows(4, 9)
    network: Any = model.backbone
    states = network(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    expected = model.head(torch.stack([states[0, :4].mean(0), states[1, :9].mean(0)]))
    torch.testing.assert_close(model(batch), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def test_a_language_model_gives_logits_for_every_token_and_has_no_head(make: Maker, tmp_path: Path) -> None:
    model = adapted(make(tmp_path), task="instruction")
    assert model(rows(5, 7, generative=True)).shape == (2, 7, 64)
    assert {spec.role for spec in model.layout.tensors} == {"lora_A", "lora_B"}
    assert (model.num_labels, model.task_kind) == (None, "instruction")


@pytest.mark.parametrize("roles", [("lora_B", "head"), ("head", "lora_B"), ("lora_A",), (), ALL_ROLES])
def test_exactly_the_chosen_roles_are_trained(bert: Path, roles: tuple[Role, ...]) -> None:
    model = adapted(bert)
    for parameter in model.named_adapter_parameters().values():
        parameter.grad = torch.ones_like(parameter)
    chosen = model.set_trainable(roles)
    expected = [spec.name for spec in model.layout.only(roles).tensors]
    by_identity = {id(parameter): name for name, parameter in model.named_adapter_parameters().items()}
    assert [by_identity[id(parameter)] for parameter in chosen] == expected
    assert [p for p in model.parameters() if p.requires_grad] == [
        p for p in model.parameters() if id(p) in map(id, chosen)
    ]
    assert all(parameter.grad is None for parameter in model.parameters())


@MAKERS
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_adapter_and_head_are_float32_on_a_narrow_base_and_private_gradients_too(
    make: Maker, dtype: str, tmp_path: Path
) -> None:
    folder = make(tmp_path)
    narrow, wide = adapted(folder, dtype=dtype), adapted(folder)
    batch, vector = rows(4, 9, 6), random_vector(wide, scale=0.1)
    for model in (narrow, wide):
        model.write_vector(vector)
        model.train()
    assert np.array_equal(narrow.read_vector(), vector)
    logits = narrow(batch)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, wide(batch), atol=0.02, rtol=0.05)
    parameters = narrow.set_trainable(ALL_ROLES)
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    found = per_row_gradients(narrow, parameters, lambda: per_example_loss(narrow(batch), batch))
    exact = per_row_gradients(
        wide, wide.set_trainable(ALL_ROLES), lambda: per_example_loss(wide(batch), batch)
    )  # fmt: skip
    assert {gradient.dtype for gradient in found} == {torch.float32}
    flat, reference = (torch.cat([g.flatten(1) for g in gradients], dim=1) for gradients in (found, exact))
    assert float((flat - reference).norm() / reference.norm()) < 0.1


def test_under_autocast_the_head_stays_float32(bert: Path) -> None:
    model = adapted(bert)
    model.write_vector(random_vector(model))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(rows(4, 9))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model(rows(4, 9)), atol=0.05, rtol=0.05)


def test_the_head_alone(bert: Path) -> None:
    model = adapted(bert, method="head", rank=10**6)
    assert [spec.name for spec in model.layout.tensors] == ["head.weight", "head.bias"]
    assert (model.lora_modules(), model.layout.scaling) == ({}, 1.0)
    parameters = model.set_trainable(("lora_B", "head"))
    per_example_loss(model(rows(4, 9)), rows(4, 9)).sum().backward()  # type: ignore[no-untyped-call]
    assert parameters[0].grad is not None
    assert float(parameters[0].grad.abs().sum()) > 0


def test_lora_dropout_is_active_in_training_only(bert: Path) -> None:
    model = adapted(bert, dropout=0.5)
    model.write_vector(random_vector(model, scale=1.0))
    batch = rows(9, 9)
    assert not torch.equal(model.train()(batch), model(batch))
    assert torch.equal(model.eval()(batch), model(batch))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 17}, "rank of at most 16 for .*query"),
        ({"target_modules": ("nothing",)}, 'expected a layer "nothing", found none'),
        ({"num_labels": None}, "at least one label"),
        ({"num_labels": 0}, "at least one label"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(bert: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        adapted(bert, **changes)


@pytest.mark.parametrize("changes", [{"method": "head"}, {"num_labels": 3}])
def test_a_head_on_a_language_model_is_refused(llama: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="found a head"):
        adapted(llama, task="instruction", **changes)


def test_a_second_adapter_on_one_base_is_refused(bert: Path) -> None:
    model = adapted(bert)
    with pytest.raises(ModelError, match="load the base model again"):
        attach_adapter(
            model.base, method="lora", rank=2, alpha=4.0, target_modules=None, dropout=0.0, rslora=False, num_labels=3,
            pooling="mean", seed=1, orthonormal_a=False,
        )  # fmt: skip


@MAKERS
def test_nothing_is_forbidden_on_what_attach_makes(make: Maker, tmp_path: Path) -> None:
    model = adapted(make(tmp_path))
    model.set_trainable(ALL_ROLES)
    assert forbidden_for_dp(model) == []


def test_what_cannot_be_private_is_named(llama: Path) -> None:
    model = adapted(llama)
    network: Any = model.backbone
    network.norm.weight.requires_grad_(True)
    path = next(iter(model.lora_modules()))
    layer: Any = model.lora_modules()[path]
    layer.use_dora["default"] = True
    network.layers.append(torch.nn.BatchNorm1d(4, affine=False))
    network.gradient_checkpointing_enable({"use_reentrant": False})
    found = forbidden_for_dp(model)
    assert found[0] == "trainable backbone.norm.weight"
    assert f"DoRA on {path}" in found
    assert "batch normalisation layers.2" in found
    assert any(name.startswith("non-reentrant gradient checkpointing") for name in found)


def test_reentrant_checkpointing_is_allowed(llama: Path) -> None:
    model = adapted(llama)
    network: Any = model.backbone
    network.gradient_checkpointing_enable({"use_reentrant": True})
    assert forbidden_for_dp(model) == []
    assert network.layers[0]._gradient_checkpointing_func.func is checkpoint
