"""What leaves fedft for other programs: a PEFT adapter folder that stock peft loads, and a merged model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from fedft.errors import ModelError, StorageError
from fedft.model.adapter import AdaptedModel
from fedft.model.base import BaseModel, load_base_model, quietly
from fedft.model.checkpoint import whole_folder
from fedft.model.targets import is_conv1d
from fedft.model.vector import vector_digest

EXPORT_LABEL = "fedft/v1/export"
ABOUT, HEAD = "fedft.json", "head.safetensors"


def export_adapter(model: AdaptedModel, folder: Path, *, labels: Sequence[str] | None = None) -> None:
    """Write the adapter as ``PeftModel.from_pretrained(base, folder)`` reads it, and beside it what PEFT does not hold.

    head.safetensors holds the classification head (head.weight (K, h), head.bias (K,)); fedft.json names labels,
    pooling, base model and digests. Without LoRA there is no PEFT adapter, only these two. Replaces an earlier export
    whole; raises StorageError when the disk refuses, or when ``folder`` holds anything else.
    """
    _require_ours(folder)
    with whole_folder(folder) as target:
        if model.peft_config is not None:
            _write_peft(model, deepcopy(model.peft_config), target)
        _write_head(model, target)
        _write_about(model, target, labels, merged=False)


def merge_and_save(model: AdaptedModel, folder: Path, *, labels: Sequence[str] | None = None) -> None:
    """Write the base with ΔW added to its weights as a Hugging Face model, its tokenizer, and the head as above.

    The base is read again from its files, unquantized and in their own dtype, so that the model in memory stays as it
    is. Raises ModelError when the files have changed since, or when an adapted layer shares its weight with another.
    """
    _require_ours(folder)
    base = _fresh(model.base)
    tensors = {name: parameter.detach().cpu() for name, parameter in model.named_adapter_parameters().items()}
    for path, a, b in model.layout.lora_pairs():
        _add(base.model, path, model.layout.scaling * tensors[b.name].double() @ tensors[a.name].double())
    network: Any = base.model
    network.config = deepcopy(base.config)
    with whole_folder(folder) as target, quietly():
        network.save_pretrained(target)
        base.tokenizer.save_pretrained(target)
        _write_head(model, target)
        _write_about(model, target, labels, merged=True)


def _require_ours(folder: Path) -> None:
    """An export replaces its folder: refuse one that holds something else."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ABOUT).is_file():
        raise StorageError(
            f"expected {folder} to be new, empty or an earlier export, found other files in it: choose another folder"
        )


def _fresh(base: BaseModel) -> BaseModel:
    dtype = str(base.config.dtype or torch.float32).removeprefix("torch.")
    return load_base_model(str(base.folder), task=base.task, device="cpu", dtype=dtype, sha256=base.digest)


@torch.no_grad()
def _add(network: nn.Module, path: str, change: torch.Tensor) -> None:
    """Add ``change`` (d_out, d_in) to the layer's weight, the sum taken in float64."""
    layer = network.get_submodule(path)
    weight = layer.get_parameter("weight")
    if sum(other is weight for _, other in network.named_parameters(remove_duplicate=False)) > 1:
        raise ModelError(
            f"expected {path} to have a weight of its own, found it shared with another layer: "
            "export the adapter instead, or leave the layer out of adapter.target_modules"
        )
    weight.copy_(weight.double() + (change.T if is_conv1d(layer) else change))


def _write_peft(model: AdaptedModel, config: Any, target: Path) -> None:
    config.inference_mode = True
    config.save_pretrained(str(target))
    written = target / "adapter_config.json"
    body = json.loads(written.read_text())
    body["target_modules"] = sorted(body["target_modules"])  # PEFT holds a set, whose order changes from run to run
    written.write_text(json.dumps(body, indent=2, sort_keys=True, allow_nan=False))
    tensors = {
        f"base_model.model.{name}.weight": parameter.detach().cpu().contiguous()
        for name, parameter in model.named_adapter_parameters().items()
        if not name.startswith("head.")
    }
    save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})


def _write_head(model: AdaptedModel, target: Path) -> None:
    if model.task_kind == "classification":
        tensors = {f"head.{name}": p.detach().cpu().contiguous() for name, p in model.head.named_parameters()}
        save_file(tensors, target / HEAD, metadata={"format": "pt"})


def _write_about(model: AdaptedModel, target: Path, labels: Sequence[str] | None, *, merged: bool) -> None:
    base, settings = model.base, model.settings
    about = {
        "label": EXPORT_LABEL,
        "merged": merged,
        "task": base.task,
        "base": base.source,
        "revision": base.revision,
        "base_digest": base.digest,
        "method": settings.method,
        "pooling": settings.pooling if base.task == "classification" else None,
        "labels": None if labels is None else list(labels),
        "layout": model.layout.as_json(),
        "layout_digest": model.layout.digest,
        "adapter_digest": vector_digest(model.read_vector()),
    }
    text = json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False)
    (target / ABOUT).write_text(text + "\n", encoding="utf-8")
