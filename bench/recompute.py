"""What an audit costs: every privacy figure of a run of 100 institutions and 1,000 rounds, computed again.

    python bench/recompute.py [--quick] [--write bench/results/recompute.json]

A fresh process reads the run's folder and its 100 ledgers (200,100 entries, each checked) and computes, for each of 100
data sets of different size, epsilon by PLD, PRV and RDP and the noise multiplier from the plan; one thread. The ledgers
are made by the ledger's own code, without training. ``recompute_s``: wall time, imports included;
``recompute_cpu_s``: of the
processor, which other programs change less; ``peak_mib``: largest resident set. Goal, together with verify: 60 s on one
core and 1 GiB.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from _audit_ledgers import make_run
from _fresh import peak_mib, run_fresh
from _result import emit

SIZES = {False: (100, 1000), True: (4, 50)}


def recompute_here(folder: Path) -> dict[str, Any]:
    """In this process, which has done nothing else."""
    begun = time.perf_counter()
    from fedft.audit.recompute import recompute

    found = recompute(folder)
    return {
        "recompute_s": time.perf_counter() - begun,
        "recompute_cpu_s": time.process_time(),
        "peak_mib": peak_mib(),
        "exit_code": found.exit_code,
        "accounts": len(found.accounts),
        "prv": sum(account.prv is not None for account in found.accounts),
    }


def measure(*, quick: bool) -> dict[str, Any]:
    institutions, rounds = SIZES[quick]
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_run(Path(scratch), institutions=institutions, rounds=rounds)
        return {"institutions": institutions, "rounds": rounds, **run_fresh(__file__, ["--folder", str(folder)])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        print(json.dumps(recompute_here(options.folder)))
        return
    emit("recompute", measure(quick=options.quick), write=options.write)


if __name__ == "__main__":
    main()
