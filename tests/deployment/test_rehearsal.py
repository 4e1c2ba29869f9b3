"""The whole real thing on loopback, as fedft rehearse plays it: every program started, a run played, and all stopped.

Without privacy, so that what came over the network can be compared bit for bit with the simulation. The bundle's
ClientApp is a hostile one: that the run ends, and leaves no mark, shows that institutions run their own relay. Before
the programs are stopped west withdraws, and the run is trained anew over them without north.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedft.assembly.retraining import begin_without
from fedft.assembly.runs import resume_config
from fedft.audit.contributions import contributions_of
from fedft.audit.verify import verify_run
from fedft.config import load_config
from fedft.deployment import coordinate, rehearse
from fedft.deployment.bundle import write_bundle
from fedft.deployment.rehearse import FIRST_USER
from fedft.ledger.store import Ledger
from fedft.privacy.events import UnprotectedRelease
from fedft.records.log import read_entries
from fedft.simulation.run import play as simulate
from tests.cli.commands import federation_file, fedft
from tests.deployment.living import children, command_of, in_sessions
from tests.deployment.open_door import needs_nginx
from tests.federation import NAMES, OFF, adapter_of, records_of

ROUNDS = 2
HOSTILE = """
from pathlib import Path
Path({mark!r}, "it ran").touch()
app = None
"""
PROGRAMS = ["flower-superlink", "flower-superexec", "nginx"] + 3 * ["agent", "flower-supernode", "nginx"]


class Played:
    """fedft rehearse, and its programs as they were when the run had ended."""

    def __init__(self, folder: Path) -> None:
        self.file, self.all, self.run = federation_file(folder, extra=""), folder / "all", folder / "all" / "run"
        self.anew = folder / "all" / "anew"
        self.programs: dict[int, list[str]] = {}
        self.users: dict[int, int] = {}
        self.mark = folder / "mark"
        self.mark.mkdir()
        self.mark.chmod(0o777)
        original, before = coordinate.play, set(children(os.getpid()))

        def play(*args: Any, **kwargs: Any) -> dict[str, Any]:
            summary = original(*args, **kwargs)
            self.programs = {pid: command_of(pid) for pid in children(os.getpid()) if pid not in before}
            self.users = {pid: Path(f"/proc/{pid}").stat().st_uid for pid in self.programs}
            self._leave()
            return summary

        options = [word for override in OFF for word in ("--set", override)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coordinate, "play", play)
            patch.setattr(coordinate, "write_bundle", self._write_hostile)
            self.result = fedft("rehearse", self.file, *options, "--folder", self.all, "--plain")

    def _write_hostile(self, folder: Path) -> Path:
        bundle = write_bundle(folder)
        (bundle / "client" / "app.py").write_text(HOSTILE.format(mark=str(self.mark)))
        return bundle

    def _leave(self) -> None:
        """The coordinator is not told that west has withdrawn: it is asked, and says so."""
        policy = self.home("west") / "policy.toml"
        officer = policy.stat()
        self._command("withdraw", "--policy", policy, "--yes", user=officer.st_uid, group=officer.st_gid)
        resume = ("--resume", self.run, "--without", "north", "--folder", self.anew)
        self._command("coordinate", "--coordinator", self.all / "coordinator", *resume, "--plain")

    def _command(self, *words: str | Path, **options: Any) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "fedft", *words],
            cwd=self.all,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def home(self, name: str) -> Path:
        return self.all / "institutions" / name

    def ledgers(self, *names: str) -> list[Path]:
        return [self.home(name) / "ledger.sqlite" for name in names]

    def pids(self, name: str) -> list[int]:
        """Of that program. nginx writes its command into one word."""
        return [pid for pid, words in self.programs.items() if name in map(_last_part, " ".join(words[:5]).split())]


def _last_part(word: str) -> str:
    return word.rpartition("/")[2]


@needs_nginx
def test_a_rehearsal_is_played_over_everything_that_organisations_would_run(tmp_path: Path) -> None:
    """One test, so that it is played once."""
    with tempfile.TemporaryDirectory(prefix="fedft-") as folder:  # a socket's path may have a hundred bytes
        Path(folder).chmod(0o755)
        played = Played(Path(folder).resolve())
        assert played.result.exit_code == 0, played.result.output
        every_round_has_every_update_and_the_folder_is_a_whole_runs(played)
        the_adapter_is_the_simulations_bit_for_bit(played, tmp_path)
        each_ledger_was_charged_for_each_round(played)
        its_records_hold_and_everyone_heard_the_last_notice(played)
        every_program_was_there_as_its_own_user_and_none_is_left(played)
        the_superlink_knew_who_called_and_nothing_was_installed(played)
        no_code_of_the_bundle_ran_at_an_institution(played)
        trained_anew_it_goes_on_without_who_withdrew_and_is_the_simulations_too(played, tmp_path)
        who_is_left_out_was_asked_nothing(played)


def every_round_has_every_update_and_the_folder_is_a_whole_runs(played: Played) -> None:
    records = records_of(played.run)
    assert [(record["updates"], record["refused"], record["missing"]) for record in records] == [
        (sorted(NAMES), {}, [])
    ] * ROUNDS
    summary = json.loads((played.run / "summary.json").read_text())
    assert (summary["engine"], summary["rounds_done"]) == ("superlink", ROUNDS)
    assert "<html" in (played.run / "report.html").read_text()
    assert (played.run / "adapter" / "adapter_model.safetensors").is_file()
    for record in records:
        assert f"round {record['round']}" in played.result.output.lower()


def the_adapter_is_the_simulations_bit_for_bit(played: Played, tmp_path: Path) -> None:
    simulate(load_config(played.file, list(OFF)), folder=tmp_path / "simulated")
    assert np.array_equal(adapter_of(played.run), adapter_of(tmp_path / "simulated"))


def each_ledger_was_charged_for_each_round(played: Played) -> None:
    runs = {"north": 1, "south": 2, "west": 1}  # of the two, those that it took part in
    for name, path in zip(NAMES, played.ledgers(*NAMES), strict=True):
        with Ledger.open(path, read_only=True) as ledger:
            assert ledger.events(name) == (UnprotectedRelease(),) * ROUNDS * runs[name]


def its_records_hold_and_everyone_heard_the_last_notice(played: Played) -> None:
    verdict = verify_run(played.run, ledgers=played.ledgers(*NAMES))
    assert (verdict.finding, verdict.ledgers) == (None, tuple(NAMES))
    end = list(read_entries(played.run / "audit.jsonl"))[-1]
    assert sorted(end.fields["heads"]) == sorted(NAMES)


def every_program_was_there_as_its_own_user_and_none_is_left(played: Played) -> None:
    assert sorted(PROGRAMS) == sorted(name for name in set(PROGRAMS) for _ in played.pids(name))
    agents, relays = played.pids("agent"), played.pids("flower-supernode")
    if rehearse._may_choose_users():
        assert [played.users[pid] for pid in agents] == [FIRST_USER + number for number in range(3)]
        assert [played.users[pid] for pid in relays] == [FIRST_USER + 500 + number for number in range(3)]
    else:
        assert {played.users[pid] for pid in (*agents, *relays)} == {os.geteuid()}
    assert in_sessions(list(played.programs), played.all) == []


def the_superlink_knew_who_called_and_nothing_was_installed(played: Played) -> None:
    superlink = played.programs[played.pids("flower-superlink")[0]]
    for option in (
        "--ssl-certfile",
        "--enable-supernode-auth",
        "--database",
        "--disable-runtime-dependency-installation",
    ):
        assert option in superlink
    for pid in played.pids("flower-supernode"):
        assert {"--auth-supernode-private-key", "--root-certificates"} <= set(played.programs[pid])


def no_code_of_the_bundle_ran_at_an_institution(played: Played) -> None:
    assert list(played.mark.iterdir()) == []
    for name in NAMES:
        home = played.home(name) / "supernode" / "flower"
        assert not list(home.rglob("app.py")), "the bundle was unpacked"


def trained_anew_it_goes_on_without_who_withdrew_and_is_the_simulations_too(played: Played, tmp_path: Path) -> None:
    anew = tmp_path / "anew"
    begin_without(["north", "west"], parent=tmp_path / "simulated", folder=anew)
    simulate(resume_config(anew), folder=anew, resume=True)
    assert np.array_equal(adapter_of(played.anew), adapter_of(anew))
    assert not np.array_equal(adapter_of(played.anew), adapter_of(played.run))
    assert [(record["updates"], record["refused"], record["missing"]) for record in records_of(played.anew)] == [
        (["south"], {"west": "withdrawn"}, [])
    ] * ROUNDS
    verdict = verify_run(played.anew, ledgers=played.ledgers("south", "west"))
    assert (verdict.finding, verdict.ledgers) == (None, ("south", "west"))
    assert [(one.institution, one.rounds) for one in contributions_of(played.anew).institutions if one.rounds] == [
        ("south", (1, 2))
    ]


def who_is_left_out_was_asked_nothing(played: Played) -> None:
    run, anew = (json.loads((one / "config.json").read_text())["run"] for one in (played.run, played.anew))
    asked = {}
    for name, path in zip(NAMES, played.ledgers(*NAMES), strict=True):
        with Ledger.open(path, read_only=True) as ledger:
            asked[name] = {entry.fields["run"] for entry in ledger.entries() if "run" in entry.fields}
    assert asked == {"north": {run}, "south": {run, anew}, "west": {run, anew}}
