"""The ServerApp: hands Flower's Grid to fedft, which is installed where the coordinator's SuperExec runs."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """``folder`` of the run configuration: the run's, made by fedft coordinate."""
    from fedft.deployment.coordinator import play_on

    play_on(lambda strategy: strategy.start(grid), Path(str(context.run_config["folder"])))
