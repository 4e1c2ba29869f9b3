"""The keys a file may hold, read off its sections so that no second list can drift.

``root`` is the whole file: a federation, or an institution's policy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from typing import get_args

from pydantic.fields import FieldInfo

from fedft.config.sections import FederationConfig, Section

ONE = "*"
"""Stands in a key for the name or number of one entry of a list of tables, as in institutions.*.epsilon."""


def section_of(annotation: object) -> tuple[type[Section] | None, bool]:
    """The Section inside a field's annotation (itself, optional, or in a tuple), and whether there are several."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    for inner in get_args(annotation):
        found, _ = section_of(inner)
        if found is not None:
            return found, getattr(annotation, "__origin__", None) is tuple
    return None, False


@cache
def known_keys(root: type[Section] = FederationConfig) -> dict[str, FieldInfo]:
    """Every key of a file with its field, in the order of the sections; entries of lists under ``*``."""
    return dict(_keys(root, ""))


def _keys(section: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        yield prefix + name, field
        inner, several = section_of(field.annotation)
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}.{ONE}." if several else f"{prefix}{name}.")


def generic(key: str, root: type[Section] = FederationConfig) -> str:
    """institutions.*.data for institutions.north.data: ``*`` for the name or number of a list's entry."""
    parts = key.split(".")
    for place in range(1, len(parts)):
        if ".".join([*parts[:place], ONE]) in _places(root):
            parts[place] = ONE
    return ".".join(parts)


def is_list(key: str) -> bool:
    """Whether the key holds a list of tables."""
    return f"{generic(key)}.{ONE}" in _places(FederationConfig)


@cache
def _places(root: type[Section]) -> frozenset[str]:
    return frozenset(key.rsplit(".", 1)[0] for key in known_keys(root) if f".{ONE}." in key)


def nearest_key(key: str, root: type[Section] = FederationConfig) -> str:
    """The known key most like ``key``: the same word in another section, else a like one beside it, else anywhere."""
    prefix, _, word = generic(key, root).rpartition(".")
    keys = list(known_keys(root))
    same_word = [known for known in keys if known.rpartition(".")[2] == word]
    if same_word:
        return same_word[0]
    beside = {known.rpartition(".")[2]: known for known in keys if known.rpartition(".")[0] == prefix}
    anywhere = {known.rpartition(".")[2]: known for known in reversed(keys)}
    for candidates, cutoff in ((beside, 0.6), (anywhere, 0.6), (beside, 0.0), (anywhere, 0.0)):
        close = difflib.get_close_matches(word, candidates, n=1, cutoff=cutoff)
        if close:
            return candidates[close[0]]
    return keys[0]
