"""From a TOML file to a FederationConfig: overrides, paths, ranges, cross checks, and every variant checked too."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedft.config.checks import require_consistent
from fedft.config.files import read_toml
from fedft.config.keys import generic
from fedft.config.overrides import apply, dotted, parse_assignments
from fedft.config.problems import as_config_error
from fedft.config.sections import FederationConfig
from fedft.errors import ConfigError

_PATHS = ("data.train", "data.evaluation", "data.reference", "institutions.*.data", "simulation.ledger_dir")
_MODEL = "model.base"
_DATASETS = "datasets:"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> FederationConfig:
    """Read a federation file.

    Parameters
    ----------
    overrides : "KEY=VALUE" each, the key dotted, an institution by its name: "institutions.north.epsilon=2".
        VALUE is TOML, or text when it is not. Without a value ("data.unit=") the key is removed: its default holds.

    Raises
    ------
    ConfigError
        For a file that cannot be read, TOML that does not parse, an unknown key, a value out of range, and sections
        that do not fit together. Names the file, and every wrong key with what is allowed and what was found.
    """
    file = Path(path)
    try:
        body = read_toml(file, kind="a federation file", otherwise="write one with fedft init")
        return parse_config(body, folder=file.parent, overrides=overrides)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def parse_config(body: Mapping[str, Any], *, folder: Path, overrides: Sequence[str] = ()) -> FederationConfig:
    """As load_config, of a body already read (TOML's or JSON's). Relative paths are relative to ``folder``."""
    plain = _copied(body)
    apply(plain, parse_assignments(overrides))
    _resolve_paths(plain, folder)
    if isinstance(plain.get("variants"), dict):
        plain["variants"] = {name: _variant(values, folder) for name, values in plain["variants"].items()}
    return _validated(plain)


def with_overrides(config: FederationConfig, values: Mapping[str, Any]) -> FederationConfig:
    """The same with the dotted keys of ``values`` set, all checked anew. None or "" puts a key back to its default.

    Switching privacy off ("privacy.mode": "off") also removes the budget: epsilon, delta, clip_norm and the caps.
    """
    body = _copied(config.model_dump())
    apply(body, values)
    return _validated(body)


def variant_config(config: FederationConfig, name: str) -> FederationConfig:
    """The federation that a variant plays: its overrides applied, itself without variants or announced checks."""
    alone = {**config.variants[name], "variants": {}, "outcome.checks": []}
    return with_overrides(config, alone)


def _copied(value: Any) -> Any:
    """A deep copy of plain values, sequences as lists, so that overrides can be set in it."""
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list | tuple) else value


def _validated(body: Mapping[str, Any]) -> FederationConfig:
    try:
        config = FederationConfig.model_validate(frozen(body), strict=True)
    except ValidationError as error:
        raise as_config_error(error, body) from None
    require_consistent(config)
    for name in config.variants:
        try:
            variant_config(config, name)
        except ConfigError as error:
            raise ConfigError(f"variants.{name}: {error}") from None
    return config


def frozen(value: Any) -> Any:
    """Lists as tuples, which is what strict validation takes: true is no number then, and "8" is none either."""
    if isinstance(value, Mapping):
        return {key: frozen(inner) for key, inner in value.items()}
    return tuple(frozen(inner) for inner in value) if isinstance(value, list | tuple) else value


def _variant(values: Any, folder: Path) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {key: _resolved(key, value, folder) for key, value in dotted(values)}


def _resolve_paths(body: dict[str, Any], folder: Path) -> None:
    for section in ("model", "data", "simulation"):
        _resolve_table(body.get(section), section, folder)
    institutions = body.get("institutions")
    for institution in institutions if isinstance(institutions, list) else ():
        _resolve_table(institution, "institutions.*", folder)


def _resolve_table(table: Any, prefix: str, folder: Path) -> None:
    if isinstance(table, dict):
        table.update({key: _resolved(f"{prefix}.{key}", value, folder) for key, value in table.items()})


def _resolved(key: str, value: Any, folder: Path) -> Any:
    """The value; an absolute path where ``key`` holds one. A base model may also be a hub id: no folder, no path."""
    if not isinstance(value, str) or not value or value.startswith("package:"):
        return value
    if value.startswith(_DATASETS):
        name, colon, split = value.removeprefix(_DATASETS).partition(":")
        path = os.path.abspath(os.path.join(folder, name))
        return f"{_DATASETS}{path}{colon}{split}" if name and Path(path).is_dir() else value
    path = os.path.abspath(os.path.join(folder, os.path.expanduser(value)))
    if generic(key) == _MODEL:
        return path if Path(path).is_dir() or value.startswith(("./", "../", "~")) else value
    return path if generic(key) in _PATHS else value
