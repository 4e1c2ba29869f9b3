"""How much the base model's frozen features know: logistic regression on them, trained on all rows without privacy.

python scenarios/model/probe.py                      # prints one JSON object
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "synthetic" / "data"
BATCH, RIDGE, ITERATIONS = 128, 1e-3, 200

Row = dict[str, str]


def read(name: str, task: str | None) -> list[Row]:
    rows: list[Row] = [json.loads(line) for line in (DATA / name).read_text().splitlines()]
    return [row for row in rows if task is None or row["task"] == task]


@torch.no_grad()
def features(model: Any, tokenizer: Any, rows: Sequence[Row]) -> Tensor:
    """(n, h): the mean of the last layer's states over each row's own tokens."""
    parts = []
    for start in range(0, len(rows), BATCH):
        texts = [row["text"] for row in rows[start : start + BATCH]]
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(-1)
        states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        parts.append((states * mask).sum(1) / mask.sum(1))
    return torch.cat(parts)


def probe_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int) -> float:
    """Accuracy on ``test`` of the regression fitted on ``train`` with standardised features."""
    x, y = train
    mean, deviation = x.mean(0), x.std(0)
    x = (x - mean) / deviation
    weights = torch.zeros(x.shape[1] + 1, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weights[:-1] + weights[-1], y) + RIDGE * weights[:-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    logits = ((test[0] - mean) / deviation) @ weights[:-1] + weights[-1]
    return float((logits.argmax(1) == test[1]).float().mean())


def main() -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(HERE), AutoModel.from_pretrained(HERE).eval()
    figures = {}
    for name, task in (("hospitals", None), ("banks", "messages"), ("banks", "memos")):
        train, test = read(f"{name}-train.jsonl", task), read(f"{name}-evaluation.jsonl", task)
        labels = sorted({row["label"] for row in test})
        sets = [
            (features(model, tokenizer, rows), torch.tensor([labels.index(row["label"]) for row in rows]))
            for rows in (train, test)
        ]
        figures[task or name] = round(probe_accuracy(sets[0], sets[1], len(labels)), 3)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
