"""The house: who may import whom, one vendor one door, what no file may hold. Read off the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import fedft

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "fedft"
FILES = sorted(HOUSE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

FLOORS = (
    ("__main__",),
    ("cli",),
    ("display", "report"),
    ("doctor",),
    ("attack",),
    ("deployment", "simulation"),
    ("assembly", "flower"),
    ("rounds", "audit"),
    ("aggregation", "evaluation", "ledger"),
    ("training", "update", "records"),
    ("data", "model", "privacy", "secagg"),
    ("config", "identity", "randomness"),
    ("durable", "strict_json", "types"),
    ("errors",),
)
"""From the top. A room imports itself and lower floors; rooms on one floor do not know each other."""

DOORS = {
    "flwr": ("flower/",),
    "ray": ("flower/",),
    "opacus": ("training/dp_sgd.py",),
    "peft": ("model/adapter.py",),
    "dp_accounting": ("privacy/opinions.py",),
    "cryptography": (
        "randomness.py",
        "identity/",
        "secagg/key_agreement.py",
        "secagg/masking.py",
        "deployment/certificates.py",
    ),
    "tomllib": ("config/",),
    "starlette": ("deployment/agent_http.py",),
    "uvicorn": ("deployment/agent_http.py",),
    "socket": ("doctor.py", "deployment/agent_socket.py", "deployment/rehearse.py"),
}
"""One vendor, one door: the only files of fedft that may import it."""

WITHOUT_TORCH = (
    "audit",
    "config",
    "errors",
    "identity",
    "ledger",
    "privacy",
    "randomness",
    "records",
    "report",
    "secagg",
    "types",
)
"""An auditor checks a run without a deep-learning stack."""

DEEP_LEARNING = {"torch", "transformers", "peft", "opacus", "flwr"}
FORBIDDEN_IMPORTS = ("pickle", "marshal", "shelve", "random", "http", "urllib.request", "requests", "httpx")
"""Formats that run code when read, a generator nobody seeded, and ways out of the building that nobody accounts."""

FORBIDDEN_CALLS = ("torch.load", "torch.save", "numpy.load", "numpy.save", "eval", "exec", "logging.basicConfig")
SEEDED = frozenset({"Generator", "Philox", "SeedSequence", "BitGenerator", "default_rng"})
"""What of numpy.random is no global state."""

LONGEST_FILE = 350
PUBLIC_NAMES = {"__version__"}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def place(path: Path) -> str:
    return path.relative_to(HOUSE).as_posix()


def may_import(room: str, other: str) -> bool:
    floors = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    return other in (room, "__version__") or floors[other] > floors[room]


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in a file, in functions too, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module, node.lineno
            yield from ((f"{module}.{name.name}", node.lineno) for name in node.names if module in ("fedft", "urllib"))


def dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """The dotted name of an expression with aliases resolved: np.random.rand -> numpy.random.rand."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, aliases)}.{node.attr}"
    return aliases.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def aliases_of(tree: ast.Module) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.asname: name.name for name in node.names if name.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    return found


def is_forbidden(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in FORBIDDEN_IMPORTS)


def violations(tree: ast.Module) -> list[str]:
    """What no file of the house may hold."""
    names, found = aliases_of(tree), []
    found += [f"{line}: import {name}" for name, line in imported(tree) if is_forbidden(name)]
    found += [f"{line}: relative import" for name, line in imported(tree) if name.startswith(".")]
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"{node.lineno}: bare except")
        elif isinstance(node, ast.Call) and dotted(node.func, names) in FORBIDDEN_CALLS:
            found.append(f"{node.lineno}: {dotted(node.func, names)}()")
        elif isinstance(node, ast.Attribute | ast.Name):
            prefix, _, last = dotted(node, names).rpartition(".")
            if prefix == "numpy.random" and last not in SEEDED:
                found.append(f"{node.lineno}: numpy's global generator")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from random import choice", "from urllib.request import urlopen",
        "from urllib import request", "from . import types",
        "def f():\n    import requests", "import torch\ntorch.load('x')", "eval('1')",
        "from torch import load as l\nl('x')", "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.random.rand(3)", "from numpy import random\nrandom.seed(0)",
        "from numpy.random import rand\nrand()",
        "try:\n    pass\nexcept:\n    pass", "import logging\nlogging.basicConfig()",
    ],
)  # fmt: skip
def test_the_reader_of_sources_finds_what_it_looks_for(source: str) -> None:
    assert violations(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.random.default_rng(3).random()", "from numpy.random import Philox\nPhilox(1)",
        "try:\n    pass\nexcept OSError:\n    pass", "import safetensors.torch\nsafetensors.torch.load_file('x')",
        "model.eval()", "import numpy as np\ndef f(rng: np.random.Generator): ...",
    ],
)  # fmt: skip
def test_the_reader_of_sources_leaves_the_rest_alone(source: str) -> None:
    assert violations(ast.parse(source)) == []


def test_no_file_holds_what_is_forbidden() -> None:
    assert [f"{place(path)}:{problem}" for path in FILES for problem in violations(parsed(path))] == []


def test_every_file_says_what_it_is_for() -> None:
    assert [place(path) for path in FILES if not (ast.get_docstring(parsed(path)) or "").strip()] == []


def test_every_file_can_be_read_in_one_sitting() -> None:
    lengths = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_imports_only_go_down_and_rooms_on_one_floor_do_not_know_each_other() -> None:
    upward = [
        f"{place(path)}:{line}: {name}"
        for path in FILES
        for name, line in imported(parsed(path))
        if name.startswith("fedft.") and not may_import(room_of(path), name.split(".")[1])
    ]
    assert upward == []


@pytest.mark.parametrize(("room", "other"), [("ledger", "aggregation"), ("types", "config"), ("rounds", "flower")])
def test_a_room_may_not_import_beside_or_above(room: str, other: str) -> None:
    assert not may_import(room, other)
    assert may_import(room, room)
    assert may_import(room, "errors")


def test_vendors_are_reached_through_their_doors() -> None:
    past_the_door = [
        f"{place(path)}:{line}: {name}"
        for path in FILES
        for name, line in imported(parsed(path))
        if name.split(".")[0] in DOORS and not place(path).startswith(DOORS[name.split(".")[0]])
    ]
    assert past_the_door == []


def test_the_house_has_the_floors_of_the_import_rules() -> None:
    contracts = {contract["id"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    rules = tuple(tuple(layer.split(" | ")) for layer in contracts["floors"]["layers"])
    assert rules == FLOORS
    assert {room_of(path) for path in FILES} - {"__init__"} == {room for floor in FLOORS for room in floor}


def test_an_auditor_needs_no_deep_learning_stack() -> None:
    modules = [module_name(path) for path in FILES if room_of(path) in WITHOUT_TORCH]
    check = f"import {', '.join(modules)}, sys; print(sorted({DEEP_LEARNING} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_public_names_are_frozen() -> None:
    exported = {name for name in vars(fedft) if not name.startswith("_")} | {"__version__"}
    rooms = {room_of(path) for path in FILES}
    assert exported - rooms == PUBLIC_NAMES


def test_the_version_is_one() -> None:
    assert PROJECT["project"]["version"] == fedft.__version__


def test_every_dependency_is_pinned_without_hosts_or_paths() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert all(version and not set(version) & set("/@+ ") for version in pins.values())
    assert pins["torch"] == "2.13.0"
    named = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
    for requirement in named:
        name = requirement.split(">")[0].split("=")[0]
        assert name in pins, f"{name} is not in constraints.txt: run make lock"
