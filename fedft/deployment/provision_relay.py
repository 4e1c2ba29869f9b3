"""The relay from an institution's own disk: its SuperNode runs this, and nothing of what the coordinator sends.

Guarantee: with the folder first in its PATH, a SuperNode of Flower 1.42 runs no code of a bundle, under any of the
names by which Flower starts an app. Held by tests/deployment/test_rehearsal.py, whose bundle is a hostile one.
"""

from __future__ import annotations

from pathlib import Path

from fedft.deployment.bundle import source_folder
from fedft.durable import write_whole

RELAY = "relay"
PROGRAMS = (
    "flwr-agentapp", "flwr-clientapp", "flwr-connector", "flwr-model", "flwr-serverapp", "flwr-simulation",
)  # fmt: skip
"""By these names Flower starts an app."""


def write_relay(folder: Path) -> None:
    """Make the folder anew. Raises ConfigError where fedft is installed without client/."""
    own = source_folder() / "client"
    folder.mkdir(exist_ok=True)
    write_whole(folder / "relay.py", (own / "app.py").read_bytes())
    for program in PROGRAMS:
        write_whole(folder / program, (own / "own.py").read_bytes())
        (folder / program).chmod(0o755)
