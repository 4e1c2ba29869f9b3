"""Time and peak memory of one DP-SGD LoRA step against the same step without privacy, same physical batches.

    python bench/dp_step.py [--quick] [--device cuda] [--write bench/results/dp_step.json]

Both steps run the product's own code (training.local) on a BERT-shaped encoder with random weights: Poisson draw,
packing, forward, backward, clipping, secure noise, optimizer. ``ratio`` is the median over rounds of (DP time / plain
time), the two taken in turn; goal at most 1.15 on CPU, 1.10 on a GPU. Peak memory is taken in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _result import emit
from transformers import BertConfig, BertModel, BertTokenizer

from fedft.data.formats import EncodedDataSet, EncodedExample
from fedft.model.adapter import AdaptedModel, attach_adapter
from fedft.model.base import load_base_model
from fedft.randomness import SecureStream
from fedft.training.local import LocalPlan, Mechanism, train_locally
from fedft.types import Digest, Role

ROLES: tuple[Role, ...] = ("lora_B", "head")
SHAPES: dict[str, dict[str, Any]] = {
    "encoder-22M": dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
    "encoder-110M": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
}


def build(shape: str, device: str, folder: Path) -> AdaptedModel:
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(30517))]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(**SHAPES[shape], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    base = load_base_model(str(folder), task="classification", device=device)
    return attach_adapter(
        base,
        method="lora",
        rank=8,
        alpha=16.0,
        target_modules=None,
        dropout=0.0,
        rslora=False,
        num_labels=77,
        pooling="mean",
        seed=0,
        orthonormal_a=True,
    )


def rows(count: int, length: int) -> EncodedDataSet:
    rng = np.random.default_rng(0)
    examples = tuple(
        EncodedExample(rng.integers(5, 30000, size=int(n)), int(rng.integers(77)), None, i)
        for i, n in enumerate(rng.integers(length // 2, length + 1, size=count))
    )
    return EncodedDataSet(
        examples, tuple(np.array([i]) for i in range(count)), fingerprint=Digest("0" * 64), name="bench"
    )


def seconds_per_step(model: AdaptedModel, data: EncodedDataSet, private: bool, steps: int, batch: int) -> float:
    plan = LocalPlan(
        learning_rates=(1e-3,) * steps,
        batch_size=batch,
        sampling_rate=1.0,
        mechanism=Mechanism(1.0, 1.0) if private else None,
        physical_batch_size=batch // 2,
    )
    start = model.read_vector()
    result = train_locally(model, data, start, plan, roles=ROLES, uniform=SecureStream().uniform)
    return result.seconds / steps


def peak_mib(args: argparse.Namespace, private: bool) -> float:
    command = [sys.executable, __file__, "--only", "dp" if private else "plain", "--device", args.device]
    command += ["--shape", args.shape, "--batch", str(args.batch), "--length", str(args.length)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(printed.splitlines()[-1])["peak_mib"])


def measure_once(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model, data = build(args.shape, args.device, Path(folder)), rows(args.batch, args.length)
        seconds_per_step(model, data, args.only == "dp", 3, args.batch)
    if args.device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"peak_mib": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="encoder-22M")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--only", choices=("dp", "plain"))
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if args.only:
        measure_once(args)
        return
    rounds, steps = (5, 2) if args.quick else (25, 3)
    with tempfile.TemporaryDirectory() as folder:
        model, data = build(args.shape, args.device, Path(folder)), rows(args.batch, args.length)
        for private in (False, True):
            seconds_per_step(model, data, private, 2, args.batch)
        times = [
            [seconds_per_step(model, data, private, steps, args.batch) for private in (False, True)]
            for _ in range(rounds)
        ]
    plain, private = (statistics.median(column) for column in zip(*times, strict=True))
    memory = {kind: peak_mib(args, kind == "dp") for kind in ("plain", "dp")}
    emit(
        "dp_step",
        {
            "ratio": statistics.median(dp / base for base, dp in times),
            "plain_step_s": plain,
            "dp_step_s": private,
            "peak_mib": memory,
            "memory_ratio": memory["dp"] / memory["plain"],
            "shape": args.shape,
            "rows": args.batch,
            "tokens_per_row": args.length,
            "device": args.device,
            "rounds": rounds,
            "steps_per_round": steps,
            "trained_values": model.layout.only(ROLES).size,
        },
        write=args.write,
    )


if __name__ == "__main__":
    main()
