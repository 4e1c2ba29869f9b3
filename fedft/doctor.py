"""What this machine has for fedft: versions, devices, memory, disk, the model hub. Changes nothing.

The packages asked for are those that the installed distribution itself declares, with their ranges.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from packaging.requirements import Requirement

OLDEST_PYTHON = (3, 11)
HUB_TIMEOUT_S = 3.0
LITTLE_MEMORY = 4e9
LITTLE_DISK = 2e9

_EXTRAS = {
    "ray": "fedft simulate --engine flower",
    "bitsandbytes": 'model.quantization = "nf4"',
}
"""What only some need, and for what."""

Status = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. "missing": fedft does not run without it."""

    subject: str
    status: Status
    detail: str


def examine() -> list[Finding]:
    """All findings, the required ones first."""
    return [_python(), *_packages(), *_extras(), _processors(), _memory(), _disk(), *_devices(), _hub()]


def is_healthy(findings: list[Finding]) -> bool:
    """Whether nothing that is required is missing."""
    return all(finding.status != "missing" for finding in findings)


def _python() -> Finding:
    found, oldest = platform.python_version(), ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "missing", f"expected at least {oldest}, found {found}: install a newer Python")
    return Finding("python", "ok", f"{found} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Finding]:
    try:
        found, declared = version("fedft"), [Requirement(text) for text in requires("fedft") or ()]
    except PackageNotFoundError:
        yield Finding("fedft", "missing", "not installed, so its requirements are unknown: pip install . in its folder")
        return
    yield Finding("fedft", "ok", found)
    for requirement in declared:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement)


def _package(requirement: Requirement) -> Finding:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        wanted = f"{requirement.name}{requirement.specifier}"
        return Finding(requirement.name, "missing", f"not installed: pip install '{wanted}'")
    if not requirement.specifier.contains(found, prereleases=True):
        wanted = f"{requirement.name}{requirement.specifier}"
        return Finding(
            requirement.name, "missing", f"expected {requirement.specifier}, found {found}: pip install '{wanted}'"
        )
    return Finding(requirement.name, "ok", found)


def _extras() -> Iterator[Finding]:
    for name, purpose in _EXTRAS.items():
        try:
            yield Finding(name, "ok", f"{version(name)}, for {purpose}")
        except PackageNotFoundError:
            yield Finding(name, "note", f"not installed; needed for {purpose} alone")


def _processors() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    limited = f", OMP_NUM_THREADS = {threads}" if threads else ""
    return Finding("processors", "ok", f"{usable} usable of {os.cpu_count()}{limited}")


def _memory() -> Finding:
    page = os.sysconf("SC_PAGE_SIZE")
    whole, free = page * os.sysconf("SC_PHYS_PAGES"), _available_memory()
    detail = f"{whole / 1e9:.1f} GB" + (f", {free / 1e9:.1f} GB of it available" if free is not None else "")
    little = free is not None and free < LITTLE_MEMORY
    return Finding(
        "memory", "note" if little else "ok", f"{detail}{'; little for a large base model' if little else ''}"
    )


def _available_memory() -> float | None:
    """Linux's own estimate, lowered by the control group's limit; None on other systems."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        return min(free, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return free


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    little = free < LITTLE_DISK
    writable = os.access(Path.cwd(), os.W_OK)
    detail = f"{free / 1e9:.1f} GB free here{'' if writable else '; this folder is not writable: give --folder'}"
    return Finding("disk", "note" if little or not writable else "ok", detail)


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch runs", "missing", f"importing torch fails ({type(error).__name__}): install it again")
        return
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", "ok", f"{found.name}, {found.total_memory / 1e9:.0f} GB")
    if not torch.cuda.is_available():
        yield Finding("gpu", "note", f"none found; training runs on the CPU with {torch.get_num_threads()} threads")


def _hub() -> Finding:
    """Whether base models can be fetched. Asks for a connection only, and not at all where the hub is switched off."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return Finding("model hub", "note", f"switched off by {name}: base models come from folders and the cache")
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host, port = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=HUB_TIMEOUT_S).close()
    except OSError:
        return Finding("model hub", "note", f"{host} does not answer: base models come from folders and the cache")
    return Finding("model hub", "ok", f"{host} answers")
