"""A run is trained anew without an institution: as if it had never been there, and the parent stays as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedft.assembly.retraining import begin_without, is_begun
from fedft.assembly.saved_run import open_run
from fedft.audit.contributions import contributions_of
from fedft.audit.findings import HOLDS
from fedft.audit.recompute import recompute
from fedft.audit.verify import verify_run
from fedft.cli import app
from fedft.config import FederationConfig, parse_config
from fedft.errors import ConfigError, FederationError, RecordError, StorageError
from fedft.identity.keys import PrivateKey
from fedft.ledger.store import Ledger
from fedft.privacy.accountant import epsilon_of
from fedft.records.files import all_files
from fedft.records.lineage import Parent
from fedft.records.log import AuditLog, read_entries
from fedft.rounds.progress import Observer
from fedft.rounds.run_folder import RunFolder
from fedft.simulation.run import play
from tests.federation import NAMES, OFF, adapter_of, federation_body, records_of, rows_of
from tests.tiny import write_jsonl

SOLID = ("federation.rounds=5", "aggregation.server_optimizer=momentum", "training.scheduler=cosine", *OFF)
"""All that a later round could depend on beside the updates: the server's momentum, the schedule."""


def late(folder: Path, *overrides: str, never: bool = False) -> FederationConfig:
    """west is not there in rounds 1 and 2, or never."""
    body = federation_body(folder)
    body["institutions"][2]["faults"] = {"drop_rounds": [1, 2, 3, 4, 5] if never else [1, 2]}
    return parse_config(body, folder=folder, overrides=overrides)


def retrained(run: Path, names: list[str], folder: Path, **options: Any) -> dict[str, Any]:
    begin_without(names, parent=run, folder=folder, **options)
    return again(folder)


def again(folder: Path) -> dict[str, Any]:
    from fedft.assembly.runs import resume_config

    return play(resume_config(folder), folder=folder, resume=True)


def bytes_of(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in all_files(folder)}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five rounds; west's first update is in round 3's sum."""
    folder = tmp_path_factory.mktemp("parent")
    play(late(folder / "data", *SOLID), folder=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def child(parent: Path) -> Path:
    folder = parent.with_name("child")
    retrained(parent, ["west"], folder)
    return folder


def test_the_state_before_an_institutions_first_update_is_kept(parent: Path) -> None:
    kept = sorted(path.name for path in (parent / "checkpoints").glob("round-*"))
    assert kept == ["round-0002", "round-0004", "round-0005"]
    found = contributions_of(parent)
    assert (found.of("west").rounds, found.of("west").free, found.of("west").again) == ((3, 4, 5), 2, 3)
    assert (found.of("north").free, found.of("north").again) == (0, 5)


def test_trained_anew_from_there_it_ends_as_if_the_institution_had_never_been_there(
    parent: Path, child: Path, tmp_path: Path
) -> None:
    play(late(tmp_path / "data", *SOLID, never=True), folder=tmp_path / "never")
    assert adapter_of(child).tobytes() == adapter_of(tmp_path / "never").tobytes()
    assert adapter_of(child).tobytes() != adapter_of(parent).tobytes()
    assert [record["round"] for record in records_of(child)] == [3, 4, 5]
    assert [record["updates"] for record in records_of(child)] == [["north", "south"]] * 3
    assert all(record["missing"] == [] for record in records_of(child))
    assert open_run(child).round in (3, 4, 5)


def test_from_the_start_too_with_the_rows_that_the_others_had(tmp_path: Path) -> None:
    """Dealt from one file: who is left does not get the share of who left."""
    body = federation_body(tmp_path / "data")
    write_jsonl(tmp_path / "data" / "all.jsonl", [row for number in range(3) for row in rows_of(number)])
    body["data"] |= {"train": "all.jsonl", "partition": {"method": "iid", "institutions": 3}}
    body["institutions"] = [{"name": name} for name in NAMES]
    config = parse_config(body, folder=tmp_path / "data", overrides=OFF)
    play(config, folder=tmp_path / "run")
    before = bytes_of(tmp_path / "run")
    made = begin_without(["west"], parent=tmp_path / "run", folder=tmp_path / "child")
    assert (made.round, made.contributed, made.checkpoint) == (0, {}, "")
    again(tmp_path / "child")
    body["institutions"][2]["faults"] = {"drop_rounds": [1, 2]}
    play(parse_config(body, folder=tmp_path / "data", overrides=OFF), folder=tmp_path / "never")
    assert adapter_of(tmp_path / "child").tobytes() == adapter_of(tmp_path / "never").tobytes()
    assert bytes_of(tmp_path / "run") == before
    assert not (tmp_path / "child" / "institutions" / "west").exists()
    assert verify_run(tmp_path / "child").finding is None


def test_both_histories_are_valid_and_name_each_other(parent: Path, child: Path) -> None:
    assert verify_run(parent).finding is None
    verdict = verify_run(child)
    assert (verdict.finding, verdict.rounds, verdict.ledgers) == (None, 3, ("north", "south"))
    told = next(entry.fields for entry in read_entries(child / "audit.jsonl") if entry.kind == "parent")
    assert (told["round"], told["without"]) == (2, ["west"])
    assert told["contributed"] == {"north": [1, 2], "south": [1, 2]}
    rounds = [entry.fields for entry in read_entries(parent / "audit.jsonl") if entry.kind == "round"]
    assert told["checkpoint"] == rounds[1]["checkpoint"]
    assert verify_run(parent, heads=[told["head"]]).finding is None
    found = contributions_of(child)
    assert [(one.institution, one.rounds) for one in found.institutions] == [
        ("north", (1, 2, 3, 4, 5)), ("south", (1, 2, 3, 4, 5)),
    ]  # fmt: skip
    computed = recompute(child)
    assert (computed.exit_code, {finding.code for finding in computed.findings}) == (HOLDS, {"unprotected"})


@pytest.mark.parametrize(
    ("file", "change", "where"),
    [
        ("checkpoints/round-0002/manifest.json", lambda data: data.replace(b'"round": 2', b'"round": 1'), "round-0002"),
        ("config.json", lambda data: data.replace(b'"west"', b'"east"', 1), "config.json"),
        ("audit.jsonl", lambda data: data.replace(b'"without":["west"]', b'"without":["east"]'), "entry 2"),
    ],
)
def test_what_is_changed_of_its_origin_is_found(
    child: Path, tmp_path: Path, file: str, change: Callable[[bytes], bytes], where: str
) -> None:
    path = child / file
    before = path.read_bytes()
    assert change(before) != before
    path.write_bytes(change(before))
    try:
        finding = verify_run(child).finding
        assert finding is not None
        assert where in finding.where
    finally:
        path.write_bytes(before)
    assert verify_run(child).finding is None


def test_an_update_of_who_is_left_out_is_no_entry_of_the_log(parent: Path, tmp_path: Path) -> None:
    begin_without(["west"], parent=parent, folder=tmp_path / "child")
    made, key = RunFolder(tmp_path / "child").parent(), PrivateKey.generate()
    assert isinstance(made, Parent)
    entries = list(read_entries(parent / "audit.jsonl"))
    log = AuditLog.open(tmp_path, run="run", key=key)
    log.append("start", {**entries[0].fields, "run": "run"})
    changes: tuple[dict[str, Any], ...] = (
        {"contributed": {"west": [1]}},
        {"contributed": {"north": [3]}},
        {"without": []},
    )
    for wrong in changes:
        with pytest.raises(RecordError):
            log.append("parent", {**made.as_json(), **wrong})
    log.append("parent", made.as_json())
    with pytest.raises(RecordError):
        log.append("parent", made.as_json())
    log.append("roster", entries[1].fields)
    third = next(entry.fields for entry in entries if entry.kind == "round" and entry.fields["round"] == 3)
    with pytest.raises(RecordError, match="left out, found one of west"):
        log.append("round", third)
    log.append("round", {**third, "updates": {}})


def test_what_the_others_spent_stays_spent_and_is_charged_again(tmp_path: Path) -> None:
    """Caps of 8: the parent took all of it, so nobody can answer; with more allowed, both runs count."""
    play(late(tmp_path / "data", "federation.rounds=3"), folder=tmp_path / "run")
    summary = retrained(tmp_path / "run", ["west"], tmp_path / "poor")
    assert (summary["stopped_early"], summary["rounds_done"]) == ("budgets-spent", 3)
    assert records_of(tmp_path / "poor")[0]["refused"] == dict.fromkeys(("north", "south"), "budget-exhausted")
    retrained(tmp_path / "run", ["west"], tmp_path / "rich", overrides=["institutions.north.epsilon=30"])
    for folder in ("poor", "rich"):
        assert verify_run(tmp_path / folder).finding is None
        computed = recompute(tmp_path / folder)
        assert computed.exit_code == HOLDS, computed.findings
    spent = {}
    for folder in ("run", "rich"):
        with Ledger.open(tmp_path / folder / "institutions" / "north" / "ledger.sqlite", read_only=True) as ledger:
            spent[folder] = ledger.events("north")
    assert (len(spent["run"]), len(spent["rich"])) == (3, 4)
    assert epsilon_of(spent["rich"], 1e-3) > epsilon_of(spent["run"], 1e-3)
    assert records_of(tmp_path / "rich")[0]["updates"] == ["north"]


class Stopped(Exception):
    """In the place of a death."""


def test_interrupted_it_goes_on_like_any_run(parent: Path, child: Path, tmp_path: Path) -> None:
    from fedft.assembly.runs import resume_config

    class Dying(Observer):
        def round_finished(self, record: object) -> None:
            raise Stopped

    begin_without(["west"], parent=parent, folder=tmp_path / "again")
    for _ in range(2):
        with pytest.raises(Stopped):
            play(resume_config(tmp_path / "again"), folder=tmp_path / "again", resume=True, observer=Dying())
    again(tmp_path / "again")
    assert adapter_of(tmp_path / "again").tobytes() == adapter_of(child).tobytes()
    assert verify_run(tmp_path / "again").finding is None
    assert is_begun(tmp_path / "again", parent=parent, names=["west"])
    assert not is_begun(tmp_path / "again", parent=parent, names=["north"])


def test_another_may_leave_what_was_trained_anew(child: Path, tmp_path: Path) -> None:
    made = begin_without(["south"], parent=child, folder=tmp_path / "grandchild")
    assert (made.round, made.without) == (0, ("south", "west"))
    summary = again(tmp_path / "grandchild")
    assert list(summary["institutions"]) == ["north"]
    assert verify_run(tmp_path / "grandchild").finding is None


def test_what_cannot_be_is_said_before_anything_is_made(parent: Path, child: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "x").touch()
    for names, folder, said in (
        (["wst"], tmp_path / "new", "north, south, west, found wst"),
        (["north", "south", "west"], tmp_path / "new", "to be left, found 0"),
        (["west"], there, "with something in it"),
    ):
        with pytest.raises(ConfigError, match=said):
            begin_without(names, parent=parent, folder=folder)
    with pytest.raises(ConfigError, match="min_institutions|to be left, found 2"):
        begin_without(["west"], parent=parent, folder=tmp_path / "new", overrides=["federation.min_institutions=3"])
    with pytest.raises(ConfigError, match="none at"):
        begin_without(["west"], parent=tmp_path / "nowhere", folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_record_that_hides_an_update_does_not_make_a_state_free_of_it(parent: Path, tmp_path: Path) -> None:
    """metrics.jsonl says that west came last; the state that would be begun with knows better."""
    run = Path(shutil.copytree(parent, tmp_path / "run"))
    lines = [{**one, "updates": ["north", "south"]} if one["round"] < 5 else one for one in records_of(run)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    with pytest.raises(StorageError, match="found an update of who is left out"):
        begin_without(["west"], parent=run, folder=tmp_path / "new")
    assert not (tmp_path / "new" / "config.json").exists()


def test_who_was_only_ever_missing_leaves_nothing_to_train_anew(tmp_path: Path) -> None:
    play(late(tmp_path / "data", *OFF, never=True), folder=tmp_path / "run")
    with pytest.raises(ConfigError, match="found none"):
        begin_without(["west"], parent=tmp_path / "run", folder=tmp_path / "new")


def test_as_it_is_typed(parent: Path) -> None:
    run = CliRunner()
    done = run.invoke(app, ["simulate", "--resume", str(parent), "--without", "west", "--plain"])
    assert done.exit_code == 0, done.output
    assert "anew from the state after round 2, without west" in done.stdout
    folder = parent.with_name("run-without-west")
    assert json.loads((folder / "summary.json").read_text())["rounds_done"] == 5
    assert (folder / "report.html").is_file()
    assert run.invoke(app, ["simulate", "--resume", str(parent), "--without", "west", "--plain"]).exit_code == 0
    assert run.invoke(app, ["simulate", "--without", "west"]).exit_code == 2
    assert run.invoke(app, ["audit", "verify", str(folder)]).exit_code == 0
    assert "rounds 1-5" in run.invoke(app, ["audit", "contributions", str(folder)]).stdout


def test_under_masks_the_rest_has_a_setup_of_its_own(tmp_path: Path) -> None:
    body = federation_body(tmp_path / "data")
    write_jsonl(tmp_path / "data" / "east.jsonl", rows_of(3))
    body["institutions"].append({"name": "east", "data": "east.jsonl"})
    words = ("secure_aggregation.enabled=true", *OFF)
    play(parse_config(body, folder=tmp_path / "data", overrides=words), folder=tmp_path / "run")
    retrained(tmp_path / "run", ["west"], tmp_path / "child")
    cohorts = [record["secure_aggregation"]["cohort"] for record in records_of(tmp_path / "child")]
    assert cohorts == [["east", "north", "south"]] * 2
    assert verify_run(tmp_path / "child").finding is None
    with pytest.raises(ConfigError):  # two would see each other's updates
        begin_without(["north"], parent=tmp_path / "child", folder=tmp_path / "grandchild")
    assert not (tmp_path / "grandchild").exists()


def test_while_it_is_played_nobody_branches_off_from_it_or_plays_it_too(tmp_path: Path) -> None:
    config = late(tmp_path / "data", *OFF)

    class Meddling(Observer):
        refused = 0

        def round_finished(self, record: Mapping[str, Any]) -> None:
            with pytest.raises(ConfigError, match="found that a process does: wait for its end"):
                begin_without(["north"], parent=tmp_path / "run", folder=tmp_path / "child")
            if record["round"] == 1:
                with pytest.raises(FederationError, match="found that another process does: wait for it"):
                    play(config, folder=tmp_path / "run", resume=True)
            self.refused += 1

    meddling = Meddling()
    play(config, folder=tmp_path / "run", observer=meddling)
    assert meddling.refused == 2
    assert not (tmp_path / "child").exists()
    begin_without(["north"], parent=tmp_path / "run", folder=tmp_path / "child")
