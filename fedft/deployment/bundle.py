"""What goes to Flower as a bundle: the ServerApp, the relay, and nothing of fedft."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import fedft
from fedft import __version__
from fedft.errors import ConfigError

BUNDLE = ("server/__init__.py", "server/app.py", "client/__init__.py", "client/app.py")
OWN = "client/own.py"
"""Beside them, and in no bundle: how an institution runs the relay from its own disk."""


def write_bundle(folder: Path) -> Path:
    """What Flower sends to every node: the ServerApp, the relay, and nothing of fedft. Raises ConfigError."""
    source = source_folder()
    for name in BUNDLE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    (folder / "LICENSE").write_text("Apache-2.0\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text(_PROJECT.format(version=__version__), encoding="utf-8")
    return folder


def source_folder() -> Path:
    """The folder that holds server/ and client/: the project's, or where its wheel puts them. Raises ConfigError."""
    places = (Path(fedft.__file__).resolve().parent.parent, Path(sys.prefix) / "share" / "fedft")
    for place in places:
        if all((place / name).is_file() for name in (*BUNDLE, OWN)):
            return place
    raise ConfigError(f"expected {', '.join((*BUNDLE, OWN))} beside fedft, found them nowhere: install fedft again")


_PROJECT = """\
# Made by fedft coordinate: the bundle of the federation, which holds no code of fedft and no data.
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "fedft-federation"
version = "{version}"
license = {{ file = "LICENSE" }}
dependencies = []

[tool.flwr.app]
publisher = "fedft"
fab-include = ["server/*.py", "client/*.py"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
folder = ""
"""
