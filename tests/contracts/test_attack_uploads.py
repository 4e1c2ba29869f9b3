"""What a coordinator gets of masked rounds is uniform, and the test would see it if it were not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedft.attack.uploads import SIGNIFICANCE, check_uploads, p_values
from fedft.errors import ConfigError
from fedft.secagg.encoding import FixedPoint, to_ring
from fedft.simulation.run import play
from tests.simulation.test_masked_runs import four, played


def test_the_stored_uploads_of_a_masked_run_are_uniform(tmp_path: Path) -> None:
    played(tmp_path)
    found = check_uploads(tmp_path / "run")
    assert found.uniform
    assert found.uploads == 8, "four institutions, two rounds"


def test_a_run_without_masks_has_none(tmp_path: Path) -> None:
    play(four(tmp_path), folder=tmp_path / "run")
    with pytest.raises(ConfigError, match="found none"):
        check_uploads(tmp_path / "run")
    with pytest.raises(ConfigError, match="found none"):
        check_uploads(tmp_path / "nowhere")


def test_without_its_mask_an_update_is_far_from_uniform() -> None:
    """Also one that fills a quarter of its range, and also in a ring of few bits."""
    rng = np.random.default_rng(1)
    for bits in (16, 24, 32):
        encoding = FixedPoint.widest(bits, 1.0, {"a": 1.0, "b": 1.0, "c": 1.0})
        values = encoding.encode(rng.normal(scale=0.1, size=4000).clip(-1, 1), "a", rng.bit_generator.random_raw)
        assert min(p_values(to_ring(values, bits, encoding.limits["a"]), bits)) < 1e-12


def test_uniform_vectors_fail_as_seldom_as_stated() -> None:
    rng = np.random.default_rng(2)
    found = [p for _ in range(300) for p in p_values(rng.integers(0, 2**20, size=900, dtype=np.uint32), 20)]
    assert sum(p < 0.05 for p in found) < 55, "of 600 about 30"
    assert min(found) > SIGNIFICANCE / 100
