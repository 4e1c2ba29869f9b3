"""Every test: no hub, one thread a worker, and no deadline that a busy machine could miss.

Bytecode is written whatever the environment says: the many processes that tests start would each compile torch anew.
"""

from __future__ import annotations

import os
import sys

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("fedft", deadline=None)
settings.load_profile("fedft")
