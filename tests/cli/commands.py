"""The command line in this process, a federation file for it, and one finished run for all who only read."""

from __future__ import annotations

from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from fedft.cli import app
from tests.federation import NAMES, federation_body

CHECKS = """
[outcome]
checks = [{ figure = "rounds_done", equals = 2 }]
"""


def fedft(*arguments: str | Path) -> Result:
    """Run a command; stdout and stderr apart."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def federation_file(folder: Path, extra: str = CHECKS, *, kind: str = "classification") -> Path:
    """A federation of three tiny institutions as a TOML file, private, beside its data and base model."""
    federation_body(folder)
    institutions = "".join(f'[[institutions]]\nname = "{name}"\ndata = "{name}.jsonl"\n' for name in NAMES)
    file = folder / "federation.toml"
    file.write_text(
        f"""
[federation]
name = "tiny"
rounds = 2
[model]
base = "base"
[adapter]
rank = 2
alpha = 4
[task]
kind = "{kind}"
max_length = 16
[data]
evaluation = "public.jsonl"
unit = "patient"
[training]
local_steps = 2
batch_size = 8
learning_rate = 0.01
device = "cpu"
[privacy]
mode = "dp-sgd"
epsilon = 8.0
delta = 1e-3
clip_norm = 1.0
{institutions}{extra}"""
    )
    return file
