"""The base model: found, digested, loaded, frozen. Every institution computes with the same bytes or refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from packaging.version import Version
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from fedft.errors import ModelError
from fedft.model.files import digest_of
from fedft.model.files import resolve_base as resolve_base
from fedft.types import Digest

TaskKind = Literal["classification", "instruction"]

OLDEST_BITSANDBYTES = "0.50.2"
"""What the tests run with; older releases have no 4-bit layers on a CPU, or others."""

BLOCK = 64
"""Values that share a scale in bitsandbytes' 4-bit layers."""


@dataclass(frozen=True, repr=False)
class BaseModel:
    """A frozen base model on its device, or spread over several.

    model: the backbone (classification) or the causal language model (instruction), every parameter frozen, every
    dropout 0. digest: see ``digest_of``. device: where it reads its input and gives its output. source: what was asked
    for; folder: where it was found. config: as its files say, dropout included. parameters: how many, before any
    adapter.
    """

    model: nn.Module
    tokenizer: Any
    task: TaskKind
    digest: Digest
    device: torch.device
    source: str
    folder: Path
    revision: str | None
    config: Any
    parameters: int

    @property
    def hidden_size(self) -> int:
        return int(self.config.get_text_config().hidden_size)

    @property
    def architecture(self) -> str:
        """The model type of its configuration, e.g. "bert"."""
        return str(self.config.model_type)

    def __repr__(self) -> str:
        return f"BaseModel(architecture={self.architecture!r}, task={self.task!r}, digest={self.digest[:12]})"


def load_base_model(
    base: str,
    *,
    task: TaskKind,
    device: str = "auto",
    dtype: str = "float32",
    quantization: str = "none",
    revision: str | None = None,
    sha256: str | None = None,
) -> BaseModel:
    """Load, freeze and switch off dropout.

    Guarantee: every weight the task uses comes from the digested files; nothing is unpickled, no code of the model's
    repository runs, and with ``sha256`` no weight is read before the digest was found equal.

    Parameters
    ----------
    base
        A folder in Hugging Face's format, a hub id, or "package:MODULE/sub/folder" inside an installed package.
    device
        "auto" (CUDA when there is one), "cpu", "cuda" (the first GPU in sight), or "cuda-all": layers spread over all
        GPUs in sight, by transformers and accelerate.

    Raises
    ------
    ModelError
        No model there, another digest than ``sha256``, a model that cannot do the task, no CUDA where it was asked for,
        a quantization that is unknown or lacks its package, or GPUs that do not hold the base together.
    """
    placement = _placement(device)
    quantized = _quantization(quantization, getattr(torch, dtype))
    folder = Path(resolve_base(base, revision=revision))
    digest = digest_of(folder)
    if sha256 is not None and digest != sha256:
        raise ModelError(
            f"expected base model digest {sha256}, found {digest} for {base}: "
            "use the files the federation agreed on, or correct model.sha256"
        )
    with quietly():
        config = _config(folder)
        _require_task(config, task, base)
        tokenizer = _tokenizer(folder)
        model = _weights(folder, config, task, getattr(torch, dtype), quantized, placement)
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    count: Any = model.num_parameters()  # type: ignore[operator]
    entry: torch.device = model.get_input_embeddings().weight.device  # type: ignore[operator]
    return BaseModel(model, tokenizer, task, digest, entry, base, folder, revision, config, int(count))


def _placement(device: str) -> torch.device | str:
    """One device for all layers, or "auto" for transformers to spread them."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError('expected a CUDA device, found none: set training.device to "auto" or "cpu"')
    return "auto" if device == "cuda-all" else torch.device(device)


def _config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"expected a model configuration of an architecture transformers knows in {folder}, found none "
            f"({type(error).__name__}): models that bring their own code are not loaded"
        ) from error


def _require_task(config: Any, task: TaskKind, base: str) -> None:
    if config.is_encoder_decoder:
        raise ModelError(f"expected an encoder or a causal language model, found an encoder-decoder ({base})")
    if task == "instruction" and (is_encoder(config) or config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        raise ModelError(
            f"expected a causal language model for instruction tuning, found {config.model_type} ({base}): "
            'choose another model.base, or task.kind = "classification"'
        )


def is_encoder(config: Any) -> bool:
    """Whether every token sees every other: such models have a masked-language-model form."""
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_decoder


def _tokenizer(folder: Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise anything, bare Exception included, on a damaged file
        raise ModelError(
            f"expected a tokenizer beside the model in {folder}, found none that loads ({type(error).__name__}): "
            "save it there with save_pretrained"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"expected a fast tokenizer (tokenizer.json) in {folder}, found a slow one: convert it first")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"expected a padding, end or unknown token in the tokenizer of {folder}, found none: define one"
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer


def _weights(
    folder: Path, config: Any, task: TaskKind, dtype: torch.dtype, quantized: Any, placement: Any
) -> nn.Module:
    loader = AutoModel if task == "classification" else AutoModelForCausalLM
    options: dict[str, Any] = {"quantization_config": quantized} if quantized else {}
    whole = isinstance(placement, torch.device)
    if quantized or not whole:
        options["device_map"] = {"": placement} if whole else placement
    plain = _without_dropout(deepcopy(config))
    plain.use_cache = False
    options |= {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    loaded: Any
    try:
        loaded = loader.from_pretrained(folder, config=plain, dtype=dtype, **options)
    except Exception as error:  # safetensors, transformers and torch each raise kinds of their own on a damaged file
        raise ModelError(
            f"expected weights of {config.model_type} in {folder}, found a file that does not load "
            f"({type(error).__name__}): fetch the model again"
        ) from error
    model: nn.Module = loaded[0]
    _require_complete(model, loaded[1], folder)
    if not whole:
        _require_on_gpus(model)
    if whole and not quantized:
        return model.to(placement)
    _prepare_quantized(model)
    return model


def _require_complete(model: nn.Module, report: Any, folder: Path) -> None:
    """Refuse weights that transformers would draw at random; a missing pooler, unused by any task, becomes zeros."""
    missing = sorted(report["missing_keys"])
    used = [name for name in missing if "pooler" not in name.split(".")]
    wrong = len(report["mismatched_keys"])
    if used or wrong:
        raise ModelError(
            f"expected every weight of the model in {folder}, found {len(used)} missing and {wrong} of another shape "
            f"({', '.join(used[:3])}): fetch the model again, or correct its config.json"
        )
    for name in missing:
        model.get_parameter(name).data.zero_()


def _prepare_quantized(model: nn.Module) -> None:
    """Keep bitsandbytes from packing, and refuse what it reads wrong: both on a CPU, both found out (LAB.md)."""
    for path, module in model.named_modules():
        if not hasattr(module, "quant_state"):
            continue
        layer: Any = module
        # Where a CPU multiplies bfloat16, a layer is packed at its first evaluation for a product that has no gradient:
        # training after that would go on, wrong without a word.
        layer.support_avx512bf16_for_cpu = False
        if layer.weight.device.type == "cpu" and layer.in_features % BLOCK:
            raise ModelError(
                f"expected layers of input widths that are multiples of {BLOCK}, found {layer.in_features} at {path}, "
                'which bitsandbytes reads wrong on a CPU: set model.quantization = "none"'
            )


def _require_on_gpus(model: nn.Module) -> None:
    """Refuse a base of which accelerate keeps a part on the host or the disk, to fetch it at each use."""
    left = sum(parameter.device.type in ("cpu", "meta") for parameter in model.parameters())
    if left:
        raise ModelError(
            f"expected the GPUs in sight to hold the base, found {left} of its tensors left to the host: show more "
            'GPUs in CUDA_VISIBLE_DEVICES, or set model.quantization = "nf4"'
        )


def _without_dropout(config: Any) -> Any:
    """``config`` with every dropout probability set to 0: some architectures read it from there at each forward."""
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            _without_dropout(value)
        elif "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    return config


def _quantization(kind: str, dtype: torch.dtype) -> Any:
    """4-bit NormalFloat that computes in ``dtype``. Guarantee: no row's result depends on another row of its batch."""
    if kind == "none":
        return None
    if kind != "nf4":
        raise ModelError(
            f'expected quantization "none" or "nf4", found "{kind}": with int8 a row of large values changes what its '
            'batch computes for others, so that no clip norm bounds it; set model.quantization = "nf4"'
        )
    try:
        found = version("bitsandbytes")
    except PackageNotFoundError:
        found = "none"
    if found == "none" or Version(found) < Version(OLDEST_BITSANDBYTES):
        raise ModelError(
            f'expected bitsandbytes {OLDEST_BITSANDBYTES} or newer for quantization "nf4", found {found}: '
            f"pip install 'bitsandbytes>={OLDEST_BITSANDBYTES}', or set model.quantization = \"none\""
        )
    options: dict[str, Any] = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return BitsAndBytesConfig(load_in_4bit=True, **options)  # type: ignore[no-untyped-call]


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' warnings and progress bars; what matters in them is raised as an error above."""
    log: Any = transformers_logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
