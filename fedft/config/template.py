"""The commented file that ``fedft init`` writes, made from the sections so that it cannot drift from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import BaseMetadata, Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fedft.config.keys import section_of
from fedft.config.sections import FederationConfig, Section

EXAMPLES: dict[str, Any] = {
    "federation.name": "my-federation",
    "federation.rounds": 10,
    "model.base": "sentence-transformers/all-MiniLM-L6-v2",
    "task.kind": "classification",
    "data.train": "train.jsonl",
    "data.evaluation": "evaluation.jsonl",
    "data.partition.method": "iid",
    "data.partition.institutions": 4,
    "training.local_steps": 5,
    "training.batch_size": 64,
    "training.learning_rate": 1e-3,
    "privacy.mode": "dp-sgd",
    "privacy.epsilon": 8.0,
    "privacy.delta": 1e-5,
    "privacy.clip_norm": 1.0,
}
"""What the template sets. Every other key stands in it as a comment with its default."""

_COMMENTED_TABLES: dict[str, tuple[str, dict[str, Any]]] = {
    "institutions": ("Instead of data.train and data.partition: each with its own rows.", {"name": "north"}),
    "outcome.checks": ("A figure that is checked after the run.", {"figure": "final.accuracy", "at_least": 0.8}),
}
_VARIANTS = """
# Play the federation several times, each with other values. Checks then name figures as VARIANT.path.
# [variants.no-privacy]
# "privacy.mode" = "off"
"""
_HEADER = """\
# A federation: who trains which model on what, and under which guarantee.
# Paths are relative to this file. A commented key shows its default, or what it takes where there is none.
"""


def template() -> str:
    """A federation file that load_config reads, with every key there is, what it means and what it takes."""
    lines = [_HEADER.rstrip()]
    for name, field in FederationConfig.model_fields.items():
        lines += _VARIANTS.rstrip().splitlines() if name == "variants" else _table(name, field)
    return "\n".join(lines) + "\n"


def _table(path: str, field: FieldInfo) -> list[str]:
    section, several = section_of(field.annotation)
    if section is None:
        return []
    if several:
        about, examples = _COMMENTED_TABLES[path]
        given = {f"{path}.{key}": value for key, value in examples.items()}
        commented = [f"# [[{path}]]", *(_commented(line) for line in key_lines(path, section, given))]
        return ["", f"# {about}", *commented]
    about = plain(section.__doc__ or "")
    keys = list(key_lines(path, section, EXAMPLES))
    return ["", f"[{path}]", *([f"# {about}"] if about else []), *keys, *_sub_tables(path, section)]


def key_lines(path: str, section: type[Section], examples: dict[str, Any]) -> Iterator[str]:
    """A line for each key of a section: set where ``examples`` has it, else a comment with its default."""
    for name, field in section.model_fields.items():
        key = f"{path}.{name}"
        inner, several = section_of(field.annotation)
        if inner is None:
            yield _key(name, field, examples.get(key))
        elif several is False and path in _COMMENTED_TABLES:
            keys = ", ".join(inner.model_fields)
            yield f"# {name} = {{}}  # {plain(inner.__doc__ or '')} Keys: {keys}"


def _sub_tables(path: str, section: type[Section]) -> list[str]:
    tables = ((f"{path}.{name}", field) for name, field in section.model_fields.items())
    return [line for key, field in tables if section_of(field.annotation)[0] is not None for line in _table(key, field)]


def _key(name: str, field: FieldInfo, example: Any) -> str:
    remark = "; ".join(part for part in (plain(field.description or ""), allowed(field)) if part)
    if example is not None:
        return f"{name} = {_toml(example)}  # {remark}"
    default = field.get_default(call_default_factory=True)
    if default is None or default is PydanticUndefined:
        return f"# {name} = ...  # {remark}"
    return f"# {name} = {_toml(default)}  # {remark}"


def plain(words: str) -> str:
    """A docstring or description on one line, in the words of TOML: a key that is absent is unset, not None."""
    return " ".join(words.split()).replace("``", '"').replace("None:", "unset:")


def _commented(line: str) -> str:
    return line if line.startswith("#") else f"# {line}"


def allowed(field: FieldInfo) -> str:
    """What a key takes, in words: 'one of "sgd", "adamw"', "a number above 0 and at most 1"."""
    words = _kind(field.annotation)
    bounds = [*_bounds(field.metadata), *(bound for inner in _inner(field.annotation) for bound in _bounds(inner))]
    return f"{words}, {' and '.join(bounds)}" if bounds else words


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(_toml(choice) for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "a list: " + _kind(get_args(annotation)[0])
    if get_origin(annotation) is dict:
        return "a table"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if annotation in plain:
        return plain[annotation]
    options = [option for option in get_args(annotation) if option is not NoneType]
    kinds = dict.fromkeys(_kind(option) for option in options if not isinstance(option, BaseMetadata | FieldInfo))
    return " or ".join(kind for kind in kinds if kind)


def _inner(annotation: Any) -> Iterator[Any]:
    """The metadata of Annotated types inside an optional one."""
    for option in get_args(annotation):
        if hasattr(option, "__metadata__"):
            yield option.__metadata__


def _bounds(metadata: Any) -> Iterator[str]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _bounds(item.metadata)
        elif isinstance(item, Gt):
            yield f"above {item.gt}"
        elif isinstance(item, Ge):
            yield f"at least {item.ge}"
        elif isinstance(item, Lt):
            yield f"below {item.lt}"
        elif isinstance(item, Le):
            yield f"at most {item.le}"


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
            if value
            else "{}"
        )
    return json.dumps(value) if isinstance(value, str | bool) else repr(value)
