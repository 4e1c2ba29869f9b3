"""Changing single values of a federation file: ``--set`` on the command line, and variants."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedft.config.keys import generic, is_list, known_keys, section_of
from fedft.errors import ConfigError

_WITHOUT_PRIVACY = ("epsilon", "delta", "clip_norm", "max_units", "colluding")


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Read "training.learning_rate=1e-3" as {"training.learning_rate": 0.001}; a value that is not TOML is text."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f'expected KEY=VALUE, found "{assignment}": write it as in --set training.local_steps=4')
        values[key.strip()] = _toml_value(text.strip())
    return values


def _toml_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    plain = len(parsed) == 1 and isinstance(parsed["value"], str | int | float | list | dict)
    return parsed["value"] if plain else text


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten the tables of sections: {"training": {"local_steps": 4}} -> ("training.local_steps", 4)."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        field = known_keys().get(generic(path))
        section, several = section_of(field.annotation) if field is not None else (None, False)
        is_entry = field is None and any(known.startswith(f"{generic(path)}.") for known in known_keys())
        if isinstance(value, Mapping) and ((section is not None) or is_entry or several):
            yield from dotted(value, f"{path}.")
        else:
            yield path, value


def apply(body: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set each dotted key in ``body``. None or "" removes a key, so that its default holds.

    Switching privacy off also removes the budget (epsilon, delta, clip_norm, the caps), unless given anew.
    """
    flat = dict(dotted(values))
    if flat.get("privacy.mode") == "off":
        _drop_budget(body)
    for key, value in flat.items():
        _set(body, key, value)


def _drop_budget(body: dict[str, Any]) -> None:
    privacy, institutions = body.get("privacy"), body.get("institutions")
    for key in _WITHOUT_PRIVACY:
        if isinstance(privacy, dict):
            privacy.pop(key, None)
    for institution in institutions if isinstance(institutions, list) else ():
        if isinstance(institution, dict):
            institution.pop("epsilon", None)


def _set(body: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    here: Any = body
    for place, part in enumerate(tables):
        if isinstance(here, list):
            here = _entry(here, part, ".".join(tables[:place]))
        else:
            if here.get(part) is None:
                here[part] = [] if is_list(".".join(tables[: place + 1])) else {}
            here = here[part]
        if not isinstance(here, dict | list):
            raise ConfigError(f'expected a table at "{".".join(tables[: place + 1])}", found a value: correct "{key}"')
    if isinstance(here, list):
        raise ConfigError(f'expected the name of one of {".".join(tables)} and a key, found "{key}": add the key')
    if value is None or value == "":
        here.pop(last, None)
    else:
        here[last] = value


def _entry(entries: list[Any], name: str, table: str) -> Any:
    """The entry of a list of tables by its name, or by its number from 1 where entries have no name."""
    names = [str(entry.get("name", number)) for number, entry in enumerate(entries, 1) if isinstance(entry, dict)]
    if name in names:
        return entries[names.index(name)]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    hint = f'the nearest known one is "{near[0]}"' if near else "there is none"
    raise ConfigError(f'expected one of {table} by its name, found "{name}": {hint}')
