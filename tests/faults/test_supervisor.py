"""Programs that end are started again, and of what they were nothing stays behind."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from fedft.deployment.processes import Programs
from tests.deployment.fake_agent import wait_for
from tests.deployment.living import living

FORKING = "import os, time; print(os.getpid(), os.fork() and os.getpid(), flush=True); time.sleep(60)"


def test_what_ends_is_started_again_and_no_child_of_it_is_left(tmp_path: Path) -> None:
    """The program forks; its first process is killed, and the fork would live on."""

    def told() -> list[int]:
        return [int(word) for word in (tmp_path / "forking.log").read_text().split() if word != "0"]

    with Programs(tmp_path, restart_s=0) as programs, programs.supervised(0.05):
        programs.start("forking", [sys.executable, "-c", FORKING])
        wait_for(lambda: len(told()) == 3)
        first = told()
        os.kill(programs.pid("forking"), 9)
        wait_for(lambda: programs.restarts("forking") == 1 and len(told()) == 6)
        assert living(first) == []
        assert programs.is_running("forking")
    assert living(told()) == []


def test_what_is_killed_stays_down_as_long_as_asked(tmp_path: Path) -> None:
    with Programs(tmp_path, restart_s=0) as programs:
        programs.start("sleeping", ["sleep", "60"])
        programs.start("snoring", ["sleep", "60"])
        programs.kill("sleeping", down_s=3600)
        programs.kill("snoring")
        assert programs.restart_ended() == ["snoring"]
        assert programs.is_running("snoring")
        assert not programs.is_running("sleeping")


def test_what_cannot_run_yet_is_not_started_all_the_time(tmp_path: Path) -> None:
    with Programs(tmp_path, restart_s=3600) as programs:
        programs.start("failing", ["false"])
        wait_for(lambda: not programs.is_running("failing"))
        assert programs.restart_ended() == []


def test_what_was_stopped_is_not_started_again(tmp_path: Path) -> None:
    with Programs(tmp_path) as programs:
        programs.start("sleeping", ["sleep", "60"])
        programs.stop("sleeping")
        assert programs.restart_ended() == []


def test_the_number_of_a_program_that_has_ended_is_not_signalled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be another's by then."""
    with Programs(tmp_path, restart_s=0) as programs:
        programs.start("ending", ["true"])
        wait_for(lambda: not programs.is_running("ending"))
        signalled: list[int] = []
        monkeypatch.setattr(os, "killpg", lambda group, _: signalled.append(group))
        assert not programs.is_running("ending")
        programs.kill("ending")
        programs.stop("ending")
        assert signalled == []


def test_what_a_program_says_is_for_this_user_alone(tmp_path: Path) -> None:
    """The agents' logs lie beside those of the relays, which run the coordinator's code."""
    with Programs(tmp_path) as programs:
        programs.start("agent", ["/bin/echo", "so many patients"])
        programs.wait()
    assert stat.S_IMODE((tmp_path / "agent.log").stat().st_mode) == 0o600
