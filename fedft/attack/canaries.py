"""Canaries: rows that nobody else has, each a privacy unit of its own, and the coins that say which are trained on.

Everything follows from a seed, the tokenizer and public rows, so that evidence needs to hold none of their content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedft.assembly.coordinator import PublicParts
from fedft.assembly.parts import load_rows
from fedft.config import FederationConfig
from fedft.data.examples import DataSet, Example, select
from fedft.errors import ConfigError
from fedft.randomness import reproducible_rng
from fedft.simulation.setup import Setup

Kind = Literal["random", "mislabelled"]
WORDS = 12
"""Of a random text; of an instruction a third."""

Coins = npt.NDArray[np.bool_]


def make_canaries(setup: PublicParts, *, kind: Kind, count: int, seed: int) -> tuple[Example, ...]:
    """``count`` rows of the task's columns.

    kind: "random" draws words of the vocabulary, and for classes a label, uniformly; "mislabelled" takes the
    federation's public rows with a label that is not theirs.

    Raises
    ------
    ConfigError
        More mislabelled rows than public ones, or none for instruction tuning.
    """
    config, rng = setup.config, reproducible_rng(seed, "attack-canaries", kind)
    make = _random_rows if kind == "random" else _mislabelled
    rows = make(setup, config, count, rng)
    return tuple(Example(number, f"canary-{number}", fields) for number, fields in enumerate(rows, start=1))


def toss(seed: int, play: str, count: int) -> Coins:
    """Independent fair coins, (count,), other ones for each play of the federation. True: trained on."""
    return reproducible_rng(seed, "attack-coins", play).random(count) < 0.5


class CanarySetup(Setup):
    """A federation in which one institution also has the canaries whose coin says so, behind its own rows.

    institution: None is the first. Raises ConfigError for an unknown one, and where a unit is named as a canary is.
    """

    def __init__(
        self, config: FederationConfig, *, institution: str | None, canaries: Sequence[Example], coins: Coins
    ) -> None:
        super().__init__(config)
        self.planted_at = institution or self.institution_names[0]
        if self.planted_at not in self._shares:
            known = ", ".join(self._shares)
            raise ConfigError(f'expected one of the institutions {known}, found "{institution}": correct the name')
        section, self.own_rows = self._shares[self.planted_at]
        chosen = [canary for canary, inside in zip(canaries, coins, strict=True) if inside]
        if {example.unit for example in self.own_rows.examples} & {canary.unit for canary in chosen}:
            raise ConfigError('expected no unit named "canary-1" and so on among the rows, found one: rename them')
        together = replace(self.own_rows, examples=(*self.own_rows.examples, *chosen))
        self._shares[self.planted_at] = section, select(together, range(len(together.examples)))


def as_data_set(canaries: Sequence[Example]) -> DataSet:
    """All of them, for scoring."""
    whole = DataSet("canaries", tuple(canaries), 0, "")  # type: ignore[arg-type]
    return select(whole, range(len(canaries)))


def _random_rows(
    setup: PublicParts, config: FederationConfig, count: int, rng: np.random.Generator
) -> list[dict[str, str]]:
    words = _vocabulary(setup.model.tokenizer)

    def text(length: int) -> str:
        return " ".join(words[i] for i in rng.integers(len(words), size=length))

    task = config.task
    if task.kind == "instruction":
        return [{"instruction": text(WORDS // 3), "input": "", "output": text(WORDS)} for _ in range(count)]
    labels = setup.labels or ()
    return [{task.text: text(WORDS), task.label: labels[rng.integers(len(labels))]} for _ in range(count)]


def _mislabelled(
    setup: PublicParts, config: FederationConfig, count: int, rng: np.random.Generator
) -> list[dict[str, str]]:
    task, labels = config.task, setup.labels
    if labels is None:
        raise ConfigError('expected canaries of kind "random" for instruction tuning, found "mislabelled": change it')
    public = load_rows(config, config.data.evaluation, labels=labels).examples
    if count > len(public):
        raise ConfigError(f"expected at most {len(public)} canaries, one for each public row, found {count}: lower it")
    chosen = [public[i].fields for i in rng.permutation(len(public))[:count]]
    return [{task.text: fields[task.text], task.label: _another(labels, fields[task.label], rng)} for fields in chosen]


def _another(labels: Sequence[str], own: str, rng: np.random.Generator) -> str:
    others = [label for label in labels if label != own]
    return others[rng.integers(len(others))]


def _vocabulary(tokenizer: Any) -> list[str]:
    """Tokens that are a word, a letter or a number by themselves, in the vocabulary's order, each once."""
    decoded = tokenizer.batch_decode([[number] for number in range(len(tokenizer))], skip_special_tokens=True)
    words = (text.strip() for text in decoded)
    found = list(dict.fromkeys(word for word in words if word.isascii() and word.isalnum()))
    if len(found) < 2:
        raise ConfigError(
            'expected a tokenizer with words of letters or digits, found none: use canaries of kind "mislabelled"'
        )
    return found
