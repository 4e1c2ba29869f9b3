"""Exports: stock peft and stock transformers reproduce what the adapted model computes."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from fedft.errors import ModelError, StorageError
from fedft.model.adapter import AdaptedModel
from fedft.model.base import TaskKind, load_base_model
from fedft.model.export import export_adapter, merge_and_save
from fedft.model.vector import vector_digest
from tests.model.test_adapter import adapted, random_vector, rows
from tests.tiny import tiny_bert, tiny_gpt2, tiny_llama

Maker = Callable[[Path], Path]
CASES = pytest.mark.parametrize(
    ("make", "task"),
    [
        (tiny_bert, "classification"),
        (tiny_llama, "classification"),
        (tiny_gpt2, "classification"),
        (tiny_llama, "instruction"),
        (tiny_gpt2, "instruction"),
    ],
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    return folder


def trained(folder: Path, task: TaskKind = "classification", **changes: Any) -> AdaptedModel:
    model = adapted(folder, task=task, rank=3, **changes).eval()
    model.write_vector(random_vector(model))
    return model


def stock_logits(network: Any, folder: Path, task: TaskKind) -> Tensor:
    """What a user computes with the exported files and no code of ours."""
    batch = rows(5, 9, generative=task == "instruction")
    output = network(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    if task == "instruction":
        return torch.as_tensor(output.logits)
    head = load_file(folder / "head.safetensors")
    mask = batch.attention_mask.unsqueeze(-1)
    pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    return torch.as_tensor(pooled @ head["head.weight"].T + head["head.bias"])


@CASES
@pytest.mark.parametrize("rslora", [False, True])
def test_stock_peft_loads_the_exported_adapter_and_computes_the_same(
    make: Maker, task: TaskKind, rslora: bool, base: Path, tmp_path: Path
) -> None:
    model = trained(make(base), task, rslora=rslora)
    export_adapter(model, tmp_path / "adapter", labels=("a", "b", "c") if task == "classification" else None)
    loader = AutoModelForCausalLM if task == "instruction" else AutoModel
    network = PeftModel.from_pretrained(loader.from_pretrained(base), tmp_path / "adapter").eval()
    batch = rows(5, 9, generative=task == "instruction")
    torch.testing.assert_close(stock_logits(network, tmp_path / "adapter", task), model(batch), atol=1e-5, rtol=1e-5)
    plain = loader.from_pretrained(base).eval()
    assert not torch.allclose(stock_logits(plain, tmp_path / "adapter", task), model(batch), atol=1e-3)


@CASES
def test_the_merged_model_computes_the_same_and_leaves_ours_as_it_was(
    make: Maker, task: TaskKind, base: Path, tmp_path: Path
) -> None:
    model = trained(make(base), task)
    batch = rows(5, 9, generative=task == "instruction")
    before, logits = model.read_vector(), model(batch)
    merge_and_save(model, tmp_path / "merged")
    assert np.array_equal(model.read_vector(), before)
    assert torch.equal(model(batch), logits)
    loader = AutoModelForCausalLM if task == "instruction" else AutoModel
    network = loader.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(stock_logits(network, tmp_path / "merged", task), logits, atol=1e-5, rtol=1e-5)
    assert load_base_model(str(tmp_path / "merged"), task=task).digest != model.base_digest
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer("w1 w2")["input_ids"] == model.tokenizer("w1 w2")["input_ids"]


def test_the_merged_model_keeps_the_dropout_of_its_files(base: Path, tmp_path: Path) -> None:
    merge_and_save(trained(tiny_bert(base)), tmp_path / "merged")
    config = AutoConfig.from_pretrained(tmp_path / "merged")
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.1, 0.1)


def test_fedft_json_says_what_peft_has_no_place_for(base: Path, tmp_path: Path) -> None:
    model = trained(tiny_bert(base))
    export_adapter(model, tmp_path / "adapter", labels=("a", "b", "é"))
    about = json.loads((tmp_path / "adapter" / "fedft.json").read_text(encoding="utf-8"))
    assert about["label"] == "fedft/v1/export"
    assert about["labels"] == ["a", "b", "é"]
    assert (about["pooling"], about["base"], about["merged"]) == ("mean", str(base), False)
    assert about["base_digest"] == model.base_digest
    assert about["layout"] == model.layout.as_json()
    assert about["adapter_digest"] == vector_digest(model.read_vector())


def test_the_same_adapter_gives_the_same_files(base: Path, tmp_path: Path) -> None:
    model = trained(tiny_bert(base), target_modules=("value", "query", "key", "intermediate.dense"))
    for name in ("one", "two"):
        export_adapter(model, tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "fedft.json", "head.safetensors"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])


def test_a_head_alone_has_no_peft_adapter(base: Path, tmp_path: Path) -> None:
    export_adapter(trained(tiny_bert(base), method="head"), tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == ["fedft.json", "head.safetensors"]


def test_a_base_whose_files_changed_is_not_merged(base: Path, tmp_path: Path) -> None:
    model = trained(tiny_bert(base))
    tiny_bert(base, seed=3)
    with pytest.raises(ModelError, match="expected base model digest"):
        merge_and_save(model, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_layer_that_shares_its_weight_is_not_merged(base: Path, tmp_path: Path) -> None:
    model = trained(tiny_llama(base), "instruction", target_modules=("q_proj", "lm_head"))
    with pytest.raises(ModelError, match="lm_head to have a weight of its own"):
        merge_and_save(model, tmp_path / "merged")


def test_an_export_replaces_the_one_before_or_leaves_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = trained(tiny_bert(base)), tmp_path / "adapter"
    export_adapter(model, folder, labels=("a", "b", "c"))
    export_adapter(model, folder, labels=("d", "e", "f"))
    assert json.loads((folder / "fedft.json").read_text())["labels"] == ["d", "e", "f"]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedft.model.checkpoint.os.fsync", full)
    with pytest.raises(StorageError, match="no space left"):
        export_adapter(model, folder, labels=("g", "h", "i"))
    assert json.loads((folder / "fedft.json").read_text())["labels"] == ["d", "e", "f"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize("write", [export_adapter, merge_and_save])
def test_a_folder_that_holds_something_else_is_not_replaced(
    base: Path, tmp_path: Path, write: Callable[[AdaptedModel, Path], None]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    model = trained(tiny_bert(base))
    with pytest.raises(StorageError, match="found other files in it"):
        write(model, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("write", [export_adapter, merge_and_save])
def test_a_disk_that_fills_up_in_a_library_is_an_error(
    base: Path, tmp_path: Path, write: Callable[[AdaptedModel, Path], None]
) -> None:
    """The system refuses files above 2 KiB, as a full disk would: the weights are written by safetensors, not by us."""
    model, limits = trained(tiny_bert(base)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        with pytest.raises(StorageError, match="File too large"):
            write(model, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
