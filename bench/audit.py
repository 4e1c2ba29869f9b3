"""What the records cost: verifying a run of many institutions and rounds, and a ledger's share of a round.

    python bench/audit.py [--institutions 100] [--rounds 1000] [--ledger-rounds 200] [--write bench/results/audit.json]

The run is made by real witnesses, envelopes, ledger entries and audit log (tests/made_run.py), without syncs while it
is made, and kept in --folder where one is given. verify_s and peak_mib: of a fresh process on one thread.
ledger_ms_per_round: receipt, intent, release of 1 MB and attestation of one institution, each synced to the disk of
--scratch; the median round. receipt_ms_per_round: of that the receipt. sync_ms: of a write of 4 KB there, synced, for
comparison.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _bulk_ledger import BulkLedger
from _fresh import peak_mib, run_fresh
from _result import emit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

RELEASE_BYTES = 1_000_000


def main() -> None:
    options = _options()
    if options.child is not None:
        print_verified(options.child)
        return
    figures: dict[str, Any] = {"institutions": options.institutions, "rounds": options.rounds}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        figures |= ledger_round(Path(scratch) / "ledger", options.ledger_rounds)
        folder = options.folder or Path(scratch) / "run"
        if not (folder / "audit.head").exists():
            begun = time.perf_counter()
            make(folder, options.institutions, options.rounds)
            figures["made_s"] = round(time.perf_counter() - begun, 1)
        figures["log_mib"] = round((folder / "audit.jsonl").stat().st_size / 2**20, 1)
        figures |= run_fresh(__file__, ["--child", str(folder)])
    emit("audit", figures, write=options.write)


def make(folder: Path, institutions: int, rounds: int) -> None:
    """The run's files, as they would be after as many rounds."""
    from tests.made_run import MadeRun

    with without_syncs():
        run = MadeRun(folder, institutions, rounds=rounds, open_ledger=BulkLedger)
        run.play(rounds)
        run.end()


@contextmanager
def without_syncs() -> Iterator[None]:
    """The same bytes, sooner: what is measured is reading them."""
    fsync = os.fsync
    setattr(os, "fsync", lambda _: None)  # noqa: B010
    try:
        yield
    finally:
        setattr(os, "fsync", fsync)  # noqa: B010


def print_verified(folder: Path) -> None:
    """In a process of its own: seconds and peak memory of verifying ``folder``."""
    import json

    from fedft.audit.verify import verify_run

    begun = time.perf_counter()
    cpu = time.process_time()
    verdict = verify_run(folder)
    if verdict.finding is not None:
        raise SystemExit(f"expected a valid run, found {verdict.finding.as_text()}")
    figures = {
        "verify_s": round(time.perf_counter() - begun, 2),
        "verify_cpu_s": round(time.process_time() - cpu, 2),
        "peak_mib": round(peak_mib()),
        "entries": verdict.entries,
        "ledgers": len(verdict.ledgers),
    }
    print(json.dumps(figures))


def ledger_round(folder: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds that the records add to a round of one institution, syncs included."""
    from fedft.identity.keys import PrivateKey
    from fedft.ledger.chain import Signer
    from fedft.ledger.store import Ledger
    from fedft.records.heads import LogHead
    from fedft.rounds.witness import Witness
    from fedft.types import Digest
    from tests.made_run import EVENT

    coordinator, signer = PrivateKey.generate(), Signer("bank", PrivateKey.generate())
    took: list[float] = []
    receipts: list[float] = []
    evidence: dict[str, str | int | float] = {"fingerprint": "f" * 64, "units": 500, "clip_norm": 0.5, "delta": 1e-5}
    with Ledger.open(folder / "ledger.sqlite", signer=signer) as ledger:
        witness = Witness(signer, coordinator=coordinator.public, ledger=ledger)
        for number in range(1, rounds + 1):
            head = LogHead("made/1", number, Digest("d" * 64)).signed(coordinator)
            update = os.urandom(RELEASE_BYTES)
            begun = time.perf_counter()
            witness.accept("made/1", head)
            receipts.append(1000 * (time.perf_counter() - begun))
            intent = ledger.record_intent(
                run="made/1", round=number, purpose="update", dataset="bank", plan_digest="1" * 64, event=EVENT,
                evidence=evidence,
            )  # fmt: skip
            witness.attested(ledger.record_release(intent, update), run="made/1", round=number)
            took.append(1000 * (time.perf_counter() - begun))
    return {
        "ledger_ms_per_round": round(statistics.median(took), 2),
        "ledger_ms_per_round_p95": round(statistics.quantiles(took, n=20)[-1], 2),
        "receipt_ms_per_round": round(statistics.median(receipts), 2),
        "release_bytes": RELEASE_BYTES,
        "sync_ms": round(statistics.median(syncs(folder / "synced", 50)), 2),
    }


def syncs(path: Path, count: int) -> list[float]:
    """Milliseconds of each of ``count`` synced writes."""
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            begun = time.perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            took.append(1000 * (time.perf_counter() - begun))
    return took


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--institutions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--ledger-rounds", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="keep the run here, or verify the one that is")
    parser.add_argument("--scratch", type=Path, help="where temporary files go")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
