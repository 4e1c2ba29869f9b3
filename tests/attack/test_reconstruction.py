"""Tokens read off an update: all of few without noise, none with it, and nothing where the span is everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedft.assembly.coordinator import PublicParts
from fedft.attack.canaries import make_canaries
from fedft.attack.reconstruction import distances, worst_case
from fedft.config import parse_config
from tests.attack.test_pipeline import BASE
from tests.federation import federation_body


def test_members_of_a_span_are_told_from_others_until_the_span_is_everything() -> None:
    rng = np.random.default_rng(1)
    candidates = rng.normal(size=(100, 8))
    few = rng.normal(size=(30, 5)) @ candidates[:5]
    found = distances(few, candidates, 5)
    assert found[:5].max() < 1e-9 < 0.05 < found[5:].min()
    many = rng.normal(size=(30, 8)) @ candidates[:8]
    assert distances(many, candidates, 8).max() < 1e-9, "eight tokens at rank 8: every candidate is inside"


def test_a_rows_tokens_are_read_off_one_step_without_privacy_and_not_with_it(tmp_path: Path) -> None:
    config = parse_config({**federation_body(tmp_path), "model": {"base": str(BASE)}}, folder=tmp_path)
    parts = PublicParts(config)
    found = worst_case(config, parts.labels, make_canaries(parts, kind="random", count=1, seed=5))
    assert found["applies"]
    assert found["tokens"] < found["rank"]
    assert found["without_privacy"] == 1.0
    assert found["with_privacy"] <= 0.25


def test_an_encoder_with_positions_is_said_not_to_be_open_to_it(tmp_path: Path) -> None:
    config = parse_config(federation_body(tmp_path), folder=tmp_path)
    parts = PublicParts(config)
    assert worst_case(config, parts.labels, make_canaries(parts, kind="random", count=1, seed=5)) == {"applies": False}
