"""The template and the scenarios cannot drift from the keys that are known."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.config import load_config, parse_config, template
from fedft.config.keys import known_keys, nearest_key, section_of
from fedft.config.template import EXAMPLES

ROOT = Path(__file__).parents[2]


def test_the_template_loads_and_shows_every_key(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(template())
    config = load_config(path)
    assert config.privacy.mode == "dp-sgd"
    words = template()
    for key in known_keys():
        assert f"{key.rpartition('.')[2]}" in words, key


def test_the_template_shows_the_defaults_there_are(tmp_path: Path) -> None:
    shown = "\n".join(
        line.removeprefix("# ")
        for line in template().split("# Instead of data.train")[0].splitlines()
        if line.startswith("[") or (" = " in line and "= ..." not in line)
    )
    body = tomllib.loads(shown)
    plain: dict[str, Any] = tomllib.loads(template())
    assert parse_config(body, folder=tmp_path) == parse_config(plain, folder=tmp_path)
    assert len(body["training"]) > len(plain["training"])


def test_the_template_has_an_example_for_each_key_without_default() -> None:
    required = {key for key, field in known_keys().items() if field.is_required() and "*" not in key}
    sections = {key for key in required if section_of(known_keys()[key].annotation)[0] is not None}
    assert required - sections <= set(EXAMPLES)
    assert set(EXAMPLES) <= set(known_keys())


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios").rglob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_loads(path: Path) -> None:
    assert load_config(path).federation.rounds >= 1


@given(st.sampled_from(sorted(known_keys())), st.integers(0, 40), st.sampled_from("abcxyz_"))
def test_a_slip_in_a_known_key_is_told_a_known_key(key: str, place: int, letter: str) -> None:
    prefix, dot, word = key.replace("*", "north").rpartition(".")
    typo = prefix + dot + word[: place % (len(word) + 1)] + letter + word[place % (len(word) + 1) :]
    same_word = [known for known in known_keys() if known.rpartition(".")[2] == typo.rpartition(".")[2]]
    assert nearest_key(typo).rpartition(".")[2] == (word if not same_word else same_word[0].rpartition(".")[2])
