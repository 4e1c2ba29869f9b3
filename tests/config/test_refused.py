"""What a federation file is refused for, and in which words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.config import FederationConfig, load_config, parse_config, with_overrides
from fedft.config.keys import known_keys
from fedft.errors import ConfigError
from tests.config.small import FILE

SHARED = 'data={ evaluation = "e.csv", train = "t.csv", partition = { method = "iid", institutions = 2 } }'
NO_LIST = "institutions="

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
