"""The same federation on Flower's simulation runtime: ClientApps in Ray actors, for several GPUs or machines."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedft.errors import ConfigError


def play_on_ray(run: Callable[[Grid], object], client_app: ClientApp, nodes: int, *, gpus: bool) -> None:
    """``run`` with the runtime's Grid and ``client_app`` on virtual nodes of one CPU, and with ``gpus`` one GPU, each.

    Raises ConfigError when Ray is not installed, and what ``run`` raises.
    """
    require_ray()
    from flwr.simulation import run_simulation

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # a node without an answer is a traceback to it
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        run(grid)

    run_simulation(
        server_app,
        client_app,
        num_supernodes=nodes,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": float(gpus)},
            "init_args": {"include_dashboard": False, "log_to_driver": False},
        },
    )


def require_ray() -> None:
    """Raise ConfigError when Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            'expected Ray for --engine flower, found none: pip install "fedft[ray]", or use --engine local'
        )
