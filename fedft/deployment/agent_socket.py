"""The agent's Unix domain socket: for its owner and group, at a path where no other agent lives."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedft.errors import ConfigError

MODE = 0o660
WAITING = 64
"""Connections that the system keeps until they are taken."""
LONGEST_PATH = 100
"""Bytes; the system's own limit is a few more."""


@contextmanager
def bound_socket(path: Path) -> Iterator[socket.socket]:
    """A socket at ``path``, mode 0660 from its first moment; taken away at the end.

    The file of an agent that died is replaced; that of a living one, and a file of another kind, is not touched.

    Raises ConfigError.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ConfigError(
            f"expected a path of at most {LONGEST_PATH} bytes for agent.socket, found {len(os.fsencode(path))}: "
            "choose a shorter one, as in /run/fedft"
        )
    _make_room(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o777 & ~MODE)
        try:
            bound.bind(os.fspath(path))
        finally:
            os.umask(mask)
        bound.listen(WAITING)  # at once: to another agent that starts, a socket without it looks like a dead one's
        ours = os.stat(path).st_ino
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"expected to make a socket at {path}, found {error.strerror}: correct agent.socket"
        ) from None
    try:
        yield bound
    finally:
        bound.close()
        _take_away(path, ours)


def _make_room(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # nothing there, or no way to it: bind will say which
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"expected a socket or nothing at {path}, found another file: correct agent.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5.0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(f"expected to reach {path}, found {error.strerror}: correct agent.socket") from None
    raise ConfigError(f"expected no agent at {path}, found one that lives: stop it first, or choose another socket")


def _take_away(path: Path, ours: int) -> None:
    """Unless another stands there by now."""
    try:
        if os.stat(path).st_ino == ours:
            path.unlink()
    except OSError:
        return
