"""An institution leaves: its agent refuses from then on, its records stay whole, and the coordinator's log names it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import fedft.flower.strategy
from fedft.audit.contributions import contributions_of
from fedft.audit.verify import verify_run
from fedft.cli import app
from fedft.deployment import rehearse
from fedft.deployment.coordinate import begin_without
from fedft.deployment.coordinator import Deployment
from fedft.deployment.provision_leaving import take_leave, withdrawals_in
from fedft.deployment.withdrawal import FILE, Departure, statement_file, withdraw
from fedft.errors import ConfigError, DataError, IdentityError, LedgerError, RecordError, Withdrawn
from fedft.identity.keys import PrivateKey
from fedft.identity.signed import seal
from fedft.identity.withdrawal import Withdrawal
from fedft.ledger.store import Ledger
from fedft.records.log import AuditLog, read_entries
from fedft.rounds.institution import Institution
from fedft.rounds.messages import ROLL_CALL_LABEL, decode_presence, encode_question, fresh_nonce
from fedft.update.release import Refusal
from tests.deployment.deployed import Deployed
from tests.deployment.test_agent_roster import four, hand_out
from tests.federation import NAMES, federation, records_of


@pytest.fixture(autouse=True)
def one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearse, "_may_choose_users", lambda: False)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Deployed]:
    members = Deployed(tmp_path / "all", federation(tmp_path / "data", "federation.rounds=3"))
    yield members
    members.close()


def after_round(members: Deployed, name: str, number: int, then: Callable[[], None]) -> None:
    """``then`` happens when ``name`` has answered round ``number``, before the coordinator closes it."""
    answered: list[bytes] = []

    def answer(body: bytes) -> bytes:
        answered.append(members.agents[name].answer(body))
        if len(answered) == number:
            then()
        return answered[-1]

    members.answering[name] = answer


def kinds(file: Path) -> list[str]:
    with Ledger.open(file, read_only=True) as ledger:
        return [entry.kind for entry in ledger.entries()]


def test_a_running_agent_refuses_from_the_next_round_on_and_the_run_goes_on(private: Deployed, tmp_path: Path) -> None:
    """The coordinator has not been told: it hears the word."""
    after_round(private, "west", 1, lambda: withdraw(private.policy("west")) and None)
    private.play(tmp_path / "run")
    records = records_of(tmp_path / "run")
    assert [record["updates"] for record in records] == [sorted(NAMES), ["north", "south"], ["north", "south"]]
    assert [record["refused"] for record in records] == [{}, {"west": "withdrawn"}, {"west": "withdrawn"}]
    ledger = private.policy("west").agent.ledger
    assert kinds(ledger) == ["start", "receipt", "intent", "release", "withdrawal", "refusal", "refusal", "receipt"]
    private.close()
    ledgers = [private.policy(name).agent.ledger for name in NAMES]
    verdict = verify_run(tmp_path / "run", ledgers=ledgers)
    assert (verdict.finding, verdict.ledgers) == (None, NAMES)


def test_what_was_being_trained_when_it_left_is_charged_and_not_sent(
    private: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private.begin(tmp_path / "run")
    request, terms = private.request(tmp_path / "run")
    north = private.agents["north"]
    made = north._institution(request.plan, terms)
    train = made.answer

    def leaves(asked: object) -> bytes | Refusal:
        answer = train(request)
        withdraw(private.policy("north"))
        return answer

    monkeypatch.setattr(made, "answer", leaves)
    body = private.signed(request, terms)
    assert private.opened("north", north.answer(body)) == Refusal("north", request.plan.run, 1, "withdrawn")
    assert len(private.charges("north")) == 1


def test_a_word_that_could_depend_on_rows_is_not_said_either(
    private: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves while its data set is read, which turns out not to be usable."""
    private.begin(tmp_path / "run")
    request, terms = private.request(tmp_path / "run")

    def leaves(*_: object) -> Institution:
        withdraw(private.policy("north"))
        raise DataError("expected two labels, found one: add rows")

    monkeypatch.setattr(private.agents["north"], "_institution", leaves)
    told = private.opened("north", private.agents["north"].answer(private.signed(request, terms)))
    assert told == Refusal("north", request.plan.run, 1, "withdrawn")


def test_it_stays_withdrawn_across_restarts_and_without_the_file(private: Deployed, tmp_path: Path) -> None:
    private.begin(tmp_path / "run")
    request, terms = private.request(tmp_path / "run")
    body, refused = private.signed(request, terms), Refusal("north", request.plan.run, 1, "withdrawn")
    private.agents["north"].close()
    left, recorded = withdraw(private.policy("north"))
    assert recorded
    assert withdraw(private.policy("north")) == (left, True)
    statement_file(private.policy("north")).unlink()
    assert withdraw(private.policy("north"))[1]
    assert private.opened("north", private.start_again("north").answer(body)) == refused
    assert kinds(private.policy("north").agent.ledger).count("withdrawal") == 1
    assert private.charges("north") == ()


def test_a_statement_is_signed_and_says_who_left_what_and_when(private: Deployed) -> None:
    policy = private.policy("south")
    left, recorded = withdraw(policy)
    assert not recorded  # its agent works with the ledger
    assert Withdrawal.open(statement_file(policy).read_text()) == left
    with Ledger.open(policy.agent.ledger, read_only=True) as ledger:
        head = ledger.head
    assert (left.federation, left.name, left.key) == ("tiny", "south", private.key("south").public.text)
    assert (left.ledger, left.entries, left.head) == (head.ledger, head.count, head.hash)


def test_a_statement_that_is_not_its_own_lets_nothing_out_either(private: Deployed, tmp_path: Path) -> None:
    private.begin(tmp_path / "run")
    request, terms = private.request(tmp_path / "run")
    body, file = private.signed(request, terms), statement_file(private.policy("north"))
    withdraw(private.policy("south"))
    own = statement_file(private.policy("south")).read_bytes()
    stranger = PrivateKey.generate()
    forged = replace(Withdrawal.open(own.decode()), name="north", key=stranger.public.text).sealed(stranger)
    for content in (own, forged.encode(), b"", b"\xff", own[:-2], own * 3):
        file.write_bytes(content)
        assert private.opened("north", private.agents["north"].answer(body)) == Refusal(
            "north", request.plan.run, 1, "identity"
        )
        with pytest.raises(IdentityError):
            withdraw(private.policy("north"))
    assert private.charges("north") == ()
    file.unlink()
    assert isinstance(private.opened("north", private.agents["north"].answer(body)), bytes)


def test_it_says_its_name_in_a_roll_call_and_makes_no_key(private: Deployed) -> None:
    withdraw(private.policy("north"))
    nonce = fresh_nonce()
    question = seal(ROLL_CALL_LABEL, encode_question(nonce), private.coordinator.key)
    told = private.agents["north"].roll_call(question)
    assert decode_presence(told[72:], nonce=nonce) == ("north", b"")
    with pytest.raises(Withdrawn):
        private.agents["north"].roll_call(
            seal(ROLL_CALL_LABEL, encode_question(nonce, "tiny/1/abcd"), private.coordinator.key)
        )


def test_the_coordinators_log_names_who_left_and_the_last_round_with_its_update(
    private: Deployed, tmp_path: Path
) -> None:
    def leaves() -> None:
        withdraw(private.policy("west"))
        take_leave(private.coordinator, "west", statement_file(private.policy("west")))

    after_round(private, "north", 2, leaves)
    private.play(tmp_path / "run")
    private.close()
    records, entries = records_of(tmp_path / "run"), list(read_entries(tmp_path / "run" / "audit.jsonl"))
    west = "west" in records[1]["updates"]  # it answered before, or after it had left
    told = [entry.fields for entry in entries if entry.kind == "withdrawal"]
    statement = statement_file(private.policy("west")).read_text()
    assert told == [{"institution": "west", "last_round": 2 if west else 1, "statement": statement}]
    assert [entry.kind for entry in entries] == [
        "start", "roster", "round", "round", "withdrawal", "roster", "round", "end",
    ]  # fmt: skip
    assert records[2]["updates"] == ["north", "south"]
    assert withdrawals_in(private.coordinator.folder) == [statement]
    ledgers = [private.policy(name).agent.ledger for name in NAMES]
    assert verify_run(tmp_path / "run", ledgers=ledgers).finding is None
    found = contributions_of(tmp_path / "run").of("west")
    assert (found.rounds, found.final, found.free) == ((1, 2) if west else (1,), True, 0)

    key = PrivateKey.load(private.coordinator.folder / "coordinator.key")
    with pytest.raises(RecordError):
        AuditLog.open(tmp_path / "run", run=entries[0].fields["run"], key=key).append("round", entries[2].fields)


def test_only_a_members_own_statement_is_taken(private: Deployed, tmp_path: Path) -> None:
    withdraw(private.policy("west"))
    own, stranger = statement_file(private.policy("west")), PrivateKey.generate()
    left = Withdrawal.open(own.read_text())
    wrong = tmp_path / FILE
    west = private.key("west")
    for made, key in (
        (replace(left, key=stranger.public.text), stranger),
        (replace(left, federation="banks"), west),
        (replace(left, coordinator=stranger.public.text), west),
        (replace(left, name="north"), west),
    ):
        wrong.write_text(made.sealed(key))
        with pytest.raises(IdentityError):
            take_leave(private.coordinator, "west", wrong)
    with pytest.raises(IdentityError):
        take_leave(private.coordinator, "north", own)
    assert len(private.coordinator.roster.members) == 3
    take_leave(private.coordinator, "west", own)
    assert [member.name for member in private.coordinator.roster.members] == ["north", "south"]


def test_a_ledger_that_forgot_the_statements_entries_does_not_take_it(private: Deployed) -> None:
    withdraw(private.policy("west"))
    text = statement_file(private.policy("west")).read_text()
    later = replace(Withdrawal.open(text), entries=9).sealed(private.key("west"))
    statement_file(private.policy("west")).write_text(later)
    with pytest.raises(LedgerError):
        private.agents["west"]._departure.require_member()


def test_who_comes_back_under_a_new_key_with_its_old_ledger_is_a_member_until_it_leaves_again(
    private: Deployed,
) -> None:
    private.agents["west"].close()
    policy, key = private.policy("west"), PrivateKey.generate()
    withdraw(policy)
    policy.institution.identity.unlink()
    key.save(policy.institution.identity)
    with Ledger.open(policy.agent.ledger) as ledger:
        Departure(policy, ledger, key.public).require_member()
    left, recorded = withdraw(policy)
    assert (left.key, recorded) == (key.public.text, True)
    with Ledger.open(policy.agent.ledger) as ledger, pytest.raises(Withdrawn):
        Departure(policy, ledger, key.public).require_member()
    assert kinds(policy.agent.ledger) == ["start", "withdrawal", "withdrawal"]


def test_under_masks_it_is_one_that_drops_out_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First as a member of the setup that refuses, then, once it is off the rosters, in no setup."""
    awake = SimpleNamespace(monotonic=time.monotonic)  # without sleep: nobody waits for who has left
    monkeypatch.setattr(fedft.flower.strategy, "time", awake)
    members = Deployed(tmp_path / "all", four(tmp_path / "data", "federation.rounds=3"))
    after_round(members, "west", 1, lambda: withdraw(members.policy("west")) and None)

    reveal, asked = members.agents["north"].unmask, []

    def told(body: bytes) -> bytes:
        asked.append(reveal(body))
        if len(asked) == 2:
            take_leave(members.coordinator, "west", statement_file(members.policy("west")))
            hand_out(members, "north", "south", "east")
        return asked[-1]

    members.revealing["north"] = told
    members.play(tmp_path / "run")
    members.close()
    records = records_of(tmp_path / "run")
    secure = [record["secure_aggregation"] for record in records]
    assert [one["cohort"] for one in secure] == [
        *2 * [["east", "north", "south", "west"]], ["east", "north", "south"],
    ]  # fmt: skip
    assert (secure[0]["silent"], secure[1]["dropped"]) == (["west"], ["west"])  # it reveals no share after it left
    assert [record["refused"].get("west") for record in records] == [None, "withdrawn", None]
    assert all(record["quorum"] for record in records)
    ledgers = [members.policy(name).agent.ledger for name in members.homes]
    assert verify_run(tmp_path / "run", ledgers=ledgers).finding is None
    assert contributions_of(tmp_path / "run").of("west").rounds == (1,)


def test_as_its_people_and_the_coordinators_type_it(private: Deployed, tmp_path: Path) -> None:
    private.play(tmp_path / "run")
    run = CliRunner()
    policy = str(private.policy_file("west"))
    assert run.invoke(app, ["withdraw", "--policy", policy], input="n\n").exit_code == 1
    assert not statement_file(private.policy("west")).exists()
    done = run.invoke(app, ["withdraw", "--policy", policy, "--yes"])
    assert done.exit_code == 0, done.output
    assert "needs no restart" in done.stdout
    assert "rounds 1-3" in done.stdout
    statement = str(statement_file(private.policy("west")))
    done = run.invoke(app, ["provision", "revoke", str(private.coordinator.folder), "west", "--withdrawal", statement])
    assert done.exit_code == 0, done.output
    assert [member.name for member in private.coordinator.roster.members] == ["north", "south"]
    done = run.invoke(app, ["audit", "contributions", str(tmp_path / "run"), "--json"])
    assert json.loads(done.stdout)["institutions"][2] == {
        "institution": "west", "rounds": [1, 2, 3], "best": True, "final": True, "free": 0, "again": 3,
    }  # fmt: skip
    assert "rounds 1-3" in run.invoke(app, ["audit", "contributions", str(tmp_path / "run")]).stdout
    private.agents["west"].close()
    done = run.invoke(app, ["withdraw", "--policy", policy, "--yes"])
    assert "its ledger has it" in done.stdout
    shown = run.invoke(app, ["ledger", "show", str(private.policy("west").agent.ledger)])
    assert "west has left tiny" in shown.stdout.replace("\n", " ")


def test_the_coordinator_trains_anew_without_who_has_left(private: Deployed, tmp_path: Path) -> None:
    """The others' budgets allow it, and are charged again; the first run stays valid beside the second."""
    for name in ("north", "south"):
        file = private.policy_file(name)
        text = file.read_text()
        assert text.count("epsilon = 8.0") == 1
        file.write_text(text.replace("epsilon = 8.0", "epsilon = 30.0"))
        private.start_again(name)
    private.play(tmp_path / "run")
    withdraw(private.policy("west"))
    take_leave(private.coordinator, "west", statement_file(private.policy("west")))
    typed = ["coordinate", "--coordinator", str(private.coordinator.folder), "--resume", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*typed, "--without", "west", "--folder", str(tmp_path / "anew"), "--plain"])
    assert "anew from the start, without west" in done.stdout
    assert "flwr run" in done.stderr  # there is no SuperLink here; the run is begun
    with pytest.raises(ConfigError):
        begin_without(["west"], parent=tmp_path / "run", folder=tmp_path / "anew", coordinator=private.coordinator)
    assert Deployment.read(tmp_path / "anew").cohort == ("north", "south")
    private.play(tmp_path / "anew")
    private.close()
    assert [record["updates"] for record in records_of(tmp_path / "anew")] == [["north", "south"]] * 3
    ledgers = [private.policy(name).agent.ledger for name in NAMES]
    assert verify_run(tmp_path / "run", ledgers=ledgers).finding is None
    assert verify_run(tmp_path / "anew", ledgers=ledgers[:2]).finding is None
    assert [len(private.charges(name)) for name in NAMES] == [6, 6, 3]
