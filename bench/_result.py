"""How a benchmark reports: one JSON object as its last line, and the same object in a file when asked."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("fedft", "numpy", "torch", "flwr", "opacus", "peft", "transformers", "dp-accounting", "ray")
_ROOT = Path(__file__).resolve().parent.parent


def emit(name: str, figures: Mapping[str, Any], *, write: Path | None = None) -> dict[str, Any]:
    """Print ``{"name", **figures, "command", "date", "machine", "versions"}`` on one line; write it, indented, too."""
    result = {
        "name": name,
        **figures,
        "command": command(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }
    if write is not None:
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), flush=True)
    return result


def command() -> str:
    """What was typed, without the paths of this machine: inside the repository relative to it, elsewhere the name."""
    return shlex.join(["python", *(_portable(word) for word in sys.argv)])


def machine() -> str:
    """In general words, such as "2 cores, 24 GiB, no GPU"."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return f"{cores} cores, {gib} GiB, {_gpu()}"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _gpu() -> str:
    # Only what the benchmark itself has loaded: importing torch here would change its memory figures.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "GPU not used" if Path("/dev/nvidiactl").exists() else "no GPU"
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"


def _portable(word: str) -> str:
    path = Path(word)
    if not (path.is_absolute() or (_ROOT / path).exists()):
        return word
    resolved = path.resolve()
    return str(resolved.relative_to(_ROOT)) if resolved.is_relative_to(_ROOT) else path.name
