"""The whole real thing on loopback, as fedft rehearse plays it: every program started, a run played, and all stopped.

Without privacy, so that what came over the network can be compared bit for bit with the simulation. The bundle's
ClientApp is a hostile one: that the run ends, and leaves no mark, shows that institutions run their own relay.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
    for name in NAMES:
        path = played.all / "institutions" / name / "ledger.sqlite"
        with Ledger.open(path, read_only=True) as ledger:
            assert ledger.events(name) == (UnprotectedRelease(),) * ROUNDS


def its_records_hold_and_everyone_heard_the_last_notice(played: Played) -> None:
    ledgers = [played.all / "institutions" / name / "ledger.sqlite" for name in NAMES]
    verdict = verify_run(played.run, ledgers=ledgers)
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
        home = played.all / "institutions" / name / "supernode" / "flower"
        assert not list(home.rglob("app.py")), "the bundle was unpacked"
