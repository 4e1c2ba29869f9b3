"""The only room that speaks Flower: rounds as messages, over any Grid. Pinned to one minor version of flwr."""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when flwr is imported, and on unless told otherwise
