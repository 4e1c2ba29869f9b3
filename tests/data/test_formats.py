"""From rows to tokens, targets and batches."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from fedft.data.examples import DataSet, load_data_set
from fedft.data.formats import (
    NO_TARGET,
    PLAIN_PROMPT,
    PLAIN_PROMPT_WITH_INPUT,
    EncodedDataSet,
    collate,
    encode_classification,
    encode_instruction,
)
from fedft.errors import BadRecord, ConfigError, DataError
from tests.tiny import classification_rows, tokenizer_into, write_jsonl

CHATML = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    return tokenizer_into(tmp_path / "tokenizer")


def sentences(folder: Path, *texts: str, label: str = "a") -> DataSet:
    rows = [{"text": text, "label": label} for text in texts]
    return load_data_set(write_jsonl(folder / "rows.jsonl", rows), fields=("text", "label"))


def instructions(folder: Path, *rows: tuple[str, str, str]) -> DataSet:
    path = write_jsonl(folder / "rows.jsonl", [{"instruction": i, "input": j, "output": o} for i, j, o in rows])
    return load_data_set(path, fields=("instruction", "output"), optional_fields=("input",))


def classify(data: DataSet, tokenizer: Any, **options: Any) -> EncodedDataSet:
    chosen = {"text": "text", "label": "label", "labels": ("a", "b", "c"), "max_length": 16, **options}
    return encode_classification(data, tokenizer, **chosen)


def target_text(tokenizer: Any, data: EncodedDataSet, row: int = 0) -> str:
    example = data.examples[row]
    assert example.target_mask is not None
    return str(tokenizer.decode(example.input_ids[example.target_mask]))


def prompt_text(tokenizer: Any, data: EncodedDataSet, row: int = 0) -> str:
    example = data.examples[row]
    assert example.target_mask is not None
    return str(tokenizer.decode(example.input_ids[~example.target_mask]))


def test_classification_gives_the_tokens_and_the_labels_place(tmp_path: Path, tokenizer: Any) -> None:
    data = classify(sentences(tmp_path, "w0 w1", "w2", label="c"), tokenizer)
    assert [example.input_ids.tolist() for example in data.examples] == [[4, 5], [6]]
    assert [(example.label, example.target_mask) for example in data.examples] == [(2, None), (2, None)]


def test_a_long_text_is_cut_at_max_length_and_at_what_the_model_reads(tmp_path: Path, tokenizer: Any) -> None:
    data = sentences(tmp_path, " ".join(["w1"] * 40))
    assert len(classify(data, tokenizer).examples[0].input_ids) == 16
    tokenizer.model_max_length = 7
    assert len(classify(data, tokenizer).examples[0].input_ids) == 7


def test_units_hold_the_positions_of_their_rows(tmp_path: Path, tokenizer: Any) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", classification_rows(30, units=7))
    loaded = load_data_set(path, fields=("text", "label"), unit_column="patient")
    data = classify(loaded, tokenizer)
    assert data.unit_count == len({example.unit for example in loaded.examples})
    assert sorted(np.concatenate(data.units)) == list(range(30))
    for number, rows in enumerate(data.units):
        assert {data.examples[row].unit for row in rows} == {number}
        assert len({loaded.examples[row].unit for row in rows}) == 1


def test_an_unknown_label_at_encoding_is_an_error_or_counted(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": "w1", "label": "a"}, {"text": "w1", "label": "zebra"}]
    data = load_data_set(write_jsonl(tmp_path / "rows.jsonl", rows), fields=("text", "label"))
    with pytest.raises(BadRecord, match='row 2, field "label"') as caught:
        classify(data, tokenizer)
    assert "zebra" not in str(caught.value)
    encoded = classify(data, tokenizer, on_bad_record="skip")
    assert (len(encoded.examples), encoded.skipped, encoded.unit_count) == (1, 1, 1)


def test_skips_of_loading_and_of_encoding_add_up(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": "w1", "label": "a"}, {"text": "w1", "label": "zebra"}, {"text": "", "label": "a"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = load_data_set(path, fields=("text", "label"), on_bad_record="skip")
    assert classify(data, tokenizer, on_bad_record="skip").skipped == 2


def test_a_text_without_a_token_is_refused(tmp_path: Path) -> None:
    class Silent:
        model_max_length = 8

        def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
            return {"input_ids": [[] if text == "?" else [1] for text in texts]}

    with pytest.raises(BadRecord, match='row 2, field "text"'):
        classify(sentences(tmp_path, "x", "?"), Silent())
    with pytest.raises(DataError, match=r"task\.max_length"):
        classify(sentences(tmp_path, "?"), Silent(), on_bad_record="skip")


def test_the_loss_is_on_the_answer_and_its_end_alone(tmp_path: Path, tokenizer: Any) -> None:
    data = encode_instruction(instructions(tmp_path, ("w1 w2", "", "w3 w4")), tokenizer, max_length=64)
    prompt = tokenizer(PLAIN_PROMPT.format(instruction="w1 w2"))["input_ids"]
    assert data.examples[0].input_ids.tolist() == [*prompt, 7, 8, tokenizer.eos_token_id]
    assert target_text(tokenizer, data) == "w3 w4 </s>"
    assert data.examples[0].label == -1


def test_an_input_has_its_own_place_in_the_prompt(tmp_path: Path, tokenizer: Any) -> None:
    data = encode_instruction(instructions(tmp_path, ("w1", "w2", "w3"), ("w1", " ", "w3")), tokenizer, max_length=64)
    for row, text in enumerate(
        (PLAIN_PROMPT_WITH_INPUT.format(instruction="w1", input="w2"), PLAIN_PROMPT.format(instruction="w1"))
    ):
        example = data.examples[row]
        assert example.target_mask is not None
        assert example.input_ids[~example.target_mask].tolist() == tokenizer(text)["input_ids"]


def test_braces_in_a_row_are_text_not_a_template(tmp_path: Path, tokenizer: Any) -> None:
    data = encode_instruction(instructions(tmp_path, ("{input} {0}", "{instruction}", "{x}")), tokenizer, max_length=64)
    assert len(data.examples) == 1


def test_the_begin_token_stands_in_front_where_the_tokenizer_sets_one(tmp_path: Path, tokenizer: Any) -> None:
    rows = instructions(tmp_path, ("w1", "", "w2"))
    assert encode_instruction(rows, tokenizer, max_length=64).examples[0].input_ids[0] != tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    encoded = encode_instruction(rows, tokenizer, max_length=64).examples[0]
    assert encoded.input_ids.tolist().count(tokenizer.bos_token_id) == 1
    assert encoded.input_ids[0] == tokenizer.bos_token_id


def test_the_chat_template_speaks_and_its_end_of_turn_belongs_to_the_answer(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    data = encode_instruction(instructions(tmp_path, ("w1", "w2", "w3 w4")), tokenizer, max_length=64)
    assert prompt_text(tokenizer, data) == "<s> [UNK] w1 w2 </s> <s> [UNK]"
    assert target_text(tokenizer, data) == "w3 w4 </s>"


def test_a_template_that_rewrites_the_prompt_keeps_the_plain_answer_and_an_end(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages | length }} {{ messages[0]['content'] }}"
    data = encode_instruction(instructions(tmp_path, ("w1", "", "w3 w4")), tokenizer, max_length=64)
    assert target_text(tokenizer, data) == "w3 w4 </s>"


def test_a_failing_chat_template_is_an_error_about_the_template(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('cannot say ' + messages[0]['content']) }}"
    with pytest.raises(DataError, match="chat template") as caught:
        encode_instruction(instructions(tmp_path, ("secret", "", "w3")), tokenizer, max_length=64)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_truncation_cuts_the_answers_end(tmp_path: Path, tokenizer: Any) -> None:
    prompt = len(tokenizer(PLAIN_PROMPT.format(instruction="w1"))["input_ids"])
    rows = instructions(tmp_path, ("w1", "", "w2 w3 w4 w5"))
    data = encode_instruction(rows, tokenizer, max_length=prompt + 2)
    assert len(data.examples[0].input_ids) == prompt + 2
    assert target_text(tokenizer, data) == "w2 w3"


def test_a_prompt_that_leaves_no_room_is_refused_or_counted(tmp_path: Path, tokenizer: Any) -> None:
    prompt = len(tokenizer(PLAIN_PROMPT.format(instruction="w1"))["input_ids"])
    rows = instructions(tmp_path, ("w1", "", "w2"), ("w1 w1", "", "w2"))
    with pytest.raises(BadRecord, match='row 2, field "output"'):
        encode_instruction(rows, tokenizer, max_length=prompt + 1)
    assert encode_instruction(rows, tokenizer, max_length=prompt + 1, on_bad_record="skip").skipped == 1


def test_a_row_longer_than_the_model_reads_says_nothing_of_its_length(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers warns with the row's own length, a value of the data."""
    tokenizer.model_max_length = 30
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        encode_instruction(instructions(tmp_path, ("w1", "", " ".join(["w2"] * 90))), tokenizer, max_length=64)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.records == []


def test_the_policy_for_bad_rows_is_one_of_two_words(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="on_bad_record"):
        classify(sentences(tmp_path, "w1"), tokenizer, on_bad_record="ignore")


def test_a_batch_of_classification(tmp_path: Path, tokenizer: Any) -> None:
    data = classify(sentences(tmp_path, "w0 w1 w2", "w3"), tokenizer)
    batch = collate(data.examples, pad_id=0)
    assert batch.input_ids.tolist() == [[4, 5, 6], [7, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [0, 0]
    assert (batch.units.tolist(), batch.unit_count) == ([0, 1], 2)


def test_a_batch_of_instructions_has_targets_on_the_answer_alone(tmp_path: Path, tokenizer: Any) -> None:
    data = encode_instruction(instructions(tmp_path, ("w1", "", "w2"), ("w1", "", "w2 w3")), tokenizer, max_length=64)
    batch = collate(data.examples, pad_id=0)
    is_target = batch.labels != NO_TARGET
    assert is_target.sum(dim=1).tolist() == [2, 3]
    assert bool((batch.labels[is_target] == batch.input_ids[is_target]).all())
    assert not bool((is_target & (batch.attention_mask == 0)).any())


def test_units_of_a_batch_are_renumbered_or_given(tmp_path: Path, tokenizer: Any) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", classification_rows(20, units=4))
    data = classify(load_data_set(path, fields=("text", "label"), unit_column="patient"), tokenizer)
    rows = [data.examples[row] for row in (*data.units[2], *data.units[0])]
    batch = collate(rows, 0)
    assert batch.units.tolist() == [0] * len(data.units[2]) + [1] * len(data.units[0])
    assert collate(rows[:2], 0, [1, 0]).units.tolist() == [1, 0]


def test_an_empty_batch_can_be_made() -> None:
    batch = collate([], 0)
    assert (batch.unit_count, len(batch.labels)) == (0, 0)
