"""Prints constraints.txt from pip's installation report, without hosts, paths or local versions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HEADER = """\
# Every package that fedft[ray,dev,quantized] needs, pinned. Written by `make lock`, on Linux with CPython {python}.
# The nvidia, cuda and triton packages belong to the torch build for CUDA; a CPU build of the same version needs none.
"""


def constraints(report: dict[str, object]) -> str:
    """One ``name==version`` a line, in the order of names. The project itself is left out."""
    packages: list[dict[str, dict[str, str]]] = report["install"]  # type: ignore[assignment]
    pins = {
        package["metadata"]["name"].lower().replace("_", "-"): package["metadata"]["version"] for package in packages
    }
    del pins["fedft"]
    environment: dict[str, str] = report["environment"]  # type: ignore[assignment]
    lines = [f"{name}=={version.partition('+')[0]}" for name, version in sorted(pins.items())]
    return HEADER.format(python=environment["python_version"]) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(constraints(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
