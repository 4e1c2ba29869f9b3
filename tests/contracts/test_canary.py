"""A canary planted in every column of one institution's rows is found nowhere outside that institution's data file.

Looked through: messages between coordinator and institutions, log records of every level, warnings, the terminal,
errors with all they were raised from, progress events, the summary, the report, and every byte of the run folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from typer.testing import CliRunner

import fedft.rounds.institution
from fedft.cli import app
from fedft.config import FederationConfig
from fedft.errors import DataError, FedftError, StorageError
from fedft.flower.handlers import NoAnswer, make_client_app
from fedft.flower.local_grid import LocalGrid
from fedft.flower.records import body_content
from fedft.report.write import write_report
from fedft.rounds.messages import encode_request
from fedft.rounds.plan import RoundRequest
from fedft.rounds.progress import Observer
from fedft.simulation.run import play
from fedft.training.local import train_locally
from tests.contracts.test_data import everything_said
from tests.federation import federation, records_of, rows_of

CANARY = "zq7canary"
WORDS = [f"{CANARY}{place}" for place in ("text", "label", "unit", "extra")]
TRACES = [
    *(word.encode() for word in (CANARY, CANARY.upper())),
    CANARY.encode("utf-16-le"),
    *(
        trace
        for word in WORDS
        for trace in (hashlib.sha256(word.encode()).digest(), hashlib.md5(word.encode()).digest())
    ),
    *(hashlib.sha256(word.encode()).hexdigest().encode() for word in WORDS),
]
"""The canary as text, and the unsalted digests that would give a name away to whoever can guess it."""

text, label, unit, extra = WORDS


def planted() -> list[dict[str, Any]]:
    """An institution's rows: usable ones with a canary in text, unit and extra column, and broken ones."""
    rows = [row | {"text": f"{row['text']} {text}", "notes": extra, extra: "w1"} for row in rows_of(0)]
    rows += [row | {"patient": unit} for row in rows[:4]]
    broken: list[dict[str, Any]] = [
        {"text": "w1", "label": label, "patient": unit},
        {"text": [text], "label": "a", "patient": unit},
        {"text": text, "label": {"x": label}, "patient": unit},
        {"text": text, "label": "a", "patient": [unit]},
        {extra: text},
    ]
    return [*rows, *broken]


class Listener(Observer):
    """Writes down every progress event."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name == "heard" or name.startswith("_"):
            return super().__getattribute__(name)
        return lambda *args, **kwargs: self.heard.append(f"{name} {args!r} {kwargs!r}")


@contextmanager
def overheard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[list[str]]:
    """What is said while the block runs: messages, logs at DEBUG, warnings, the terminal."""
    said: list[str] = []
    deliver = LocalGrid._deliver

    def listening(self: LocalGrid, message: Message) -> Message:
        reply = deliver(self, message)
        said.extend(as_text(each) for each in (message, reply))
        return reply

    monkeypatch.setattr(LocalGrid, "_deliver", listening)
    libraries = [logging.getLogger(name) for name in ("transformers", "datasets", "flwr", "opacus", "peft")]
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for logger in libraries:
            logger.addHandler(caplog.handler)
        try:
            yield said
        finally:
            for logger in libraries:
                logger.removeHandler(caplog.handler)
    said += [caplog.text, *(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)]
    said += [str(warning) for warning in caught]
    said += capfd.readouterr()


def as_text(message: Message) -> str:
    """All that crosses with a message, byte strings as latin-1."""
    if message.has_error():
        return f"{message.metadata} {message.error.code} {message.error.reason}"
    records = {
        key: {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in record.items()}
        for key, record in message.content.items()
    }
    return f"{message.metadata} {records!r}"


def require_silence(said: list[str], *folders: Path) -> None:
    whole = "\n".join(said)
    assert CANARY not in whole.lower()
    for word in WORDS:
        assert hashlib.sha256(word.encode()).hexdigest() not in whole
    for folder in folders:
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert files
        for file in files:
            assert CANARY not in str(file).lower()
            content = file.read_bytes()
            assert not [trace for trace in TRACES if trace in content], file


def with_canary(folder: Path, *overrides: str) -> FederationConfig:
    return federation(folder, *overrides, rows={"north": planted(), "west": rows_of(1)})


SKIP = 'data.on_bad_record="skip"'
EWC = ("continual.method=ewc", "continual.strength=1.0", "continual.warm_start_steps=2")
RUNS = {
    "private": (SKIP,),
    "private-ewc": (SKIP, *EWC),
    "private-fisher": (
        SKIP, *EWC, "continual.fisher=private-dp", "data.task_column=hospital", 'continual.tasks=["north", "south"]',
        "continual.rounds_per_task=[1, 1]", "continual.warm_start_steps=0", "training.batch_size=4",
    ),
    "unprotected": (SKIP, "privacy.mode=off", "privacy.epsilon=", "privacy.delta=", "privacy.clip_norm="),
    "record-level": (SKIP, "data.unit="),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run_says_and_writes_nothing_of_a_record(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config, listener = with_canary(tmp_path / "data", *RUNS[name]), Listener()
    with overheard(monkeypatch, caplog, capfd) as said:
        summary = play(config, folder=tmp_path / "run", observer=listener)
        write_report(tmp_path / "run")
    assert summary["institutions"]["north"]["rounds_answered"] == 2
    assert (tmp_path / "run" / "institutions" / "north" / "quality.json").is_file()
    assert len(said) > 12, "messages were heard, or the test shows nothing"
    assert any(line.startswith("answered") for line in listener.heard)
    require_silence([*said, *listener.heard, json.dumps(summary)], tmp_path / "run")


def test_the_canary_would_be_heard(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The control: each channel looked through carries the canary when somebody puts it there."""

    def speak(where: str) -> None:
        if where == "log":
            logging.getLogger("fedft.anything").debug("row: %s", text)
        elif where == "library log":
            logging.getLogger("transformers").error(text)
        elif where == "warning":
            warnings.warn(text, stacklevel=1)
        else:
            print(text)

    for where in ("log", "library log", "warning", "terminal"):
        with overheard(monkeypatch, caplog, capfd) as said:
            speak(where)
        assert CANARY in "\n".join(said), where
        caplog.clear()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_bytes(b"\x00" + hashlib.sha256(unit.encode()).digest())
    with pytest.raises(AssertionError):
        require_silence([], tmp_path / "run")


def quoting(kind: type[Exception]) -> Callable[..., Any]:
    """A step of training that fails the way libraries do: with the row in its error's text, chained to another."""

    def fail(*_: object, **__: object) -> Any:
        try:
            raise ValueError(f"cannot read {text}")
        except ValueError as error:
            raise kind(f"bad value {label} of {unit}") from error

    return fail


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError, UnicodeError, MemoryError, OSError])
def test_an_error_that_quotes_a_record_becomes_one_word(
    kind: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config, listener = federation(tmp_path / "data", "federation.rounds=1"), Listener()

    def only_north_fails(model: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        return quoting(kind)() if data.name.endswith("north.jsonl") else train_locally(model, data, *args, **kwargs)

    monkeypatch.setattr(fedft.rounds.institution, "train_locally", only_north_fails)
    with overheard(monkeypatch, caplog, capfd) as said:
        summary = play(config, folder=tmp_path / "run", observer=listener)
        write_report(tmp_path / "run")
    word = "storage" if kind is OSError else "internal"
    assert records_of(tmp_path / "run")[0]["refused"] == {"north": word}
    require_silence([*said, *listener.heard, json.dumps(summary)], tmp_path / "run")


def test_an_error_before_the_first_round_says_nothing_either(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = with_canary(tmp_path / "data")
    with overheard(monkeypatch, caplog, capfd) as said, pytest.raises(DataError, match="row 95") as caught:
        play(config, folder=tmp_path / "run")
    require_silence([*said, everything_said(caught.value)])


def test_the_command_line_says_nothing_of_a_record(tmp_path: Path) -> None:
    config = with_canary(tmp_path / "data")
    file = tmp_path / "data" / "federation.toml"
    file.write_text(as_toml(config))
    refused = CliRunner().invoke(app, ["simulate", str(file), "--folder", str(tmp_path / "one"), "--plain"])
    assert refused.exit_code == 1
    assert "row 95" in refused.output
    played = CliRunner().invoke(
        app, ["simulate", str(file), "--folder", str(tmp_path / "two"), "--plain", "--set", SKIP]
    )
    assert played.exit_code == 0, played.output
    shown = [
        CliRunner().invoke(app, words).output
        for words in (
            ["plan", str(file), "--set", SKIP],
            ["ledger", "show", str(tmp_path / "two" / "institutions" / "north" / "ledger.sqlite")],
        )
    ]
    require_silence([refused.output, played.output, *shown], tmp_path / "two")


def as_toml(config: FederationConfig) -> str:
    """Enough of TOML for a configuration: JSON values are TOML's, sections are tables."""
    body = config.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    institutions = body.pop("institutions")
    tables = [(f"[{name}]", section) for name, section in body.items()]
    tables += [("[[institutions]]", section) for section in institutions]
    return "\n".join(
        "\n".join([head, *(f"{key} = {json.dumps(value)}" for key, value in section.items())])
        for head, section in tables
    )


@pytest.mark.parametrize("kind", [ValueError, FedftError, StorageError, OSError])
def test_the_relay_answers_an_error_with_a_word_or_nothing(kind: type[Exception]) -> None:
    """Flower sends an exception's text to the coordinator: the relay raises none that has one of its own."""

    def refuse_to_open(_: str) -> Any:
        raise kind(f"{text} {unit}")

    for open_institution in (refuse_to_open, lambda _: nullcontext(Quoting(kind))):
        grid = LocalGrid(make_client_app(lambda _: "north", open_institution), 1)
        request = Message(body_content(encode_request(any_request(), "")), 1, "train", group_id="1")
        asked = grid.push_messages([request, Message(RecordDict(), 1, "train", group_id="2")])
        replies = list(grid.pull_messages(asked))
        assert len(replies) == 2
        require_silence([as_text(reply) for reply in replies])


class Quoting:
    def __init__(self, kind: type[Exception]) -> None:
        self._kind = kind

    def answer(self, request: RoundRequest) -> bytes:
        raise self._kind(f"{text} of {request.plan.round}")

    def key(self, setup: str) -> bytes:
        raise self._kind(text)

    def unmask(self, question: bytes) -> bytes:
        raise self._kind(text)

    def notice(self, data: bytes) -> bytes:
        raise self._kind(text)


def test_what_the_relay_raises_has_no_text_and_no_cause() -> None:
    client_app = make_client_app(lambda _: "north", lambda _: nullcontext(Quoting(ValueError)))
    grid = LocalGrid(client_app, 1)
    request = Message(body_content(encode_request(any_request(), "")), 1, "train", group_id="1")
    request.metadata.__dict__["_message_id"] = "1"
    with pytest.raises(NoAnswer) as caught:
        client_app(request, grid._contexts[1])
    assert str(caught.value) == "no answer"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def any_request() -> RoundRequest:
    from fedft.model.vector import vector_digest
    from fedft.rounds.plan import RoundPlan
    from fedft.types import Digest

    adapter = np.zeros(3, dtype=np.float32)
    plan = RoundPlan(
        run="r", round=1, rounds=1, task="default", task_index=0, cohort=("north",), layout_digest=Digest("0" * 64),
        adapter_digest=vector_digest(adapter), roles=("head",), local_steps=1, first_step=0, total_steps=1,
    )  # fmt: skip
    return RoundRequest(plan, adapter)
