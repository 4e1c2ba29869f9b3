"""Where a base model is found, what its digest covers, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
from transformers import BertConfig, BertModel

from fedft.errors import ModelError
from fedft.model.base import load_base_model
from fedft.model.files import digest_of, resolve_base
from tests.tiny import tiny_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "copy"))


def test_the_digest_can_be_recomputed_from_the_files(bert: Path) -> None:
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    files = {name: hashlib.sha256((bert / name).read_bytes()).hexdigest() for name in names}
    body = '["fedft/v1/base-model",' + json.dumps(files, sort_keys=True).replace(" ", "") + "]"
    assert digest_of(bert) == hashlib.sha256(body.encode()).hexdigest()


def test_the_digest_is_the_same_elsewhere_and_beside_other_files(bert: Path, copy: Path) -> None:
    (copy / "README.md").write_text("other words")
    (copy / "pytorch_model.bin").write_bytes(b"never read")
    assert digest_of(copy) == digest_of(bert)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_one_other_byte_gives_another_digest(bert: Path, copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    assert digest_of(copy) != digest_of(bert)


def test_another_digest_than_agreed_is_refused_before_a_weight_is_read(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=f"expected base model digest {'0' * 64}, found {digest_of(copy)}"):
        load_base_model(str(copy), task="classification", sha256="0" * 64)


def test_the_agreed_digest_is_accepted(bert: Path) -> None:
    assert load_base_model(str(bert), task="classification", sha256=digest_of(bert)).digest == digest_of(bert)


def test_shards_are_found_through_their_index(tmp_path: Path, bert: Path) -> None:
    model = BertModel.from_pretrained(bert)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    shutil.copy(bert / "tokenizer.json", tmp_path)
    shutil.copy(bert / "tokenizer_config.json", tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    before = digest_of(tmp_path)
    load_base_model(str(tmp_path), task="classification")
    shards[0].write_bytes(shards[0].read_bytes() + b" ")
    assert digest_of(tmp_path) != before
    shards[0].unlink()
    with pytest.raises(ModelError, match="found 1 missing"):
        digest_of(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": [1]}', '{"weight_map": {"a": "../other.safetensors"}}'])
def test_an_index_that_is_none_is_refused(copy: Path, content: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError, match="shards"):
        digest_of(copy)


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _no_model_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"hidden_size": 16}')


def _unknown_model_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "own-code", "auto_map": {"AutoConfig": "code.Config"}}')


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _only_pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _truncated_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _other_shapes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))


def _more_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 1}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_config, "found no config.json"),
        (_no_model_type, "architecture transformers knows"),
        (_unknown_model_type, "architecture transformers knows"),
        (_broken_config, "architecture transformers knows"),
        (_only_pickled_weights, "pickled weights are never loaded"),
        (_truncated_weights, "found a file that does not load"),
        (_other_shapes, "does not load|of another shape"),
        (_more_layers, "found 16 missing"),
        (_no_tokenizer, "expected a (fast )?tokenizer"),
        (_broken_tokenizer, "expected a tokenizer"),
    ],
)
def test_a_path_that_is_no_model_is_refused(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(copy)
    with pytest.raises(ModelError, match=message):
        load_base_model(str(copy), task="classification")


@pytest.mark.parametrize("base", ["/no/such/folder", "../nowhere", "scenarios/nothing", "not a model", ""])
def test_a_path_or_an_id_that_does_not_exist_is_refused(base: str) -> None:
    with pytest.raises(ModelError, match="correct model.base"):
        resolve_base(base)


def test_a_hub_id_is_taken_from_the_cache_when_offline(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--clinic--tiny", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(bert, repository / "snapshots" / commit)
    base = load_base_model("clinic/tiny", task="classification")
    assert (base.digest, base.source) == (digest_of(bert), "clinic/tiny")
    assert resolve_base("clinic/tiny", revision=commit) == resolve_base("clinic/tiny")
    with pytest.raises(ModelError, match="fetch the model once"):
        resolve_base("clinic/tiny", revision="other")


def test_a_folder_in_an_installed_package_is_found_without_importing_it(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "fedft_test_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.copytree(bert, package / "assets" / "tiny")
    monkeypatch.syspath_prepend(tmp_path)
    base = "package:fedft_test_weights/assets/tiny"
    assert digest_of(Path(resolve_base(base))) == digest_of(bert)
    assert load_base_model(base, task="classification").source == base
    with pytest.raises(ModelError, match="no such folder"):
        resolve_base("package:fedft_test_weights/elsewhere")


@pytest.mark.parametrize(
    "base", ["package:", "package:fedft_no_such/a", "package:json/../../etc", "package:/etc", "package:a.b/c"]
)
def test_a_package_that_is_not_there_is_refused(base: str) -> None:
    with pytest.raises(ModelError, match="correct model.base"):
        resolve_base(base)


def test_a_missing_pooler_becomes_zeros(tmp_path: Path, bert: Path) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    config = BertConfig.from_pretrained(bert)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    base = load_base_model(str(tmp_path), task="classification")
    assert float(base.model.get_parameter("pooler.dense.weight").abs().sum()) == 0
