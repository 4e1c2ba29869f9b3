"""An institution's policy: what loads, what is refused and in which words, and the template that cannot drift."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedft.config import InstitutionPolicy, load_policy, parse_policy, policy_template
from fedft.config.keys import known_keys, nearest_key, section_of
from fedft.errors import ConfigError

KEY = "ed25519:" + "a1" * 32
TEMPLATE = policy_template("north", "hospitals", KEY)
DOCS = Path(__file__).parents[2] / "docs" / "policy.md"


def body() -> dict[str, Any]:
    return tomllib.loads(TEMPLATE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(TEMPLATE)
    path.chmod(0o644)
    return path


def test_the_template_loads(file: Path) -> None:
    policy = load_policy(file)
    assert policy.institution.name == "north"
    assert policy.institution.coordinator == KEY
    assert [dataset.federation for dataset in policy.datasets] == ["hospitals"]
    assert policy == parse_policy(body(), folder=file.parent)


def test_the_template_allows_no_model_and_no_release_until_someone_writes_it(file: Path) -> None:
    policy = load_policy(file)
    assert {model.sha256 for model in policy.models} == {"0" * 64}
    assert (policy.release.unprotected, policy.release.private_fisher) == ((), False)


def test_the_template_says_of_every_key_what_it_means() -> None:
    lines = [line.removeprefix("# ") for line in TEMPLATE.splitlines()]
    for key in known_keys(InstitutionPolicy):
        word = key.rpartition(".")[2]
        found = [
            line for line in lines if re.match(rf"{word} = .+  # .{{10,}}", line) or re.match(rf"\[+{word}\]", line)
        ]
        assert found, key


def test_what_the_template_sets_can_be_said() -> None:
    text = policy_template("north", "hospitals", KEY, {"institution.roster": "kit/roster.json", "agent.queue": 9})
    policy = parse_policy(tomllib.loads(text), folder=Path("/etc/fedft"))
    assert (policy.institution.roster, policy.agent.queue) == (Path("/etc/fedft/kit/roster.json"), 9)


def test_paths_are_relative_to_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/north")
    policy = load_policy(file)
    home = file.parent
    assert policy.institution.identity == home / "identity.key"
    assert policy.agent.socket == home / "agent.sock"
    assert policy.models[0].path == home / "models" / "base"
    assert policy.datasets[0].path == home / "notes.jsonl"
    moved = body()
    moved["datasets"][0] |= {"path": "/srv/notes.csv", "reference": "../public.jsonl"}
    moved["agent"]["state"] = "~/state"
    policy = parse_policy(moved, folder=Path("/etc/fedft"))
    assert policy.datasets[0].path == Path("/srv/notes.csv")
    assert policy.datasets[0].reference == Path("/etc/public.jsonl")
    assert policy.agent.state == Path("/home/north/state")


def test_a_policy_cannot_be_changed_after_it_is_read(file: Path) -> None:
    policy = load_policy(file)
    with pytest.raises(ValueError, match="frozen"):
        policy.allow.max_rounds = 10**6


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622, 0o666, 0o777])
def test_a_file_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"found mode {mode:04o}.*chmod go-w"):
        load_policy(file)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o644])
def test_a_file_that_others_may_only_read_is_taken(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert load_policy(file).institution.name == "north"


def test_a_link_is_as_its_target_is(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    assert load_policy(link).institution.name == "north"
    os.chmod(file, 0o666)
    with pytest.raises(ConfigError, match="mode 0666"):
        load_policy(link)


REFUSED: dict[str, tuple[str, object, str]] = {
    "unknown key": ("allow.max_round", 3, 'unknown key "allow.max_round": the nearest .* "allow.max_rounds"'),
    "unknown key of a data set": ("datasets.0.epsilom", 3, '"datasets.notes.epsilom": the .* "datasets.*.epsilon"'),
    "key of a federation file": ("privacy", {"mode": "off"}, 'unknown key "privacy": the nearest known one is'),
    "missing": ("allow.max_clip_norm", None, "expected allow.max_clip_norm, found nothing: add it"),
    "no budget": ("datasets.0.epsilon", None, "expected datasets.notes.epsilon, found nothing"),
    "budget of nothing": ("datasets.0.epsilon", 0.0, "datasets.notes.epsilon to be above 0, found 0"),
    "budget without end": ("datasets.0.epsilon", float("inf"), "epsilon to be a finite number, found inf"),
    "budget not a number": ("datasets.0.epsilon", float("nan"), "epsilon to be a"),
    "delta of 1": ("datasets.0.delta", 1.0, "datasets.notes.delta to be below 1"),
    "delta of 0": ("datasets.0.delta", 0.0, "datasets.notes.delta to be above 0"),
    "noise below nothing": ("allow.min_noise_multiplier", -0.1, "min_noise_multiplier to be at least 0"),
    "noise without end": ("allow.min_noise_multiplier", float("inf"), "to be a finite number"),
    "no round": ("allow.max_rounds", 0, "allow.max_rounds to be at least 1, found 0"),
    "text is no number": ("allow.max_rounds", "50", 'to be a whole number, found "50"'),
    "yes is no number": ("agent.queue", True, "to be a whole number, found true"),
    "a queue without end": ("agent.queue", 10**6, "agent.queue to be at most 1024"),
    "no request fits": ("agent.max_request_bytes", 10, "max_request_bytes to be at least 1024"),
    "unknown task": ("allow.tasks", ["preference"], 'to be "classification" or "instruction", found "preference"'),
    "one task as text": ("allow.tasks", "classification", 'allow.tasks to be a list, found "classification"'),
    "unknown release": ("release.unprotected", ["losses"], 'to be "update", found "losses"'),
    "half a digest": ("models.0.sha256", "ab", "models.1.sha256 to be a SHA-256"),
    "no model": ("models", [], "expected models to be a list of at least 1"),
    "no data set": ("datasets", [], "expected datasets to be a list of at least 1"),
    "no key": ("institution.coordinator", "ed25519:00", "institution.coordinator to be a public key"),
    "a number as path": ("agent.socket", 3, "agent.socket to be a path, found 3"),
    "an empty path": ("datasets.0.path", "", 'datasets.notes.path to be a path, found ""'),
    "a list as path": ("institution.roster", ["roster.json"], "institution.roster to be a path"),
    "free text as name": ("institution.name", "St. Anna", "institution.name to be letters, digits"),
    "an empty unit": ("datasets.0.unit", "", "datasets.notes.unit to be text that is not empty"),
    "no table": ("agent", 3, "expected agent to be a table, found 3"),
    "another federation's data alone": ("datasets.0.federation", "banks", 'needs a data set with federation = "hosp'),
    "two data sets": ("datasets", [body()["datasets"][0]] * 2, "the file needs datasets.name to be different"),
    "one model twice": ("models", [body()["models"][0]] * 2, "the file needs models.sha256 to be different"),
}  # fmt: skip


def changed(key: str, value: object) -> dict[str, Any]:
    whole = body()
    *tables, last = key.split(".")
    here: Any = whole
    for part in tables:
        here = here[int(part)] if part.isdigit() else here[part]
    if value is None:
        del here[last]
    else:
        here[last] = value
    return whole


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_policy_is_refused_in_words(name: str) -> None:
    key, value, words = REFUSED[name]
    with pytest.raises(ConfigError, match=words):
        parse_policy(changed(key, value), folder=Path("/etc/fedft"))


def test_one_federation_has_one_data_set() -> None:
    one = body()["datasets"][0]
    with pytest.raises(ConfigError, match="datasets.federation to be different"):
        parse_policy(changed("datasets", [one, {**one, "name": "other"}]), folder=Path("/"))
    two = parse_policy(changed("datasets", [one, {**one, "name": "o", "federation": "banks"}]), folder=Path("/"))
    assert len(two.datasets) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "expected a policy, found none"), (b"\xff", "UTF-8"), (b"a = ", "syntax error"), (b"", "found nothing")],
)
def test_a_file_that_is_none_is_refused_with_its_name(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(ConfigError, match=words) as caught:
        load_policy(path)
    assert str(caught.value).startswith(str(path))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "path", "x"]), inner),
    max_leaves=6,
)


@given(st.sampled_from([key for key in known_keys(InstitutionPolicy) if "*" not in key]), _VALUES)
def test_no_value_whatever_does_anything_else_than_be_taken_or_refused(key: str, value: object) -> None:
    try:
        parse_policy(changed(key, value), folder=Path("/"))
    except ConfigError as error:
        assert str(error)
    except KeyError:
        assert value is None


@given(st.sampled_from(sorted(known_keys(InstitutionPolicy))), st.integers(0, 40), st.sampled_from("abcxyz_"))
def test_a_slip_in_a_key_is_told_a_key_of_a_policy(key: str, place: int, letter: str) -> None:
    typo = key[: place % (len(key) + 1)] + letter + key[place % (len(key) + 1) :]
    assert nearest_key(typo, InstitutionPolicy) in known_keys(InstitutionPolicy)


def test_every_line_of_a_policy_is_explained() -> None:
    """docs/policy.md has one row for each key, in the order of the file, and no other."""
    words = DOCS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9_.]+)` \|", words, re.MULTILINE)
    keys = known_keys(InstitutionPolicy)
    leaves = [key.replace(".*", "") for key, field in keys.items() if section_of(field.annotation)[0] is None]
    assert rows == leaves
