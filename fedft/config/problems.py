"""What is wrong with a value, in words: the key, what is allowed, what was found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from fedft.config.keys import nearest_key
from fedft.config.sections import FederationConfig, Section
from fedft.errors import ConfigError

_LONGEST_VALUE = 60
_UNION_TAGS = frozenset({"float", "int", "str", "bool"})
_ALLOWED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "finite_number": "a finite number",
    "is_instance_of": "a path",
    "too_short": "a list of at least {min_length}",
    "string_too_short": "text that is not empty",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le}",
}
_PATTERNS = {
    "^[0-9a-f]{64}$": "a SHA-256, 64 lower-case hexadecimal digits",
    "^ed25519:[0-9a-f]{64}$": 'a public key, "ed25519:" and 64 lower-case hexadecimal digits',
    "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$": "letters, digits, - and _, at most 64, a letter or digit first",
}


def as_config_error(
    error: ValidationError, body: Mapping[str, Any], root: type[Section] = FederationConfig
) -> ConfigError:
    """One ConfigError for all that is wrong, a line for each key."""
    lines = list(_lines(error, body, root))
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError(f"found {len(lines)} problems:\n" + "\n".join(f"  - {line}" for line in lines))


def shown(value: object) -> str:
    """A value as it may stand in a message: as in TOML where that is easy, and never long."""
    if isinstance(value, str | bool):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _lines(error: ValidationError, body: Mapping[str, Any], root: type[Section]) -> Iterator[str]:
    allowed: dict[tuple[str, str], list[str]] = {}  # what each of several possible types would take, on one line
    for problem in error.errors(include_url=False):
        kind, key = problem["type"], _key(problem["loc"], body)
        if kind == "extra_forbidden":
            yield f'found unknown key "{key}": the nearest known one is "{nearest_key(key, root)}"'
        elif kind == "missing":
            yield f"expected {key}, found nothing: add it"
        elif kind == "value_error":
            yield f"{f'[{key}]' if key else 'the file'} {problem['ctx']['error']}: correct it"
        else:
            words = _allowed(kind, problem.get("ctx", {}), problem["msg"])
            allowed.setdefault((key, shown(problem["input"])), []).append(words)
    for (key, found), words_of_types in allowed.items():
        yield f"expected {key} to be {' or '.join(words_of_types)}, found {found}: correct it"


def _allowed(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(str(context["pattern"]), f"text like {context['pattern']}")
    if kind == "literal_error":
        return str(context["expected"]).replace("'", '"')
    return _ALLOWED[kind].format(**context) if kind in _ALLOWED else f"valid ({message})"


def _key(loc: Sequence[int | str], body: Mapping[str, Any]) -> str:
    """The dotted key of a place in the file, entries of a list by their names where they have some."""
    parts: list[str] = []
    for place, part in enumerate(loc):
        if part == "[key]" or (place >= 2 and place == len(loc) - 1 and part in _UNION_TAGS):
            continue
        if place == 1 and isinstance(part, int):
            parts.append(_entry(body[str(loc[0])][part], part))
        else:
            parts.append(str(part + 1) if isinstance(part, int) else part)
    return ".".join(parts)


def _entry(entry: Any, index: int) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) else str(index + 1)
