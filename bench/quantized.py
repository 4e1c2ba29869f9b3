"""A private step over the same base in float32, bfloat16 and 4 bits: seconds, bytes of the base, and memory on top.

    python bench/quantized.py [--shape encoder-110M] [--batch 16] [--steps 3] [--write bench/results/quantized.json]

Each base is loaded and trained in a fresh process, from one folder of random weights; the first step is not counted.
Needs bitsandbytes. bfloat16 is the base's dtype, without autocast. The base's memory is that of its tensors: a float32
base is mapped from its file, so that resident sizes say little. A step's is the most that was held on top, sampled
every millisecond, file mappings left out.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import torch
from _fresh import run_fresh
from _result import emit
from dp_step import ROLES, SHAPES, build, rows
from torch import nn

from fedft.model.adapter import attach_adapter
from fedft.model.base import load_base_model
from fedft.randomness import SecureStream
from fedft.training.local import LocalPlan, Mechanism, train_locally

BASES = {"float32": ("float32", "none"), "bfloat16": ("bfloat16", "none"), "nf4": ("float32", "nf4")}


def anonymous_mib() -> float:
    """What this process holds now beside file mappings."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 2**10


def peak_during(work: Callable[[], list[float]]) -> tuple[list[float], float]:
    """What ``work`` returned, and by how much memory grew meanwhile at most."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before, done, largest = anonymous_mib(), Event(), [0.0]

    def watch() -> None:
        while not done.wait(0.001):
            largest[0] = max(largest[0], anonymous_mib() - before)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        return work(), largest[0]
    finally:
        done.set()
        watcher.join()


def tensor_mib(model: nn.Module) -> float:
    """Bytes of a base's weights, buffers and 4-bit scales."""
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [state.absmax for p in model.parameters() if (state := getattr(p, "quant_state", None)) is not None]
    return sum(t.numel() * t.element_size() for t in tensors) / 2**20


def measure(args: argparse.Namespace) -> None:
    dtype, quantization = BASES[args.only]
    base = load_base_model(args.folder, task="classification", device="cpu", dtype=dtype, quantization=quantization)
    size = tensor_mib(base.model)
    model = attach_adapter(
        base, method="lora", rank=8, alpha=16.0, target_modules=None, dropout=0.0, rslora=False, num_labels=77,
        pooling="mean", seed=0, orthonormal_a=True,
    )  # fmt: skip
    data, start, uniform = rows(args.batch, args.length), model.read_vector(), SecureStream().uniform
    plan = LocalPlan((1e-3,), args.batch, 1.0, Mechanism(1.0, 1.0), physical_batch_size=args.batch // 2)

    def steps(count: int) -> list[float]:
        return [train_locally(model, data, start, plan, roles=ROLES, uniform=uniform).seconds for _ in range(count)]

    steps(1)
    seconds, grown = peak_during(lambda: steps(args.steps))
    print(json.dumps({"step_s": statistics.median(seconds), "base_mib": size, "step_mib": grown}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="encoder-110M")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", choices=BASES)
    parser.add_argument("--folder")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if args.only:
        measure(args)
        return
    options = ["--batch", str(args.batch), "--length", str(args.length), "--steps", str(args.steps)]
    with tempfile.TemporaryDirectory() as folder:
        build(args.shape, "cpu", Path(folder))
        found = {kind: run_fresh(__file__, ["--only", kind, "--folder", folder, *options]) for kind in BASES}
    shape = {"shape": args.shape, "rows": args.batch, "tokens_per_row": args.length, "threads": torch.get_num_threads()}
    emit("quantized", {"bases": found, **shape}, write=args.write)


if __name__ == "__main__":
    main()
