"""The promises of a round, each on whole institutions and whole runs.

Spent before the first gradient and never twice (DESIGN, promise 3); nothing leaves that is not recorded, a word or a
name (promise 2); what was spent can be computed again (promise 4). Deaths at every step: tests/simulation/test_resume.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from base64 import b64decode
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

import fedft.rounds.institution
import fedft.training.local
from fedft.errors import FederationError
from fedft.flower.local_grid import LocalGrid
from fedft.flower.records import RECEIPT, RECORD, body_of
from fedft.ledger.store import Ledger
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.events import DpSgdRound
from fedft.rounds.messages import (
    decode_answer,
    decode_notice,
    decode_presence,
    decode_question,
    decode_request,
    split_attestation,
)
from fedft.rounds.plan import RoundPlan
from fedft.simulation.run import play
from fedft.simulation.setup import Setup
from fedft.training.local import train_locally
from fedft.training.losses import per_example_loss
from fedft.update.release import REASONS, Refusal
from tests.dying import KILLED
from tests.federation import NAMES, OFF, adapter_of, federation, institution_at, records_of, request_of, rows_of
from tests.simulation.killed_run import play_in_child

SAME = dict.fromkeys(NAMES, rows_of(0))


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(federation(tmp_path_factory.mktemp("data"), rows=SAME))


def on_disk(path: Path, name: str = "north") -> tuple[Any, ...]:
    """What another reader finds charged at this moment."""
    with Ledger.open(path, read_only=True) as ledger:
        return ledger.events(name)


def test_the_spend_is_on_disk_before_a_private_row_meets_the_model(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "ledger.sqlite", []

    def watching(*args: Any) -> Any:
        seen.append(on_disk(path))
        return per_example_loss(*args)

    monkeypatch.setattr(fedft.training.local, "per_example_loss", watching)
    with Ledger.open(path) as ledger:
        assert isinstance(institution_at(setup, ledger).answer(request_of(setup)), bytes)
    assert seen
    assert all(isinstance(event, DpSgdRound) for events in seen for event in events)
    assert {len(events) for events in seen} == {1}


def test_killed_at_the_first_private_row_the_spend_stands_and_the_round_is_not_paid_again(tmp_path: Path) -> None:
    config = federation(tmp_path / "data", "federation.rounds=1", rows=SAME)
    run = tmp_path / "run"
    assert play_in_child(config, run, point="at-the-first-private-row") == KILLED
    path = run / "institutions" / "north" / "ledger.sqlite"
    charged = on_disk(path)
    assert len(charged) == 1
    play(config, folder=run, resume=True)
    assert on_disk(path) == charged


def test_killed_after_its_release_a_round_is_answered_with_the_first_bytes(tmp_path: Path) -> None:
    config = federation(tmp_path / "data", "federation.rounds=1", rows=SAME)
    run = tmp_path / "run"
    assert play_in_child(config, run, point="after-a-release") == KILLED
    path = run / "institutions" / "north" / "ledger.sqlite"
    name = json.loads((run / "config.json").read_text())["run"]
    with Ledger.open(path, read_only=True) as ledger:
        first = ledger.stored_release(name, 1, "update")
    assert first is not None
    heard: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        listen(patch, lambda _, reply: heard.append(update_in(reply)))
        play(config, folder=run, resume=True)
    assert first in heard


def update_in(reply: Message) -> bytes:
    """Of an answer to a round; nothing of any other reply."""
    if reply.has_error() or reply.metadata.message_type != "train":
        return b""
    answer = decode_answer(body_of(reply.content))
    return answer if isinstance(answer, bytes) else b""


def listen(patch: pytest.MonkeyPatch, hear: Any) -> None:
    deliver = LocalGrid._deliver

    def listening(self: LocalGrid, message: Message) -> Message:
        reply = deliver(self, message)
        hear(message, reply)
        return reply

    patch.setattr(LocalGrid, "_deliver", listening)


def recorded(run: Path) -> set[str]:
    """SHA-256 of every update in any ledger of the run."""
    found = set()
    for name in NAMES:
        with Ledger.open(run / "institutions" / name / "ledger.sqlite", read_only=True) as ledger:
            found |= {entry.fields["sha256"] for entry in ledger.entries() if entry.kind == "release"}
    return found


def test_what_crosses_is_a_recorded_update_a_word_a_name_or_an_empty_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run in which about everything happens: updates, spent budgets, crashes, silence, wrong plans."""
    crashing = iter([MemoryError("zq7canary"), OSError("zq7canary"), None, None])

    def sometimes(model: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        if data.name.endswith("north.jsonl") and (error := next(crashing)) is not None:
            raise error
        return train_locally(model, data, *args, **kwargs)

    monkeypatch.setattr(fedft.rounds.institution, "train_locally", sometimes)
    messages: list[tuple[Message, Message]] = []
    listen(monkeypatch, lambda message, reply: messages.append((message, reply)))
    config = federation(
        tmp_path / "data", "federation.rounds=4", "institutions.south.epsilon=6.5",
        "institutions.west.faults.drop_rounds=[1, 3]", rows=SAME,
    )  # fmt: skip
    play(config, folder=tmp_path / "run")
    kinds: Counter[str] = Counter()
    digests = recorded(tmp_path / "run")
    for message, reply in messages:
        if message.metadata.message_type == RECEIPT:
            run, _ = decode_notice(body_of(message.content))
            note = body_of(reply.content).decode()
            assert_nothing_but_head_and_digest(note, tmp_path / "run", f"{run} 0", body_of(message.content))
            kinds["receipt"] += 1
            continue
        if message.metadata.message_type == "query":
            nonce, setup = decode_question(body_of(message.content))
            name, key = decode_presence(body_of(reply.content), nonce=nonce)
            assert name in NAMES
            assert (setup, key) == ("", b"")
            continue
        assert isinstance(decode_request(body_of(message.content))[0].plan, RoundPlan)
        if reply.has_error():
            assert reply.error.reason is None
            kinds["error"] += 1
            continue
        answer = decode_answer(body_of(reply.content))
        kinds[answer.reason if isinstance(answer, Refusal) else "update"] += 1
        assert dict(reply.content[RECORD]).keys() == {"body"}
        plan, (note, bare) = decode_request(body_of(message.content))[0].plan, split_attestation(body_of(reply.content))
        assert_nothing_but_head_and_digest(note, tmp_path / "run", f"{plan.run} {plan.round}", bare)
        if isinstance(answer, bytes):
            assert hashlib.sha256(answer).hexdigest() in digests
        else:
            assert answer.reason in REASONS
    assert {kind for kind, count in kinds.items() if count} == {
        "error", "internal", "storage", "budget-exhausted", "update", "receipt",
    }  # fmt: skip
    assert kinds["update"] == len(digests)


def assert_nothing_but_head_and_digest(note: str, run: Path, asked: str, answer: bytes) -> None:
    """release.py: beside an answer go the ledger's id, count and last hash, run, round, digest, signature; no more."""
    text, last = note.split("\n\n")
    dash, name, signature = last.split(" ")
    with Ledger.open(run / "institutions" / name / "ledger.sqlite", read_only=True) as ledger:
        entries = ledger.entries()
    count = int(text.split("\n")[2])
    said = [
        "fedft/v1/ledger-head", entries[0].fields["ledger"], str(count), entries[count - 1].hash,
        f"{asked} {hashlib.sha256(answer).hexdigest()}",
    ]  # fmt: skip
    assert text.split("\n") == said
    assert re.fullmatch("[0-9a-f]{32}", said[1])
    assert (dash, name in NAMES, signature[-1], len(b64decode(signature))) == ("\u2014", True, "\n", 4 + 64)


def test_every_epsilon_told_is_computed_from_the_ledgers_events_and_never_falls(tmp_path: Path) -> None:
    config = federation(tmp_path / "data", "federation.rounds=3", rows=SAME)
    play(config, folder=tmp_path / "run")
    told = [record["epsilon"]["north"] for record in records_of(tmp_path / "run")]
    events = on_disk(tmp_path / "run" / "institutions" / "north" / "ledger.sqlite")
    assert told == [epsilon_of(events[:number], 1e-3) for number in (1, 2, 3)]
    assert sorted(told) == told


def test_a_coordinator_set_back_gets_the_stored_bytes_and_nobody_pays_twice(tmp_path: Path) -> None:
    """Its folder comes from a backup of a round ago; the institutions remember more than it does."""
    config = federation(tmp_path / "data", "federation.rounds=2", "aggregation.method=ffa_lora", rows=SAME)
    run, backup = tmp_path / "run", tmp_path / "backup"
    assert play_in_child(config, run, point="after-an-entry") == KILLED
    shutil.copytree(run, backup)
    assert play_in_child(config, run, point="before-the-export") == KILLED
    after, charged = adapter_of(run, 2), on_disk(run / "institutions" / "north" / "ledger.sqlite")
    shutil.rmtree(run / "checkpoints" / "round-0002")
    with pytest.raises(FederationError, match="no round is played twice"):
        play(config, folder=run, resume=True)
    for name in ("audit.jsonl", "audit.head"):
        shutil.copy(backup / name, run / name)
    play(config, folder=run, resume=True)
    assert np.array_equal(adapter_of(run, 2), after)
    assert on_disk(run / "institutions" / "north" / "ledger.sqlite") == charged


def test_two_coordinators_of_one_run_cannot_have_two_answers_for_one_charge(setup: Setup, tmp_path: Path) -> None:
    """The same round from two different adapters would be two looks at the rows: the second plan is refused."""
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        north = institution_at(setup, ledger)
        first = north.answer(request_of(setup))
        second = north.answer(request_of(setup, adapter=setup.model.start_vector() * np.float32(2)))
        assert isinstance(first, bytes)
        assert second == Refusal("north", "run", 1, "ledger")
        assert len(ledger.events("north")) == 1


def test_without_privacy_that_is_written_wherever_one_could_look(tmp_path: Path) -> None:
    summary = play(federation(tmp_path / "data", *OFF, "federation.rounds=1"), folder=tmp_path / "run")
    assert summary["privacy_mode"] == "off"
    assert {institution["epsilon"] for institution in summary["institutions"].values()} == {None}
    for name in NAMES:
        events = on_disk(tmp_path / "run" / "institutions" / name / "ledger.sqlite", name)
        assert epsilon_of(events, 1e-3) == float("inf")
