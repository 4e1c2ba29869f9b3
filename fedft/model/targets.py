"""Which layers of a base model carry LoRA: the attention's query and value unless named otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from fedft.errors import ModelError

QUERY_AND_VALUE = (
    ("q_proj", "v_proj"),  # llama, mistral, qwen, gemma, phi, opt, gpt-j
    ("query", "value"),  # bert, roberta, electra, vit
    ("q_lin", "v_lin"),  # distilbert
    ("query_proj", "value_proj"),  # deberta-v2
    ("attn.q", "attn.v"),  # mpnet
    ("qkv_proj",),  # phi-3; one layer makes query, key and value
    ("Wqkv",),  # modernbert, mpt
    ("query_key_value",),  # gpt-neox, falcon, bloom
    ("c_attn",),  # gpt-2
)
"""Names tried in this order when a file names none; the first set of which all are there is taken."""

Shape = tuple[int, int]


def choose_targets(
    model: nn.Module, named: Sequence[str] | None, rank: int
) -> tuple[tuple[str, ...], dict[str, Shape]]:
    """The target names, and (d_out, d_in) by path of every layer they match, in the model's order.

    A name matches a path that equals it or ends in "." and it. Layers of a pooler are left out: no task here uses it.

    Raises
    ------
    ModelError
        A name that matches nothing, or something that is not a linear layer; no default for this architecture; a rank
        above a layer's smaller side, where ΔW = B·A would hold fewer directions than it has parameters for.
    """
    paths = [path for path, _ in model.named_modules() if path and "pooler" not in path.split(".")]
    shapes = {path: _linear_shape(model.get_submodule(path)) for path in paths}
    names = tuple(named) if named is not None else _defaults(paths, shapes)
    for name in names:
        found = [path for path in paths if _matches(path, (name,))]
        if not found:
            raise ModelError(f'expected a layer "{name}", found none: {_choices(shapes)}')
        other = next((path for path in found if shapes[path] is None), None)
        if other is not None:
            raise ModelError(f'expected linear layers for "{name}", found another kind ({other}): {_choices(shapes)}')
    matched = {path: shape for path in paths if (shape := shapes[path]) is not None and _matches(path, names)}
    for path, shape in matched.items():
        if rank > min(shape):
            raise ModelError(
                f"expected a rank of at most {min(shape)} for {path} of shape {shape}, found {rank}: "
                "lower adapter.rank or leave the layer out of adapter.target_modules"
            )
    return names, matched


def is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layer, whose weight is stored as (d_in, d_out)."""
    return isinstance(module, Conv1D)


def _linear_shape(module: nn.Module) -> Shape | None:
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, Conv1D):
        d_in, d_out = module.weight.shape
        return int(d_out), int(d_in)
    return None


def _defaults(paths: Iterable[str], shapes: dict[str, Shape | None]) -> tuple[str, ...]:
    linear = [path for path in paths if shapes[path] is not None]
    for names in QUERY_AND_VALUE:
        if all(any(_matches(path, (name,)) for path in linear) for name in names):
            return names
    raise ModelError(f"expected an attention with query and value layers, found none known: {_choices(shapes)}")


def _matches(path: str, names: Iterable[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


def _choices(shapes: dict[str, Shape | None]) -> str:
    names = sorted({path.rsplit(".", 1)[-1] for path, shape in shapes.items() if shape is not None})
    return f"set adapter.target_modules to some of {', '.join(names[:12]) or 'its linear layers (it has none)'}"
