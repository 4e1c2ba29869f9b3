"""What every command shares: how an error ends it, where it prints, and the options several of them take.

Guarantee: an error fedft raises on purpose ends a command with one line "error: ..." on stderr and exit code 1, never a
traceback. Any other exception's text is not printed, since a library may quote a record in it.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from fedft.errors import FedftError

INTERRUPTED = 130
CHECK_FAILED = 4
SHOW_TRACEBACK = "FEDFT_TRACEBACK"

# Arguments are described in a command's docstring: typer 0.20 loses an argument's own help beside click 8.5.
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value, as training.learning_rate=1e-3. Repeatable."),
]
File = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]
Run = Annotated[Path, typer.Argument(metavar="RUN", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Plain = Annotated[bool, typer.Option("--plain", help="Plain lines instead of the live display.")]


class Commands(TyperGroup):
    """Turns what a command raises into a line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        _quiet_libraries()
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except FedftError as error:
            fail(str(error))
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if os.environ.get(SHOW_TRACEBACK):
                raise
            fail(_unforeseen(error))
        raise typer.Exit(1)


def console() -> Console:
    """Standard output, as it is when the command runs."""
    return Console()


def fail(text: str) -> None:
    """One red line on stderr."""
    line = f"error: {' '.join(text.split())}"
    Console(stderr=True).print(line, style="red", soft_wrap=True, markup=False, highlight=False, emoji=False)


@contextmanager
def private_files() -> Iterator[None]:
    """What is made meanwhile is its owner's alone, as the agent's ledger is, whichever of its commands makes it."""
    mask = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(mask)


def hint(text: str) -> None:
    """What to do next, on stderr."""
    Console(stderr=True).print(text, style="dim", soft_wrap=True, markup=False, highlight=False, emoji=False)


def say(text: str) -> None:
    """On stdout as it is, for people and scripts alike."""
    typer.echo(text)


def one_line(text: str) -> str:
    """Without line ends or control characters, which a model's words and a label may hold."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


@contextmanager
def log_into(folder: Path) -> Iterator[Path]:
    """While it is open, what fedft logs goes to the file it gives; on the terminal it would tear the display."""
    file, logger = folder / "log.txt", logging.getLogger("fedft")
    handler = _LogFile(file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield file
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.propagate = propagate


class _LogFile(logging.FileHandler):
    """Made with its first line."""

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()


def _unforeseen(error: Exception) -> str:
    """Type and place of an error nobody raised on purpose; of an OSError also the system's words and the file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}fedft{os.sep}" in frame.filename
    ]
    place = f" at {'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else ""
    return (
        f"{type(error).__name__}{place}, which fedft did not foresee: "
        f"{SHOW_TRACEBACK}=1 shows the traceback, whose text may quote records"
    )


def _quiet_libraries() -> None:
    """Progress bars and warnings of libraries would tear the display; Flower's telemetry is off unless asked for."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name, value in (
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("FLWR_TELEMETRY_ENABLED", "0"),
    ):
        os.environ.setdefault(name, value)
