"""Reading a TOML file, with every way in which it may not be one in words."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from fedft.errors import ConfigError

MOST_BYTES = 2**24
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def read_toml(path: Path, *, kind: str, otherwise: str, closed: bool = False) -> dict[str, Any]:
    """What the file says.

    Parameters
    ----------
    kind : what the file is, as in "a federation file"
    otherwise : what to do when there is none
    closed : refuse a file that its group or others may write

    Raises
    ------
    ConfigError
        No such file, not readable, not UTF-8, no TOML; with ``closed`` open to others.
    """
    try:
        with path.open("rb") as file:
            if closed:
                _require_closed(os.fstat(file.fileno()), kind)
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise ConfigError(f"expected {kind} of at most {MOST_BYTES:,} bytes, found more: check the path")
            return tomllib.loads(file.read().decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"expected {kind}, found none: check the path, or {otherwise}") from None
    except OSError as error:
        raise ConfigError(f"expected a readable file, found none ({error.strerror}): check the path") from None
    except UnicodeDecodeError:
        raise ConfigError("expected UTF-8 text, found other bytes: save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"expected TOML, found a syntax error: {error}: correct that line") from None
    except RecursionError:
        raise ConfigError("expected TOML, found values nested too deeply: make it flatter") from None


def _require_closed(found: os.stat_result, kind: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & _OTHERS_WRITE:
        raise ConfigError(
            f"expected {kind} that its owner alone may write, found mode {mode:04o}: check that nobody changed it, "
            "then run chmod go-w on it"
        )
