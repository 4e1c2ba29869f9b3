"""Which layers carry LoRA, by default for each family and when named."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from torch import nn
from transformers import AutoModel

from fedft.errors import ModelError
from fedft.model.targets import choose_targets

SMALL = {
    "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 32, "max_position_embeddings": 64, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "BertConfig": ("query", "value"),
    "RobertaConfig": ("query", "value"),
    "ElectraConfig": ("query", "value"),
    "DistilBertConfig": ("q_lin", "v_lin"),
    "DebertaV2Config": ("query_proj", "value_proj"),
    "MPNetConfig": ("attn.q", "attn.v"),
    "ModernBertConfig": ("Wqkv",),
    "LlamaConfig": ("q_proj", "v_proj"),
    "MistralConfig": ("q_proj", "v_proj"),
    "Qwen2Config": ("q_proj", "v_proj"),
    "Qwen3Config": ("q_proj", "v_proj"),
    "GemmaConfig": ("q_proj", "v_proj"),
    "Gemma2Config": ("q_proj", "v_proj"),
    "OPTConfig": ("q_proj", "v_proj"),
    "Phi3Config": ("qkv_proj",),
    "GPTNeoXConfig": ("query_key_value",),
    "GPT2Config": ("c_attn",),
}


def family(name: str) -> nn.Module:
    names = {"DistilBertConfig": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}}
    names["GPT2Config"] = {"n_embd": 16, "n_layer": 2, "n_head": 2}
    small = {"vocab_size": 64} | names[name] if name in names else SMALL
    auto: Any = AutoModel
    model: nn.Module = auto.from_config(getattr(transformers, name)(**small))
    return model


@pytest.mark.parametrize(("name", "expected"), FAMILIES.items(), ids=list(FAMILIES))
def test_the_default_is_query_and_value_in_every_layer(name: str, expected: tuple[str, ...]) -> None:
    names, layers = choose_targets(family(name), None, 2)
    assert names == expected
    assert len(layers) == 2 * len(expected)


def test_under_grouped_query_attention_the_value_is_narrower() -> None:
    _, layers = choose_targets(family("LlamaConfig"), None, 8)
    assert sorted(set(layers.values())) == [(8, 16), (16, 16)]
    with pytest.raises(
        ModelError, match=r"rank of at most 8 for layers.0.self_attn.v_proj of shape \(8, 16\), found 9"
    ):
        choose_targets(family("LlamaConfig"), None, 9)


def test_layers_come_in_the_order_of_the_model_whatever_the_order_of_the_names() -> None:
    model = family("BertConfig")
    _, one = choose_targets(model, ("value", "query"), 2)
    _, two = choose_targets(model, ("query", "value"), 2)
    assert list(one) == list(two) == [path for path, _ in model.named_modules() if path in one]


def test_a_name_matches_whole_parts_of_a_path() -> None:
    _, layers = choose_targets(family("BertConfig"), ("intermediate.dense",), 2)
    assert list(layers) == [f"encoder.layer.{n}.intermediate.dense" for n in range(2)]


def test_a_pooler_is_left_out() -> None:
    _, layers = choose_targets(family("BertConfig"), ("dense",), 2)
    assert len(layers) == 6
    assert not any("pooler" in path for path in layers)


@pytest.mark.parametrize("names", [("nothing",), ("query", "valve"), ("uery",), ("pooler.dense",)])
def test_a_name_that_matches_nothing_is_refused_with_the_names_there_are(names: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="found none: set adapter.target_modules to some of .*query"):
        choose_targets(family("BertConfig"), names, 2)


@pytest.mark.parametrize("names", [("word_embeddings",), ("query", "LayerNorm"), ("attention",)])
def test_what_is_not_linear_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="expected linear layers"):
        choose_targets(family("BertConfig"), names, 2)


def test_an_unknown_architecture_has_no_default() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 1))
    with pytest.raises(ModelError, match=r"found none known: set adapter.target_modules to some of 0$"):
        choose_targets(model, None, 2)
