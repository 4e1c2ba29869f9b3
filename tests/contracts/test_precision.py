"""In bfloat16 one unit still moves a sum of clipped gradients by the clip norm at most: others' rows change nothing.

Each test has its control: with batches of any shape, as float32 has them, it fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fedft.data.formats import EncodedDataSet, EncodedExample
from fedft.errors import NotPrivate
from fedft.evaluation.local_accuracy import unit_shares
from fedft.model.adapter import AdaptedModel, attach_adapter
from fedft.model.base import load_base_model
from fedft.training import local, self_test
from fedft.training.local import LocalPlan, Mechanism, physical_batches, sum_gradients
from fedft.training.precision import Shapes, private_shapes
from fedft.training.self_test import require_private
from fedft.types import Digest, Role
from tests.tiny import tiny_llama

ROLES: tuple[Role, ...] = ("lora_A", "lora_B")
CLIP, ROWS, UNITS = 0.01, 8, 24
PLAN = LocalPlan((1.0,), 1, 1.0, Mechanism(CLIP, 0.0), physical_batch_size=ROWS, precision="bfloat16")


def adapted(folder: Path, *, task: str = "instruction", dtype: str = "float32") -> AdaptedModel:
    made = attach_adapter(
        load_base_model(str(tiny_llama(folder, width=64)), task=task, dtype=dtype, device="cpu"),  # type: ignore[arg-type]
        method="lora", rank=4, alpha=8.0, target_modules=None, dropout=0.0, rslora=False,
        num_labels=3 if task == "classification" else None, pooling="mean", seed=1, orthonormal_a=False,
    )  # fmt: skip
    made.write_vector(np.random.default_rng(2).normal(0, 0.1, made.layout.size).astype(np.float32))
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    return adapted(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data() -> EncodedDataSet:
    """Units of one row or two, of 3 to 60 tokens."""
    rng, units = np.random.default_rng(3), []
    examples: list[EncodedExample] = []
    for unit in range(UNITS):
        rows = range(len(examples), len(examples) + 1 + unit % 2)
        for _ in rows:
            length = int(rng.integers(3, 61))
            ids = rng.integers(5, 64, length).astype(np.int64)
            examples.append(EncodedExample(ids, unit % 3, np.arange(length) >= 1, unit))
        units.append(np.array(rows, dtype=np.int64))
    return EncodedDataSet(tuple(examples), tuple(units), "made up", Digest("0" * 64), 0)


def without(data: EncodedDataSet, unit: int) -> EncodedDataSet:
    return replace(data, units=data.units[:unit] + data.units[unit + 1 :])


def total(model: AdaptedModel, data: EncodedDataSet) -> npt.NDArray[np.float64]:
    flips = np.random.default_rng(0).random
    return sum_gradients(model, data, model.read_vector(), PLAN, roles=ROLES, uniform=flips).total


def largest_change(model: AdaptedModel, data: EncodedDataSet) -> float:
    whole = total(model, data)
    changes = [float(np.linalg.norm(whole - total(model, without(data, unit)))) for unit in range(UNITS)]
    return max(changes) / CLIP


def test_one_unit_moves_the_sum_by_at_most_the_clip_norm(model: AdaptedModel, data: EncodedDataSet) -> None:
    assert 0.99 < largest_change(model, data) <= 1.0


def test_in_batches_of_any_shape_it_would_move_it_by_more(
    model: AdaptedModel, data: EncodedDataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "private_shapes", lambda *_: None)
    if largest_change(model, data) <= 1.0:
        pytest.skip("this machine rounds alike in every shape")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shapes_are_asked_for_wherever_something_rounds_to_bfloat16(tmp_path: Path, dtype: str) -> None:
    made = adapted(tmp_path, dtype=dtype)
    assert private_shapes(made, "bfloat16", 8) == Shapes(8, 64)
    assert (private_shapes(made, "float32", 8) is None) == (dtype == "float32")


def test_a_batchs_shape_follows_from_public_numbers_and_a_unit_alone(data: EncodedDataSet) -> None:
    shapes, rng = Shapes(ROWS, 48), np.random.default_rng(4)

    def widths(units: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        for batch in physical_batches(data, units, PLAN, 0, rng.random, shapes):
            assert len(batch.input_ids) == ROWS
            assert bool(batch.attention_mask.any(dim=1).all())
            for unit in range(batch.unit_count):
                longest = int(batch.attention_mask[: len(batch.units)][batch.units == unit].sum(dim=1).max())
                yield longest, batch.input_ids.shape[1]

    own = dict(widths(np.arange(UNITS)))
    assert set(own.values()) == {16, 32, 48, *(length for length in own if length > 48)}
    for _ in range(20):
        drawn = np.flatnonzero(rng.random(UNITS) < 0.3)
        assert all(own[longest] == width for longest, width in widths(drawn))


def test_a_unit_of_more_rows_than_a_batch_stands_alone(data: EncodedDataSet) -> None:
    crowd = replace(data, units=(np.arange(ROWS + 3), *data.units[-2:]))
    batches = list(physical_batches(crowd, np.arange(3), PLAN, 0, np.random.default_rng(0).random, Shapes(ROWS, 64)))
    assert sorted((batch.unit_count, len(batch.input_ids)) for batch in batches)[-1][1] == ROWS + 3
    assert sum(batch.unit_count for batch in batches) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_self_test_sees_that_rows_are_independent_and_has_room_for_rounding(tmp_path: Path, dtype: str) -> None:
    found = require_private(adapted(tmp_path, dtype=dtype), ROLES, precision="bfloat16", rows=ROWS)
    assert found.independence == 0.0
    assert 1e-6 < found.gradients < self_test.BFLOAT16_TOLERANCE


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_refuses_rows_that_reach_into_their_neighbours(
    model: AdaptedModel, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By half a percent, which comparing with autograd in bfloat16 would let pass."""
    forward = type(model).forward

    def leaking(self: AdaptedModel, batch: object) -> torch.Tensor:
        logits = forward(self, batch)  # type: ignore[arg-type]
        return logits + 0.005 * logits.roll(1, dims=0) if len(logits) > 1 else logits

    monkeypatch.setattr(type(model), "forward", leaking)
    with pytest.raises(NotPrivate, match="rows"):
        require_private(model, ROLES, precision=precision, rows=ROWS)


def test_a_units_share_of_right_answers_is_its_own(tmp_path: Path, data: EncodedDataSet) -> None:
    model = adapted(tmp_path, task="classification", dtype="bfloat16")
    labelled = replace(data, examples=tuple(replace(one, target_mask=None) for one in data.examples))
    whole = unit_shares(model, labelled, batch_size=2)
    for unit in range(UNITS):
        assert np.array_equal(np.delete(whole, unit), unit_shares(model, without(labelled, unit), batch_size=2))
