"""Measurements in fresh processes: what one process had in memory at most, and its last line as JSON."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")


def peak_mib() -> float:
    """Largest resident set of this process so far.

    On Linux VmHWM: ru_maxrss of a child begins at what its parent had when it forked, and so hides smaller figures.
    """
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def run_fresh(script: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run ``script`` with this interpreter; what it printed last. Its errors go to our own standard error."""
    command = [sys.executable, script, *arguments]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(printed.splitlines()[-1]))
