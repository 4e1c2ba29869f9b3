"""evaluation/local_accuracy.py: one unit changes the sum by at most 1, noise is as stated, and a unit counts once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedft.data.examples import load_data_set
from fedft.data.formats import encode_classification
from fedft.errors import ConfigError
from fedft.evaluation.local_accuracy import noised_sum, unit_shares
from fedft.model.adapter import attach_adapter
from fedft.model.base import load_base_model
from fedft.randomness import SecureStream
from tests.tiny import classification_rows, tiny_bert, write_jsonl

LABELS = ("a", "b", "c")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.data())
def test_one_unit_changes_the_sum_by_at_most_one(shares: list[float], data: st.DataObject) -> None:
    left_out = data.draw(st.integers(0, len(shares) - 1))
    neighbour = np.array(shares[:left_out] + shares[left_out + 1 :])
    assert abs(np.array(shares).sum() - neighbour.sum()) <= 1 + 1e-9


@pytest.mark.parametrize("share", [-0.1, 1.1, np.nan, np.inf])
def test_a_share_outside_zero_to_one_is_released_by_nobody(share: float) -> None:
    with pytest.raises(ConfigError):
        noised_sum(np.array([0.5, share]), 1.0, SecureStream())


def test_the_noise_has_the_stated_deviation() -> None:
    stream, shares, noise = SecureStream(), np.array([1.0, 0.5]), 7.0
    drawn = np.array([noised_sum(shares, noise, stream) for _ in range(4000)]) - shares.sum()
    assert 1e-6 < stats.chi2.cdf((drawn**2).sum() / noise**2, len(drawn)) < 1 - 1e-6
    assert abs(drawn.mean()) < 6 * noise / np.sqrt(len(drawn))


def test_a_unit_counts_once_however_many_rows_it_has(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    tiny_bert(tmp_path / "base")
    base = load_base_model(str(tmp_path / "base"), task="classification")
    model = attach_adapter(
        base, method="lora", rank=2, alpha=4.0, target_modules=None, dropout=0.0, rslora=False, pooling="mean", seed=1,
        orthonormal_a=False, num_labels=len(LABELS),
    )  # fmt: skip
    rows = list(classification_rows(30, seed=5, units=10))
    crowd = [{**rows[0], "patient": "crowd"}] * 50
    write_jsonl(tmp_path / "rows.jsonl", [*rows, *crowd])
    data = load_data_set(tmp_path / "rows.jsonl", fields=("text", "label"), unit_column="patient", labels=LABELS,
                         label_field="label")  # fmt: skip
    encoded = encode_classification(data, base.tokenizer, text="text", label="label", labels=LABELS, max_length=16)
    shares = unit_shares(model, encoded, batch_size=7)
    assert shares.shape == (encoded.unit_count,)
    assert ((shares >= 0) & (shares <= 1)).all()
    (crowded,) = [share for share, unit in zip(shares, encoded.units, strict=True) if len(unit) == 50]
    assert crowded in (0.0, 1.0)
