"""Time and peak memory of one DP-SGD LoRA step against the same step without privacy, same physical batches.

    python bench/dp_step.py [--quick] [--shape small] [--device cuda] [--write bench/results/dp_step.json]

Both steps run the product's own code (training.local) on a model with random weights, LoRA of rank 8 on query and value
and a head of 77 classes: Poisson draw, packing, forward, backward, clipping, secure noise, optimizer. Shapes:
"encoder-22M" is all-MiniLM-L6-v2's, "encoder-110M" BERT-base's, "small" the decoder's in scenarios/model.

``ratio`` is the median over rounds of (DP time / plain time), a step of each taken in turn, each first in half of the
rounds; goal at most 1.15 on CPU, 1.10 on a GPU. ``ratio_of_fastest`` compares the fastest step of each: what is left
when other work on the machine disturbs. Peak memory is taken in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _fresh import peak_mib, run_fresh
from _result import emit
from transformers import BertConfig, BertModel, BertTokenizer, LlamaConfig, LlamaModel

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
    "small": dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256),
}
VOCABULARY = 30522


def build(shape: str, device: str, folder: Path) -> AdaptedModel:
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCABULARY - 5))]
    (folder / "vocab.txt").write_text("\n".join(words))
    if shape == "small":
        LlamaModel(LlamaConfig(**SHAPES[shape], vocab_size=VOCABULARY)).save_pretrained(folder)
    else:
        BertModel(BertConfig(**SHAPES[shape], vocab_size=VOCABULARY)).save_pretrained(folder)
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


def peak_of_fresh(args: argparse.Namespace, kind: str) -> float:
    options = ["--only", kind, "--device", args.device, "--shape", args.shape]
    return float(run_fresh(__file__, [*options, "--batch", str(args.batch), "--length", str(args.length)])["peak_mib"])


def measure_once(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model, data = build(args.shape, args.device, Path(folder)), rows(args.batch, args.length)
        seconds_per_step(model, data, args.only == "dp", 3, args.batch)
    peak = torch.cuda.max_memory_allocated() / 2**20 if args.device == "cuda" else peak_mib()
    print(json.dumps({"peak_mib": peak}))


def interleaved(model: AdaptedModel, data: EncodedDataSet, rounds: int, steps: int, batch: int) -> list[list[float]]:
    """[plain, private] seconds of a step, for each round."""
    times = []
    for number in range(rounds + 1):
        pair = [0.0, 0.0]
        for private in (False, True) if number % 2 else (True, False):
            pair[private] = seconds_per_step(model, data, private, steps, batch)
        times.append(pair)
    return times[1:]  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="encoder-22M")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--only", choices=("dp", "plain"))
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if args.only:
        measure_once(args)
        return
    rounds, steps = (5, 2) if args.quick else (args.rounds, 3)
    with tempfile.TemporaryDirectory() as folder:
        model, data = build(args.shape, args.device, Path(folder)), rows(args.batch, args.length)
        times = interleaved(model, data, rounds, steps, args.batch)
    plain, private = zip(*times, strict=True)
    memory = {kind: peak_of_fresh(args, kind) for kind in ("plain", "dp")}
    emit(
        "dp_step",
        {
            "ratio": statistics.median(dp / base for base, dp in times),
            "ratio_of_fastest": min(private) / min(plain),
            "plain_step_s": statistics.median(plain),
            "dp_step_s": statistics.median(private),
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
