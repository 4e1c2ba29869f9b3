"""Programs that one command starts, watches and stops: each in a session of its own, with a log file of its own.

Guarantees:
- On leaving the context nothing is left of the sessions that it started, however often a program was started again.
- Their logs are this user's alone: an agent's may say what is not for the relay beside it.
- A signal never goes to another's process: a number is signalled while it is sure to be ours alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fedft.errors import FederationError

STOP_S = 15.0
"""How long a program may take to end by itself before it is killed."""
LOOK_S = 2.0
"""How often a supervisor looks for programs that have ended."""
RESTART_S = 10.0
"""No program is started again sooner after its last start: one that cannot start yet leaves the processor to others."""


@dataclass
class Program:
    """A running program. restarts: how often it was started again. not_before: when it may be, by time.monotonic."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    user: int | None
    group: int | None
    process: subprocess.Popen[bytes]
    restarts: int = 0
    not_before: float = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid


class Programs:
    """A context; on leaving it every program it started is stopped. For several threads."""

    def __init__(self, logs: Path, *, restart_s: float = RESTART_S) -> None:
        self._logs, self._restart_s = logs, restart_s
        self._programs: dict[str, Program] = {}
        self._awaited: list[tuple[Program, Callable[[], bool]]] = []
        self._change = threading.RLock()

    def __enter__(self) -> Programs:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in self._programs.values():
            if not self._has_ended(program):
                program.process.terminate()
        for name in reversed(list(self._programs)):
            self.stop(name)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: Callable[[], bool] = lambda: True,
        user: int | None = None,
        group: int | None = None,
    ) -> Program:
        """Start it; ``wait`` waits until it, and what was started beside it, is ``ready``.

        user, group: numbers of the system user and group to run as, where this process may choose them.
        """
        log = self._logs / f"{name}.log"
        merged = {**os.environ, **(env or {})}
        where = cwd or self._logs
        process = _spawn(command, merged, where, log, user, group)
        program = Program(name, tuple(command), merged, where, log, user, group, process)
        program.not_before = time.monotonic() + self._restart_s
        with self._change:
            self._programs[name] = program
        self._awaited.append((program, ready))
        return program

    def wait(self, timeout_s: float = 120.0) -> None:
        """Until all that was started is ready. Raises FederationError for one that ends, or is not in time."""
        end = time.monotonic() + timeout_s
        while self._awaited:
            program, ready = self._awaited[0]
            if ready():
                self._awaited.pop(0)
                continue
            if self._has_ended(program):
                raise FederationError(
                    f"expected {program.name} to run, found that it ended with {program.process.returncode}: see "
                    f"{program.log}"
                )
            if time.monotonic() > end:
                raise FederationError(
                    f"expected {program.name} to be ready within {timeout_s:g} s, found it is not: see {program.log}"
                )
            time.sleep(0.1)

    def names(self) -> tuple[str, ...]:
        return tuple(self._programs)

    def pid(self, name: str) -> int:
        return self._programs[name].pid

    def is_running(self, name: str) -> bool:
        return not self._has_ended(self._programs[name])

    def restarts(self, name: str) -> int:
        return self._programs[name].restarts

    @contextmanager
    def supervised(self, every_s: float = LOOK_S) -> Iterator[None]:
        """While it lasts, what ends by itself is started again, for ever: Flower's SuperNode asks for that."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(every_s):
                self.restart_ended()

        thread = threading.Thread(target=watch, name="supervisor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def restart_ended(self) -> list[str]:
        """Start again what has ended by itself, and end what it left behind; their names."""
        with self._change:
            ended = [program for program in self._programs.values() if self._has_ended(program)]
            return [program.name for program in ended if self._restart(program)]

    def _restart(self, program: Program) -> bool:
        if time.monotonic() < program.not_before:
            return False
        try:
            program.process = _spawn(
                program.command, program.env, program.cwd, program.log, program.user, program.group
            )
        except OSError:
            return False  # no memory or no room just now: at the next look
        program.not_before = time.monotonic() + self._restart_s
        program.restarts += 1
        return True

    def kill(self, name: str, *, down_s: float = 0.0) -> None:
        """SIGKILL to it and what it started, as a power cut would; not started again before ``down_s``."""
        with self._change:
            program = self._programs[name]
            program.not_before = max(program.not_before, time.monotonic() + down_s)
            self._end(program)

    def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL to whatever of its session is left when it ends, or after STOP_S."""
        with self._change:
            program = self._programs.pop(name)
            if not self._has_ended(program):
                program.process.terminate()
                end = time.monotonic() + STOP_S
                while not self._has_ended(program) and time.monotonic() < end:
                    time.sleep(0.02)
                self._end(program)

    def _has_ended(self, program: Program) -> bool:
        """If so, what it left behind is ended too: before it is waited for, while its number is still its own."""
        with self._change:
            process = program.process
            if process.returncode is None and _is_dead(process.pid):
                self._end(program)
            return process.returncode is not None

    def _end(self, program: Program) -> None:
        """SIGKILL to its whole session, unless it was waited for already."""
        if program.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.process.wait()


def _is_dead(child: int) -> bool:
    """Whether it has ended; it is not waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _spawn(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path, user: int | None, group: int | None
) -> subprocess.Popen[bytes]:
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as output:
        return subprocess.Popen(  # noqa: S603  programs named in this project
            list(command),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if group is None else [],
        )
