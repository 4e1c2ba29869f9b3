"""What is read from a federation file: defaults, paths, overrides, variants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedft.config import FederationConfig, load_config, parse_config, variant_config, with_overrides
from fedft.errors import ConfigError
from tests.config.small import FILE, VARIANTS


def test_a_file_is_read_with_its_defaults(file: Path) -> None:
    config = load_config(file)
    assert (config.federation.rounds, config.training.batch_size, config.aggregation.method) == (3, 8, "fed_svd")
    assert [(one.name, one.epsilon) for one in config.institutions] == [("north", 4.0), ("south", None)]


def test_a_folder_of_datasets_is_relative_to_the_file_too(file: Path) -> None:
    (file.parent / "kept").mkdir()
    for name, expected in (("kept", ""), ("kept:test", ":test")):
        config = load_config(file, [f"data.evaluation=datasets:{name}"])
        assert config.data.evaluation == f"datasets:{file.parent / 'kept'}{expected}"


def test_relative_paths_are_relative_to_the_file_and_names_stay(file: Path) -> None:
    (file.parent / "base").mkdir()
    config = load_config(file, ["data.reference=../ref.csv", "simulation.ledger_dir=/var/ledgers", "model.base=base"])
    assert config.data.evaluation == str(file.parent / "evaluation.jsonl")
    assert config.data.reference == str(file.parent.parent / "ref.csv")
    assert config.institutions[0].data == str(file.parent / "rows/north.jsonl")
    assert config.institutions[1].data == "datasets:clinic/south"
    assert config.simulation.ledger_dir == "/var/ledgers"
    assert config.model.base == str(file.parent / "base")
    assert load_config(file).model.base == "hub/model"
    assert load_config(file, ["model.base=package:some_module/model"]).model.base == "package:some_module/model"
    assert load_config(file, ["model.base=./missing"]).model.base == str(file.parent / "missing")


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("training.learning_rate=1e-3", lambda config: config.training.learning_rate == 1e-3),
        ("training.scheduler=cosine", lambda config: config.training.scheduler == "cosine"),
        ('federation.name="x1"', lambda config: config.federation.name == "x1"),
        ("institutions.south.epsilon=2", lambda config: config.institutions[1].epsilon == 2),
        (
            "institutions.south.faults.drop_rounds=[2, 3]",
            lambda config: config.institutions[1].faults.drop_rounds == (2, 3),
        ),
        ("institutions.north.epsilon=", lambda config: config.institutions[0].epsilon is None),
        (
            "aggregation.weights={north = 1, south = 3}",
            lambda config: config.aggregation.weights == {"north": 1, "south": 3},
        ),
        ("data.unit = patient", lambda config: config.data.unit == "patient"),
        ("adapter = { rank = 2 }", lambda config: (config.adapter.rank, config.adapter.alpha) == (2, 16.0)),
    ],
)
def test_overrides(file: Path, assignment: str, read: Callable[[FederationConfig], bool]) -> None:
    assert read(load_config(file, [assignment]))


def test_a_later_override_wins_and_the_file_is_left_alone(file: Path) -> None:
    assert load_config(file, ["training.local_steps=5", "training.local_steps=7"]).training.local_steps == 7
    assert file.read_text() == FILE


def test_int8_is_refused_with_its_reason(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)model.quantization.*lets rows of a batch change each other"):
        load_config(file, ["model.quantization=int8"])


def test_switching_privacy_off_drops_the_budget_that_it_would_not_keep(file: Path) -> None:
    off = load_config(file, ["privacy.mode=off"])
    assert (off.privacy.mode, off.privacy.epsilon, off.privacy.clip_norm) == ("off", None, None)
    assert all(one.epsilon is None for one in off.institutions)
    with pytest.raises(ConfigError, match="takes no epsilon"):
        load_config(file, ["privacy.mode=off", "privacy.epsilon=3"])
    with pytest.raises(ConfigError, match="institutions.north.epsilon"):
        load_config(file, ["privacy.mode=off", "institutions.north.epsilon=3"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[federation\n", r"syntax error: .*line 1"),
        (b'[federation]\nname = "a"\nname = "b"\n', "line 3"),
        (b"\xff\xfe", "expected UTF-8"),
        (b"", "expected federation, found nothing"),
        (b"x = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    ],
    ids=["syntax", "twice", "bytes", "empty", "deep"],
)
def test_files_that_are_no_federation(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found none: check the path, or write one with fedft init"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="expected a readable file"):
        load_config(tmp_path)


def test_a_byte_order_mark_is_no_syntax_error(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + FILE.encode())
    assert load_config(file).federation.name == "two-clinics"


def test_a_variant_is_the_federation_with_other_values_and_no_variants(file: Path) -> None:
    file.write_text(FILE + VARIANTS)
    config = load_config(file)
    off = variant_config(config, "off")
    assert (off.privacy.mode, off.training.local_steps, off.variants, off.outcome.checks) == ("off", 9, {}, ())
    assert off.data.evaluation == str(file.parent / "other.jsonl")
    assert off.institutions[1].data == str(file.parent / "south.jsonl")
    assert variant_config(config, "private").privacy == config.privacy


def test_a_resolved_config_survives_json(file: Path, tmp_path: Path) -> None:
    file.write_text(FILE + VARIANTS)
    config = load_config(file)
    stored = json.loads(json.dumps(config.model_dump(mode="json")))
    assert parse_config(stored, folder=tmp_path / "elsewhere") == config


def test_with_overrides_checks_anew_and_leaves_the_first_alone(file: Path) -> None:
    config = load_config(file)
    assert with_overrides(config, {"training.local_steps": 4}).training.local_steps == 4
    assert config.training.local_steps == 2
    assert with_overrides(config, {"institutions.north.epsilon": None}).institutions[0].epsilon is None
    with pytest.raises(ConfigError, match="at most the 2 institutions"):
        with_overrides(config, {"federation": {"min_institutions": 9}})
