"""How a coordinator's programs are started, as text to copy: what fedft provision init says, and the folder's README.

Guarantee: run from inside the folder, as they are written, these commands keep all that Flower writes in that folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fedft.deployment.provision_federation import Federation
from fedft.deployment.provision_superlink import QUIET, superexec_arguments, superlink_arguments
from fedft.deployment.proxy import CONFIGURATION

WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z0-9_./:=@,-]+")


def nginx_line(place: str) -> str:
    """How nginx is started on the folder ``place`` of this one. In the foreground, as its configuration says."""
    return f'nginx -p "$PWD/{place}/" -e error.log -c {CONFIGURATION}'


def flower_lines(program: str, arguments: Sequence[str], *, home: str, first: str | None = None) -> str:
    """A program of Flower with its environment, as a shell reads it; its FLWR_HOME is the folder ``home`` of this one.

    Without one, Flower writes to .flwr in its user's home. first: the folder of this one that is first in its PATH.
    Arguments may hold $PWD, and nothing else of a shell's.
    """
    path = [] if first is None else [f'PATH="$PWD/{first}:$PATH"']
    environment = [*path, f'FLWR_HOME="$PWD/{home}"', *(f"{name}={value}" for name, value in QUIET.items())]
    return " \\\n    ".join(_wrapped([*environment, program, *map(_quoted, arguments)]))


def start_commands(superlink_port: int) -> list[str]:
    """Of the coordinator's SuperLink, SuperExec and proxy, in the order in which they are started."""
    place = "superlink"
    return [
        flower_lines("flower-superlink", superlink_arguments(place, port=superlink_port), home="superlink/flower"),
        flower_lines("flower-superexec", superexec_arguments(place, port=superlink_port), home="superexec"),
        nginx_line("proxy"),
    ]


def coordinator_readme(federation: Federation, superlink_port: int) -> str:
    """README.md of the coordinator's folder."""
    superlink, superexec, proxy = (_indented(command) for command in start_commands(superlink_port))
    return f"""\
# The coordinator of the federation "{federation.name}"

Whoever reads the keys in this folder speaks for the federation: it stays on the coordinator's machine.

Three programs, each in a terminal of its own, from inside this folder, in this order. They run until they are stopped;
let something start them again when they end (systemd, say; in containers `docker-compose.yml` has the same). The
Python environment that fedft is installed in has to be active, since Flower's programs find each other by name.

The SuperLink takes signed requests and answers:

{superlink}

The SuperExec starts the ServerApp, which signs with `coordinator.key`:

{superexec}

The proxy is the one door for institutions. Its port {federation.port} may be reached from outside. The SuperLink's,
{superlink_port}, listens on loopback and has to stay there: who reaches it can start code at every node.

{proxy}

A few seconds later, and whenever the SuperLink has lost its database, tell it who belongs:

    fedft provision register .

Who joins: `fedft provision admit FOLDER REQUEST`, then `fedft provision kit FOLDER NAME --out NAME-kit.tar.gz`, with
this folder's path. A run: `fedft coordinate FILE --coordinator FOLDER`. `fedft provision check FOLDER` says whether
keys, certificates and roster are as they should be.
"""


def _indented(command: str) -> str:
    return "\n".join(f"    {line}" for line in command.splitlines())


def _quoted(word: str) -> str:
    """As it is, or in double quotes, in which a shell still replaces $PWD."""
    if _PLAIN.fullmatch(word):
        return word
    escaped = re.sub(r'(["\\`])', r"\\\1", word)
    return f'"{escaped}"'


def _wrapped(words: Sequence[str]) -> Iterator[str]:
    """Lines of at most WIDTH characters; an option stays beside its value."""
    line = ""
    for part in _options(words):
        if line and len(line) + 1 + len(part) > WIDTH:
            yield line
            line = ""
        line = f"{line} {part}".lstrip()
    yield line


def _options(words: Sequence[str]) -> Iterator[str]:
    option = ""
    for word in words:
        if word.startswith("--"):
            if option:
                yield option
            option = word
        else:
            yield f"{option} {word}".lstrip()
            option = ""
    if option:
        yield option
