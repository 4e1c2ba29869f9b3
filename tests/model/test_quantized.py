"""A 4-bit base on a CPU: what private training, evaluation and export promise holds over it. Needs bitsandbytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from fedft.data.formats import Batch, EncodedDataSet, EncodedExample, collate
from fedft.errors import ModelError
from fedft.model import base as base_module
from fedft.model.adapter import AdaptedModel, attach_adapter
from fedft.model.base import TaskKind, load_base_model
from fedft.model.export import merge_and_save
from fedft.model.targets import is_conv1d
from fedft.randomness import SecureStream
from fedft.training.dp_sgd import clip_unit_gradients, per_row_gradients
from fedft.training.local import LocalPlan, Mechanism, sum_gradients, train_locally
from fedft.training.losses import per_example_loss
from fedft.training.self_test import require_private
from fedft.types import Digest, Role
from tests.tiny import tiny_bert, tiny_gpt2, tiny_llama

pytest.importorskip("bitsandbytes", minversion=base_module.OLDEST_BITSANDBYTES)

EMBEDDED = Path(__file__).parents[2] / "scenarios" / "model"
Maker = Callable[[Path], Path]


def bert(folder: Path) -> Path:
    return tiny_bert(folder, width=64)


def llama(folder: Path) -> Path:
    return tiny_llama(folder, width=64)


def gpt2(folder: Path) -> Path:
    return tiny_gpt2(folder, width=64)


def embedded(folder: Path) -> Path:
    return EMBEDDED


CASES = pytest.mark.parametrize(
    ("make", "task"),
    [
        (bert, "classification"),
        (llama, "classification"),
        (gpt2, "classification"),
        (gpt2, "instruction"),
        (embedded, "classification"),
        (embedded, "instruction"),
    ],
)


def adapted(folder: Path, task: TaskKind = "classification", quantization: str = "nf4") -> AdaptedModel:
    base = load_base_model(str(folder), task=task, device="cpu", quantization=quantization)
    model = attach_adapter(
        base, method="lora", rank=2, alpha=4.0, target_modules=None, dropout=0.0, rslora=False,
        num_labels=3 if task == "classification" else None, pooling="mean", seed=1, orthonormal_a=True,
    )  # fmt: skip
    rng = np.random.default_rng(2)
    model.write_vector(rng.normal(0, 0.3, model.layout.size).astype(np.float32))
    return model


def roles_of(model: AdaptedModel) -> tuple[Role, ...]:
    return ("lora_A", "lora_B", "head") if model.task_kind == "classification" else ("lora_A", "lora_B")


def examples(model: AdaptedModel, count: int = 7) -> list[EncodedExample]:
    """Rows of 3 to 12 tokens, a unit each."""
    rng = np.random.default_rng(3)
    found = []
    for unit in range(count):
        ids = rng.integers(4, len(model.tokenizer), size=int(rng.integers(3, 13)))
        label, mask = (unit % 3, None) if model.task_kind == "classification" else (-1, np.arange(len(ids)) >= 1)
        found.append(EncodedExample(ids, label, mask, unit))
    return found


def batch_of(model: AdaptedModel, rows: list[EncodedExample]) -> Batch:
    return collate(rows, model.tokenizer.pad_token_id)


def data_of(rows: list[EncodedExample]) -> EncodedDataSet:
    units = tuple(np.array([row]) for row in range(len(rows)))
    return EncodedDataSet(tuple(rows), units, fingerprint=Digest("0" * 64), name="rows")


def gradients(model: AdaptedModel, rows: list[EncodedExample]) -> list[torch.Tensor]:
    parameters, batch = model.set_trainable(roles_of(model)), batch_of(model, rows)
    model.train()
    return per_row_gradients(model, parameters, lambda: per_example_loss(model(batch), batch))


@CASES
def test_each_rows_gradient_is_autograds_of_that_row_alone(make: Maker, task: TaskKind, tmp_path: Path) -> None:
    model = adapted(make(tmp_path), task)
    assert "Linear4bit" in {type(module).__name__ for module in model.backbone.modules()}
    rows = examples(model)
    together = gradients(model, rows)
    parameters = model.set_trainable(roles_of(model))
    for number, row in enumerate(rows):
        batch = batch_of(model, [row])
        alone = torch.autograd.grad(per_example_loss(model(batch), batch).sum(), parameters)
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[number], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@CASES
def test_one_unit_moves_the_clipped_sum_by_at_most_the_clip_norm(make: Maker, task: TaskKind, tmp_path: Path) -> None:
    """Each sum is computed from its own rows anew, so that what a row does to the others' gradients counts too."""
    model = adapted(make(tmp_path), task)
    rows = examples(model)
    clip_norm = 0.5 * min(float(torch.cat([g[row].flatten() for g in gradients(model, rows)]).norm()) for row in (0, 1))
    whole, _ = clip_unit_gradients(gradients(model, rows), clip_norm)
    for unit in range(len(rows)):
        without, _ = clip_unit_gradients(gradients(model, rows[:unit] + rows[unit + 1 :]), clip_norm)
        change = torch.cat([(a - b).double().flatten() for a, b in zip(whole, without, strict=True)]).norm()
        assert float(change) <= clip_norm * (1 + 1e-5)


@pytest.mark.parametrize("make", [bert, embedded])
def test_an_evaluation_before_a_step_changes_nothing(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes packs weights at the first evaluation, on some CPUs: gradients then stop at each packed layer."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = adapted(make(tmp_path))
    rows = examples(model)
    before = gradients(model, rows)
    with torch.inference_mode():
        evaluated = model.eval()(batch_of(model, rows))
        trained = model.train()(batch_of(model, rows))
    assert torch.equal(evaluated, trained), "what is evaluated is what was trained"
    for one, other in zip(before, gradients(model, rows), strict=True):
        assert torch.equal(one, other)


@CASES
def test_the_self_test_passes_and_a_private_round_moves_a_float32_adapter(
    make: Maker, task: TaskKind, tmp_path: Path
) -> None:
    model = adapted(make(tmp_path), task)
    roles, rows = roles_of(model), examples(model)
    tested = require_private(model, roles)
    assert tested.gradients < 1e-5
    assert tested.sensitivity <= 1 + 1e-5
    assert {parameter.dtype for parameter in model.named_adapter_parameters().values()} == {torch.float32}
    data = data_of(rows)
    plan = LocalPlan((0.1, 0.1), 4, 0.5, Mechanism(0.1, 1.0), optimizer="sgd", physical_batch_size=3)
    start = model.read_vector()
    frozen = {name: p.detach().clone() for name, p in model.backbone.named_parameters() if not p.requires_grad}
    delta = train_locally(model, data, start, plan, roles=roles, uniform=SecureStream().uniform).delta
    assert delta.dtype == np.float32
    assert np.isfinite(delta).all()
    assert np.abs(delta).max() > 0
    for name, parameter in model.backbone.named_parameters():
        assert name not in frozen or torch.equal(parameter, frozen[name]), "the base stays as it was"


def test_physical_batches_change_nothing_but_rounding(tmp_path: Path) -> None:
    model = adapted(bert(tmp_path))
    rows, start = examples(model), model.read_vector()
    data = data_of(rows)
    sums = [
        sum_gradients(
            model, data, start, LocalPlan((0.1,), 4, 1.0, Mechanism(0.1, 0.0), physical_batch_size=size),
            roles=roles_of(model), uniform=SecureStream().uniform,
        ).total
        for size in (1, 3, 7)
    ]  # fmt: skip
    for other in sums[1:]:
        np.testing.assert_allclose(other, sums[0], atol=1e-6)


def test_digest_layout_and_size_are_those_of_the_base_in_its_files(tmp_path: Path) -> None:
    folder = gpt2(tmp_path)
    four_bits, whole = adapted(folder), adapted(folder, quantization="none")
    assert four_bits.base.digest == whole.base.digest
    assert four_bits.layout.digest == whole.layout.digest
    assert four_bits.base.parameters == whole.base.parameters
    assert not any(p.requires_grad for n, p in four_bits.backbone.named_parameters() if "lora_" not in n)


@pytest.mark.parametrize("make", [bert, llama, gpt2])
def test_a_merged_export_is_the_unquantized_base_with_the_adapter(make: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    model = adapted(make(folder))
    merge_and_save(model, tmp_path / "merged")
    whole = adapted(folder, quantization="none").eval()
    rows = batch_of(whole, examples(whole))
    stock: Any = AutoModel.from_pretrained(tmp_path / "merged").eval()
    with torch.inference_mode():
        expected: Any = whole.backbone(input_ids=rows.input_ids, attention_mask=rows.attention_mask)
        found = stock(input_ids=rows.input_ids, attention_mask=rows.attention_mask)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, rtol=1e-4, atol=1e-4)


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = llama(tmp_path)
    capfd.readouterr()
    load_base_model(str(folder), task="classification", device="cpu", quantization="nf4")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("make", [bert, llama, gpt2, embedded])
def test_4_bit_weights_read_back_as_near_as_normalfloat_is(make: Maker, tmp_path: Path) -> None:
    """A NormalFloat of 4 bits is 9 % off; a kernel that takes another block's scale was 20 to 37 % off."""
    folder = make(tmp_path)
    four_bits = load_base_model(str(folder), task="classification", device="cpu", quantization="nf4").model
    whole = dict(load_base_model(str(folder), task="classification", device="cpu").model.named_modules())
    for path, module in four_bits.named_modules():
        if type(module).__name__ == "Linear4bit":
            read = torch.as_tensor(module(torch.eye(module.in_features)) - (0 if module.bias is None else module.bias))
            weight = torch.as_tensor(whole[path].weight).float()
            expected = weight if weight.shape == read.shape and is_conv1d(whole[path]) else weight.T
            assert float((read - expected).norm() / expected.norm()) < 0.12


def test_a_width_that_a_cpu_reads_wrong_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"multiples of 64, found 16 at .*: set model.quantization"):
        load_base_model(str(tiny_bert(tmp_path)), task="classification", device="cpu", quantization="nf4")
