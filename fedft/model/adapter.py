"""The adapter: LoRA through PEFT on a frozen base, and the task's head. The only import of peft.

Hu et al. 2022, "LoRA". ΔW = s·B·A with A of shape (r, d_in), B of shape (d_out, r) and s = alpha/r, or alpha/√r
(rsLoRA, Kalajdzievski 2023). Adapter and head are float32 whatever the base's dtype: clipped sums and noise must be.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from fedft.errors import ModelError
from fedft.model.base import BaseModel, TaskKind, is_encoder
from fedft.model.targets import choose_targets, is_conv1d
from fedft.model.vector import AdapterLayout, TensorSpec
from fedft.randomness import reproducible_rng
from fedft.types import AdapterVector, Digest, Role

ADAPTER_NAME = "default"

Pooling = Literal["mean", "cls"]


class TokenBatch(Protocol):
    """Rows of tokens padded on the right: input_ids and attention_mask, (n, t) int64."""

    @property
    def input_ids(self) -> Tensor: ...

    @property
    def attention_mask(self) -> Tensor: ...


@dataclass(frozen=True)
class AdapterSettings:
    """What an adapter was made with; with the base model it determines the layout, with the seed its start."""

    method: Literal["lora", "head"]
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    dropout: float
    rslora: bool
    num_labels: int | None
    pooling: Pooling
    seed: int
    orthonormal_a: bool

    @property
    def scaling(self) -> float:
        """s of ΔW = s·B·A; 1 without LoRA."""
        if self.method == "head":
            return 1.0
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


class AdaptedModel(nn.Module):
    """A frozen base with an adapter whose values are one flat vector.

    Guarantee: after ``write_vector(v)``, ``read_vector()`` returns v bit for bit; writing copies in place, so that
    optimizers and Opacus' hooks keep the parameters they hold.
    """

    head: nn.Linear
    """The classification head on pooled features, float32, zeros at the start; absent for instruction tuning."""

    def __init__(
        self, base: BaseModel, settings: AdapterSettings, lora: Mapping[str, nn.Module], peft_config: LoraConfig | None
    ) -> None:
        super().__init__()
        self.base, self.settings, self._lora, self.peft_config = base, settings, dict(lora), peft_config
        self.backbone = base.model
        if base.task == "classification":
            self.head = nn.Linear(base.hidden_size, settings.num_labels or 0, device=base.device, dtype=torch.float32)
        self._parameters_by_name = self._named()
        specs = tuple(TensorSpec(n, tuple(p.shape), _role(n)) for n, p in self._parameters_by_name.items())
        self.layout = AdapterLayout(base.digest, specs, settings.scaling)
        self.write_vector(self.start_vector())

    def forward(self, batch: TokenBatch) -> Tensor:
        """Logits: (n, K) for classification, (n, t, V) for instruction tuning."""
        if self.task_kind == "instruction":
            output: Any = self.backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            return torch.as_tensor(output.logits)
        features = self.pooled(batch)
        with torch.autocast(self.device.type, enabled=False):
            return torch.as_tensor(self.head(features))

    def pooled(self, batch: TokenBatch) -> Tensor:
        """Features of each row, (n, h) float32: what the classification head reads."""
        output: Any = self.backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        with torch.autocast(self.device.type, enabled=False):
            return self._pool(output.last_hidden_state.float(), batch.attention_mask)

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """(n, t, h) float32 -> (n, h): the first token's state, or the mean over the row's own tokens."""
        if self.settings.pooling == "cls":
            return states[:, 0]
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)

    @property
    def device(self) -> torch.device:
        return self.base.device

    def devices(self) -> dict[str, torch.device]:
        """Where each tensor is: beside the layer that it changes; the head where the base gives its output."""
        return {name: parameter.device for name, parameter in self._parameters_by_name.items()}

    @property
    def tokenizer(self) -> Any:
        return self.base.tokenizer

    @property
    def task_kind(self) -> TaskKind:
        return self.base.task

    @property
    def num_labels(self) -> int | None:
        return self.settings.num_labels

    @property
    def base_digest(self) -> Digest:
        return self.base.digest

    @property
    def base_parameters(self) -> int:
        """How many parameters the frozen base has."""
        return self.base.parameters

    def lora_modules(self) -> dict[str, nn.Module]:
        """The adapted layers by their path in the base, in the model's order."""
        return dict(self._lora)

    def named_adapter_parameters(self) -> dict[str, nn.Parameter]:
        """By tensor name, in layout order."""
        return dict(self._parameters_by_name)

    def set_trainable(self, roles: Iterable[Role]) -> list[nn.Parameter]:
        """Let exactly these roles' tensors have gradients, drop old ones; returns them in layout order."""
        wanted, chosen = frozenset(roles), []
        for spec, parameter in zip(self.layout.tensors, self._parameters_by_name.values(), strict=True):
            parameter.grad = None
            parameter.requires_grad_(spec.role in wanted)
            if spec.role in wanted:
                chosen.append(parameter)
        return chosen

    @torch.no_grad()
    def read_vector(self) -> AdapterVector:
        """A copy of all values, (d,) float32, in layout order."""
        flat = torch.cat([parameter.flatten().to(self.device) for parameter in self._parameters_by_name.values()])
        return np.array(flat.cpu().numpy(), dtype=np.float32)

    @torch.no_grad()
    def write_vector(self, vector: AdapterVector) -> None:
        """Copy all values in. Raises LayoutMismatch when the vector has another size or dtype."""
        self.layout.require(vector)
        flat = torch.from_numpy(np.array(vector)).to(self.device)
        for (_, where), parameter in zip(self.layout.slices(), self._parameters_by_name.values(), strict=True):
            parameter.copy_(flat[where].view_as(parameter))

    def start_vector(self) -> AdapterVector:
        """Where training starts: A drawn from the seed, the module's path and nothing else, B and head zero."""
        tensors = {spec.name: np.zeros(spec.shape, np.float32) for spec in self.layout.tensors}
        for module, a, _ in self.layout.lora_pairs():
            rng = reproducible_rng(self.settings.seed, "lora_A", module)
            tensors[a.name] = (_orthonormal if self.settings.orthonormal_a else _kaiming)(rng, *a.shape)
        return self.layout.flatten(tensors)

    def _named(self) -> dict[str, nn.Parameter]:
        named: dict[str, nn.Parameter] = {}
        for path, module in self._lora.items():
            for role in ("lora_A", "lora_B"):
                named[f"{path}.{role}"] = getattr(module, role)[ADAPTER_NAME].weight
        if self.task_kind == "classification":
            named |= {f"head.{name}": parameter for name, parameter in self.head.named_parameters()}
        return named


def attach_adapter(
    base: BaseModel,
    *,
    method: Literal["lora", "head"],
    rank: int,
    alpha: float,
    target_modules: tuple[str, ...] | None,
    dropout: float,
    rslora: bool,
    num_labels: int | None,
    pooling: Pooling,
    seed: int,
    orthonormal_a: bool,
) -> AdaptedModel:
    """Put an adapter on ``base``, which carries it from then on: one adapter per loaded base.

    Parameters
    ----------
    method
        "lora", or "head": the classification head alone on the frozen base.
    target_modules
        None: the attention's query and value.
    orthonormal_a
        Start A with orthonormal rows (fed_svd) instead of Kaiming-uniform ones.

    Raises
    ------
    ModelError
        No layer matches, a rank above a layer's smaller side, a head without labels or on a language-model task, the
        first token's state of a decoder, or a base that already carries an adapter.
    """
    _require_sense(base, method, num_labels, pooling)
    names, shapes = choose_targets(base.model, target_modules, rank) if method == "lora" else ((), {})
    settings = AdapterSettings(method, rank, alpha, names, dropout, rslora, num_labels, pooling, seed, orthonormal_a)
    config = _inject(base, settings, list(shapes)) if method == "lora" else None
    return AdaptedModel(base, settings, {path: base.model.get_submodule(path) for path in shapes}, config)


def _require_sense(base: BaseModel, method: str, num_labels: int | None, pooling: str) -> None:
    if any(isinstance(module, LoraLayer) for module in base.model.modules()):
        raise ModelError("expected a base model without an adapter, found one: load the base model again")
    if base.task == "instruction":
        if method == "head" or num_labels is not None:
            raise ModelError('expected adapter.method "lora" without labels for instruction tuning, found a head')
        return
    if not num_labels:
        raise ModelError("expected at least one label for a classification head, found none: set task.labels")
    if pooling == "cls" and not is_encoder(base.config):
        raise ModelError(
            f'expected an encoder for pooling "cls", found {base.architecture}, whose first token sees no other: '
            'set task.pooling = "mean"'
        )


def _inject(base: BaseModel, settings: AdapterSettings, paths: list[str]) -> LoraConfig:
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        target_modules=list(settings.target_modules),
        exclude_modules=r"(.*\.)?pooler\..*" if hasattr(base.model, "pooler") else None,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        fan_in_fan_out=any(is_conv1d(base.model.get_submodule(path)) for path in paths),
        bias="none",
        task_type="CAUSAL_LM" if base.task == "instruction" else "FEATURE_EXTRACTION",
        base_model_name_or_path=base.source,
        revision=base.revision,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where Conv1D and Linear stand side by side, PEFT corrects fan_in_fan_out
        inject_adapter_in_model(config, base.model, ADAPTER_NAME)
    injected = {path for path, module in base.model.named_modules() if isinstance(module, LoraLayer)}
    if injected != set(paths):
        raise ModelError(
            f"expected LoRA on {len(paths)} layers, found it on {len(injected)}: choose other adapter.target_modules"
        )
    for path in paths:
        for role in ("lora_A", "lora_B"):
            layer: Any = base.model.get_submodule(path)
            getattr(layer, role).to(device=layer.weight.device, dtype=torch.float32)
    return config


def forbidden_for_dp(model: AdaptedModel) -> list[str]:
    """What of this model has no per-example gradient, or couples the rows of a batch, by name. Empty: nothing found."""
    adapter = {id(parameter) for parameter in model.named_adapter_parameters().values()}
    found = [f"trainable {n}" for n, p in model.named_parameters() if p.requires_grad and id(p) not in adapter]
    for path, module in model.backbone.named_modules():
        if isinstance(module, LoraLayer):
            found += [f"DoRA on {path}"] if any(getattr(module, "use_dora", {}).values()) else []
            found += [f"LoRA on the embedding {path}"] if len(module.lora_embedding_A) else []
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            found.append(f"batch normalisation {path}")
        if getattr(module, "gradient_checkpointing", False) and not _is_reentrant(module):
            found.append(f"non-reentrant gradient checkpointing of {path or 'the model'}")
    return found


def _is_reentrant(module: nn.Module) -> bool:
    keywords = getattr(getattr(module, "_gradient_checkpointing_func", None), "keywords", {})
    return bool(keywords.get("use_reentrant", False))


def _role(name: str) -> Role:
    if name.startswith("head."):
        return "head"
    return "lora_A" if name.endswith(".lora_A") else "lora_B"


def _kaiming(rng: np.random.Generator, rank: int, d_in: int) -> npt.NDArray[np.float32]:
    """PEFT's own start: Kaiming uniform with a = √5, that is U(-1/√d_in, 1/√d_in)."""
    return rng.uniform(-(d_in**-0.5), d_in**-0.5, size=(rank, d_in)).astype(np.float32)


def _orthonormal(rng: np.random.Generator, rank: int, d_in: int) -> npt.NDArray[np.float32]:
    """Uniformly drawn orthonormal rows: the Q of a Gaussian matrix, signs fixed by a positive diagonal of R."""
    q, upper = np.linalg.qr(rng.normal(size=(d_in, rank)))
    return np.ascontiguousarray((q * np.where(np.diagonal(upper) < 0, -1.0, 1.0)).T, dtype=np.float32)
