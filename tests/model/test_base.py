"""What a loaded base model promises: frozen, without dropout, of the right kind, on its device."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Config, T5Model

from fedft.errors import ModelError
from fedft.model.base import TaskKind, load_base_model
from tests.tiny import tiny_bert, tiny_gpt2, tiny_llama, tokenizer_into

MAKERS = pytest.mark.parametrize("make", [tiny_bert, tiny_llama, tiny_gpt2], ids=["bert", "llama", "gpt2"])
DROPOUTS = {
    "hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5,  # bert
    "attention_dropout": 0.5,  # llama
    "resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5,  # gpt2
}  # fmt: skip


@MAKERS
def test_every_dropout_of_the_base_is_off_in_training(make: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {k: v for k, v in DROPOUTS.items() if k in config}))
    base = load_base_model(str(folder), task="classification")
    ids = torch.arange(4, 20).view(2, 8)
    model: Any = base.model
    trained, evaluated = (model.train(mode)(input_ids=ids).last_hidden_state for mode in (True, False))
    torch.testing.assert_close(trained, evaluated)
    assert any(getattr(base.config, key, 0) == 0.5 for key in DROPOUTS), "the files' own values are kept for exports"


def test_a_dropout_that_no_configuration_names_is_off_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedft.model.base._without_dropout", lambda config: config)
    base = load_base_model(str(tiny_bert(tmp_path)), task="classification")
    found = [module.p for module in base.model.modules() if isinstance(module, torch.nn.Dropout)]
    assert len(found) > 3
    assert set(found) == {0.0}


@MAKERS
def test_the_base_is_frozen_in_the_dtype_asked_for(make: Callable[[Path], Path], tmp_path: Path) -> None:
    base = load_base_model(str(make(tmp_path)), task="classification", dtype="bfloat16", device="cpu")
    parameters = list(base.model.parameters())
    assert not any(parameter.requires_grad for parameter in parameters)
    assert {parameter.dtype for parameter in parameters} == {torch.bfloat16}
    assert (base.hidden_size, base.device.type) == (16, "cpu")
    assert base.parameters == sum(parameter.numel() for parameter in parameters)
    assert base.digest[:12] in repr(base)


@pytest.mark.parametrize(("make", "task"), [(tiny_bert, "classification"), (tiny_gpt2, "instruction")])
def test_loading_twice_gives_the_same_weights(make: Callable[[Path], Path], task: TaskKind, tmp_path: Path) -> None:
    folder = str(make(tmp_path))
    one, two = (load_base_model(folder, task=task) for _ in range(2))
    assert one.digest == two.digest
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_tokenizer_without_padding_pads_with_its_end_token_on_the_right(tmp_path: Path) -> None:
    folder = tiny_gpt2(tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "left"}))
    tokenizer = load_base_model(str(folder), task="instruction").tokenizer
    assert (tokenizer.pad_token, tokenizer.padding_side) == ("</s>", "right")


def test_an_encoder_is_refused_for_instruction_tuning(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="causal language model for instruction tuning, found bert"):
        load_base_model(str(tiny_bert(tmp_path)), task="instruction")


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path)
    tokenizer_into(tmp_path)
    with pytest.raises(ModelError, match="found an encoder-decoder"):
        load_base_model(str(tmp_path), task="classification")


@pytest.mark.skipif(torch.cuda.is_available(), reason="refused only where there is no GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda-all"])
def test_what_needs_a_gpu_is_refused_without_one(device: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="CUDA device"):
        load_base_model(str(tiny_bert(tmp_path)), task="classification", device=device)


def test_a_base_of_which_a_part_stays_on_the_host_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers places it where the GPUs are too small; here the host is all there is."""
    monkeypatch.setattr("fedft.model.base._placement", lambda device: "auto")
    with pytest.raises(ModelError, match="of its tensors left to the host: show more GPUs"):
        load_base_model(str(tiny_bert(tmp_path)), task="classification", device="cuda-all")


@pytest.mark.parametrize("found", [None, "0.45.0"])
def test_a_4_bit_base_names_the_package_that_it_needs(
    found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr("fedft.model.base.version", version)
    with pytest.raises(ModelError, match=f"found {found or 'none'}: pip install 'bitsandbytes>="):
        load_base_model(str(tiny_bert(tmp_path)), task="classification", quantization="nf4")


def test_int8_is_refused_since_rows_change_each_other(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="so that no clip norm bounds it"):
        load_base_model(str(tiny_bert(tmp_path)), task="classification", quantization="int8")


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tiny_llama(tmp_path)
    capfd.readouterr()
    load_base_model(str(folder), task="classification")
    assert capfd.readouterr() == ("", "")
