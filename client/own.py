#!/usr/bin/env python
"""In place of Flower's flwr-clientapp at an institution: the relay beside this file, whatever the coordinator sent.

A SuperNode starts the programs of its apps by their names, and each would run what came in Flower's bundle. fedft
provision puts this file under all of those names into a folder that is first in the SuperNode's PATH, with the relay as
relay.py beside it. So the bundle is neither unpacked nor read here; under any name but the relay's nothing runs.

Written for flwr 1.42: where one of these functions of its own is missing, nothing runs either.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

COMMAND = "flwr-clientapp"
RUNTIME = "flwr.supernode.runtime.run_clientapp"


def main() -> None:
    if Path(sys.argv[0]).name != COMMAND:
        sys.exit("this institution runs its own relay, and no other app")
    runtime, relay = import_module(RUNTIME), import_module("relay")
    replaced = {
        "install_from_fab": lambda *_, **__: None,
        "install_app_dependencies": _refused,
        "get_load_client_app_fn": lambda *_, **__: lambda *_: relay.app,
    }
    if missing := [name for name in replaced if not callable(getattr(runtime, name, None))]:
        sys.exit(f"expected {RUNTIME} of flwr 1.42, found no {', '.join(missing)}: install flwr 1.42")
    for name, function in replaced.items():
        setattr(runtime, name, function)
    import_module("flwr.supernode.cli.flwr_clientapp").flwr_clientapp()


def _refused(*_: Any, **__: Any) -> NoReturn:
    raise PermissionError("no dependencies are installed here")


if __name__ == "__main__":
    main()
