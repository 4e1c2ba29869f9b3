"""Federation files: what is read, what is refused and in which words, and that the template cannot drift."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.config import FederationConfig, load_config, parse_config, template, variant_config, with_overrides
from fedft.config.keys import known_keys, nearest_key, section_of
from fedft.config.template import EXAMPLES
from fedft.errors import ConfigError

ROOT = Path(__file__).parent.parent
FILE = """
[federation]
name = "two-clinics"
rounds = 3

[model]
base = "hub/model"

[task]
kind = "classification"
labels = ["a", "b"]

[data]
evaluation = "evaluation.jsonl"

[training]
local_steps = 2
batch_size = 8
learning_rate = 0.01

[privacy]
mode = "dp-sgd"
epsilon = 8.0
delta = 1e-5
clip_norm = 1.0

[[institutions]]
name = "north"
data = "rows/north.jsonl"
epsilon = 4.0

[[institutions]]
name = "south"
data = "datasets:clinic/south"
"""
SHARED = 'data={ evaluation = "e.csv", train = "t.csv", partition = { method = "iid", institutions = 2 } }'
NO_LIST = "institutions="


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "federation.toml"
    path.write_text(FILE)
    return path


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


def test_switching_privacy_off_drops_the_budget_that_it_would_not_keep(file: Path) -> None:
    off = load_config(file, ["privacy.mode=off"])
    assert (off.privacy.mode, off.privacy.epsilon, off.privacy.clip_norm) == ("off", None, None)
    assert all(one.epsilon is None for one in off.institutions)
    with pytest.raises(ConfigError, match="takes no epsilon"):
        load_config(file, ["privacy.mode=off", "privacy.epsilon=3"])
    with pytest.raises(ConfigError, match="institutions.north.epsilon"):
        load_config(file, ["privacy.mode=off", "institutions.north.epsilon=3"])


REFUSED = {
    "unknown key": ("training.lerning_rate=1", '"training.lerning_rate": the nearest .* "training.learning_rate"'),
    "key of another section": ("federation.clip_norm=1", 'the nearest known one is "privacy.clip_norm"'),
    "unknown section": ("trainning.local_steps=1", 'unknown key "trainning": the nearest known one is "training"'),
    "unknown key of an institution": ("institutions.north.epsilom=1", 'nearest known one is "institutions.*.epsilon"'),
    "unknown institution": ("institutions.nord.epsilon=1", 'by its name, found "nord": the nearest .* "north"'),
    "no entry": ("outcome.checks.1.figure=x", 'one of outcome.checks by its name, found "1": there is none'),
    "a list's entry alone": ("institutions.north=1", "found .institutions.north.: add the key"),
    "no assignment": ("training.local_steps", "expected KEY=VALUE, found"),
    "below a value": ("training.local_steps.x=1", 'expected a table at "training.local_steps", found a value'),
    "range": ("training.local_steps=0", "training.local_steps to be at least 1, found 0"),
    "fraction": ("training.local_steps=1.5", "training.local_steps to be a whole number, found 1.5"),
    "true is no number": ("training.learning_rate=true", "learning_rate to be a number, found true"),
    "text is no number": ('training.batch_size="8"', 'batch_size to be a whole number, found "8"'),
    "not finite": ("training.learning_rate=inf", "learning_rate to be a finite number, found inf"),
    "choice": ("training.optimizer=adam", 'optimizer to be "sgd" or "adamw", found "adam"'),
    "name": ("federation.name=a b", 'federation.name to be letters, digits.*found "a b"'),
    "digest": ("model.sha256=00", "model.sha256 to be a SHA-256"),
    "table": ("privacy=3", "expected privacy to be a table, found 3"),
    "several types": ("training.scheduler_options={a = [1]}", "options.a to be a number or .* or text, found"),
    "missing": ("training.batch_size=", "expected training.batch_size, found nothing: add it"),
    "incomplete privacy": ("privacy.delta=", r'\[privacy\] mode "dp-sgd" needs delta'),
    "delta": ("privacy.delta=1", "privacy.delta to be below 1, found 1"),
    "long values are cut": (f"training.optimizer={'x' * 500}", r'found "x{10,60}\.\.\.: correct it'),
    "quorum": ("federation.min_institutions=3", "at most the 2 institutions, found 3"),
    "train beside own rows": (SHARED, "found data.train and institutions.north.data"),
    "train alone": ("data.train=t.csv", "found data.train alone: add data.partition"),
    "partition alone": ('data.partition={method="iid", institutions=2}', "found data.partition alone: add data.train"),
    "no rows for one": ("institutions.north.data=", "found none: add institutions.north.data"),
    "no rows at all": (NO_LIST, r"add data.train with data.partition, or \[\[institutions\]\]"),
    "rows of no unit": ("data.max_rows_per_unit=2", "expected data.unit with data.max_rows_per_unit"),
    "clipping twice": ("training.max_gradient_norm=1", "privacy.clip_norm clips each unit already"),
    "EWC without strength": ("continual.method=ewc", "needs a strength above 0"),
    "EWC without rows": ('continual={method="ewc", strength=1}', 'data.reference with continual.fisher = "public"'),
    "warm start without rows": ("continual.warm_start_steps=1", "data.reference with continual.warm_start_steps"),
    "tasks without column": ('continual={tasks=["a"], rounds_per_task=[3]}', "expected data.task_column"),
    "tasks without rounds": ('continual.tasks=["a"]', "tasks and rounds_per_task must have the same length"),
    "Adam under FedSVD": ("aggregation.server_optimizer=adam", 'with method "fed_svd", found "adam"'),
    "unknown weight": ("aggregation.weights={north=1, sout=1}", 'aggregation.weights.sout": the nearest .* "south"'),
    "missing weight": ("aggregation.weights={north=1}", "found none for south"),
    "bad weight": ("aggregation.weights={north=1, south=0}", "aggregation.weights.south to be above 0"),
    "metric": ("evaluation.metric=f1", 'evaluation.metric to be "auto", "accuracy"'),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_key_value_and_what_is_allowed(file: Path, name: str) -> None:
    override, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(file, [override])
    assert str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.kind=instruction", "task.labels=", "adapter.method=head"], 'adapter.method = "lora"'),
        (["task.kind=instruction", "task.labels=", "evaluation.metric=accuracy"], 'evaluation.metric "auto" or "loss"'),
        (["task.kind=instruction"], "expected no task.labels"),
        (["data.task_column=t", 'continual={tasks=["a","a"], rounds_per_task=[1,1]}'], "found one twice"),
        (["data.task_column=t", 'continual={tasks=["a","b"], rounds_per_task=[2,2]}'], "at most federation.rounds = 3"),
        (["privacy.mode=off", 'continual={method="ewc", strength=1, fisher="private-dp"}'], 'fisher = "public"'),
        ([NO_LIST, SHARED, "federation.min_institutions=3"], "at most the 2 institutions"),
        (
            [SHARED, "institutions.north.data=", "institutions.south.data=", "data.partition.institutions=5"],
            "the 2 listed",
        ),
    ],
)
def test_sections_that_do_not_fit_together(file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(file, overrides)


def test_combinations_that_do_fit(file: Path) -> None:
    for overrides in (
        ["aggregation.server_optimizer=adam", "aggregation.method=fedavg"],
        ["aggregation.server_optimizer=adam", "adapter.method=head"],
        ["privacy.mode=off", "training.max_gradient_norm=1"],
        ['continual={method="ewc", strength=1, fisher="private-dp"}'],
        [NO_LIST, SHARED],
        [SHARED, "institutions.north.data=", "institutions.south.data="],
    ):
        load_config(file, overrides)


def test_two_institutions_of_one_name(file: Path) -> None:
    file.write_text(FILE.replace('"south"', '"north"'))
    with pytest.raises(ConfigError, match='found "north" 2 times'):
        load_config(file)


def test_all_problems_are_told_at_once(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, ["training.local_steps=0", "privacy.mode=on", "foo=1"])
    title, *lines = str(caught.value).splitlines()
    assert title == f"{file}: found 3 problems:"
    assert all(any(key in line for line in lines) for key in ("local_steps", "privacy.mode", "foo"))


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


VARIANTS = """
[outcome]
checks = [{ figure = "off.final.accuracy", at_least = 1.0, of = "private.final.accuracy" }]
[variants.private]
[variants.off]
"privacy.mode" = "off"
"data.evaluation" = "other.jsonl"
training.local_steps = 9
institutions.south.data = "south.jsonl"
"""


def test_a_variant_is_the_federation_with_other_values_and_no_variants(file: Path) -> None:
    file.write_text(FILE + VARIANTS)
    config = load_config(file)
    off = variant_config(config, "off")
    assert (off.privacy.mode, off.training.local_steps, off.variants, off.outcome.checks) == ("off", 9, {}, ())
    assert off.data.evaluation == str(file.parent / "other.jsonl")
    assert off.institutions[1].data == str(file.parent / "south.jsonl")
    assert variant_config(config, "private").privacy == config.privacy


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ('[variants.x]\n"training.local_step" = 1\n', r'variants.x: found unknown key "training.local_step"'),
        ('[variants.x]\n"privacy.epsilon" = -1\n', r"variants.x: expected privacy.epsilon to be above 0"),
        ('[variants."a b"]\n', "variants.a b to be letters"),
        ("[variants]\nx = 3\n", "expected variants.x to be a table"),
        (
            '[variants.x]\n[[outcome.checks]]\nfigure = "y.final.loss"\nat_most = 1\n',
            "VARIANT.path, found .y.final.loss",
        ),
        ('[[outcome.checks]]\nfigure = "final.loss"\n', "needs at_least, at_most or equals"),
    ],
)
def test_a_wrong_variant_is_found_before_anything_runs(file: Path, addition: str, message: str) -> None:
    file.write_text(FILE + addition)
    with pytest.raises(ConfigError, match=message):
        load_config(file)


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


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*sorted(known_keys()), "foo", "training.foo"]), _VALUES, max_size=3))
def test_any_values_either_make_a_config_or_a_config_error(values: dict[str, Any]) -> None:
    config = parse_config(tomllib.loads(FILE), folder=Path("/nowhere"))
    try:
        changed = with_overrides(config, {key.replace("*", "north"): value for key, value in values.items()})
    except ConfigError as error:
        assert str(error)
    else:
        assert isinstance(changed, FederationConfig)
        assert parse_config(changed.model_dump(mode="json"), folder=Path("/nowhere")) == changed


@given(st.text(max_size=30))
def test_any_text_after_the_equals_sign_is_read_or_refused(text: str) -> None:
    try:
        config = parse_config(tomllib.loads(FILE), folder=Path("/nowhere"), overrides=[f"data.unit={text}"])
    except ConfigError as error:
        assert "data.unit" in str(error)
    else:
        assert config.data.unit is None or isinstance(config.data.unit, str)
