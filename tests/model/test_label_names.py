"""A head that starts from the labels' names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedft.errors import ModelError
from fedft.model.adapter import AdaptedModel, attach_adapter
from fedft.model.base import load_base_model
from fedft.model.label_names import SHARPNESS, with_label_names, words_of
from tests.tiny import tiny_bert

LABELS = ("w1 w2", "w10_w11", "w30")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    folder: Path = tiny_bert(tmp_path_factory.mktemp("base"))
    base = load_base_model(str(folder), task="classification")
    return attach_adapter(
        base, method="lora", rank=2, alpha=4.0, target_modules=None, dropout=0.0, rslora=False, num_labels=3,
        pooling="mean", seed=1, orthonormal_a=True,
    )  # fmt: skip


def test_a_row_points_to_its_own_label(model: AdaptedModel) -> None:
    start = model.start_vector()
    made = model.layout.unflatten(with_label_names(model, start, LABELS))
    rows = made["head.weight"].astype(np.float64)
    assert np.abs(rows.sum(axis=0)).max() < 1e-5
    assert 0 < np.linalg.norm(rows) < 2 * SHARPNESS * len(LABELS)
    other = model.layout.unflatten(with_label_names(model, start, (*LABELS[1:], LABELS[0])))
    np.testing.assert_allclose(np.roll(rows, -1, axis=0), other["head.weight"], atol=1e-5)


def test_all_but_the_head_stays(model: AdaptedModel) -> None:
    start = model.start_vector()
    made = with_label_names(model, start, LABELS)
    for role in ("lora_A", "lora_B"):
        assert np.array_equal(model.layout.part(made, [role]), model.layout.part(start, [role]))
    assert not model.layout.unflatten(made)["head.bias"].any()


def test_a_label_without_words_is_refused(model: AdaptedModel) -> None:
    with pytest.raises(ModelError, match="labels of words"):
        with_label_names(model, model.start_vector(), ("w1", "___", "w3"))


@pytest.mark.parametrize(
    ("label", "words"), [("card_arrival", "card arrival"), ("CardArrival", "card arrival"), ("GENHX", "genhx")]
)
def test_words_of(label: str, words: str) -> None:
    assert words_of(label) == words
