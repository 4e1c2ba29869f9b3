"""Where a base model's files are, and their digest: what an institution checks before a weight is read."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path

from huggingface_hub import snapshot_download

from fedft.errors import ModelError
from fedft.types import Digest

BASE_LABEL = "fedft/v1/base-model"
PACKAGE = "package:"

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_PACKAGE_PATH = re.compile(r"([A-Za-z_]\w*)((?:/[^/]+)*)/?")


def resolve_base(base: str, *, revision: str | None = None) -> str:
    """The folder that holds ``base``: itself, in an installed package, or the hub's cache (downloaded when allowed).

    Raises ModelError when there is none.
    """
    if base.startswith(PACKAGE):
        return str(_in_package(base))
    if base and Path(base).is_dir():
        return base
    if not _HUB_ID.fullmatch(base):
        raise ModelError(f"expected a model's folder at {base}, found none: correct model.base")
    try:
        wanted = ["config.json", "*.safetensors", WEIGHTS_INDEX, *TOKENIZER_FILES]
        return str(snapshot_download(base, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:  # the hub's errors are of these kinds: no such id, no network, offline mode
        raise ModelError(
            f"expected {base} to be a folder or a model on the hub, found neither a folder nor an answer of the hub "
            f"({type(error).__name__}): correct model.base, or fetch the model once where there is a network"
        ) from error


def digest_of(folder: Path) -> Digest:
    """SHA-256 over the names and SHA-256 of configuration, weights and tokenizer files, as canonical JSON.

    Other files beside them (a README, other formats of the weights) do not change it. Raises ModelError when the
    configuration or safetensors weights are missing.
    """
    names = ["config.json", *_weight_files(folder), *(name for name in TOKENIZER_FILES if (folder / name).is_file())]
    files = {name: _file_digest(folder / name) for name in sorted(names)}
    body = json.dumps([BASE_LABEL, files], sort_keys=True, separators=(",", ":"))
    return Digest(hashlib.sha256(body.encode()).hexdigest())


def _in_package(base: str) -> Path:
    match = _PACKAGE_PATH.fullmatch(base.removeprefix(PACKAGE))
    if match is None or ".." in match[2].split("/"):
        raise ModelError(f"expected package:MODULE/sub/folder, found {base}: correct model.base")
    spec = importlib.util.find_spec(match[1])
    folders = [Path(place) / match[2].lstrip("/") for place in (spec.submodule_search_locations or ())] if spec else []
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        problem = "no such folder in it" if spec else "no such package installed"
        raise ModelError(f"expected the model {base}, found {problem}: install the package, or correct model.base")
    return found


def _weight_files(folder: Path) -> list[str]:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"expected a model in Hugging Face's format in {folder}, found no config.json: correct model.base"
        )
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (folder / WEIGHTS_INDEX).is_file():
        raise ModelError(
            f"expected {WEIGHTS} in {folder}, found no safetensors weights: save the model with "
            "save_pretrained; pickled weights are never loaded"
        )
    try:
        shards = sorted(set(json.loads((folder / WEIGHTS_INDEX).read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"expected an index of shards in {folder / WEIGHTS_INDEX}, found none: fetch it again"
        ) from error
    missing = [name for name in shards if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"expected {len(shards)} shards in {folder}, found {len(missing)} missing: fetch the model again"
        )
    return [WEIGHTS_INDEX, *shards]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
