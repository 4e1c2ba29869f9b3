"""A small federation file, and variants to go with it."""

from __future__ import annotations

FILE = """
[federation]
name = "two-clinics"
rounds = 3

[model]
base = "hub/model"

[task]
kind = "classification"
labels = ["a", "b"]

[data]
evaluation = "evaluation.jsonl"

[training]
local_steps = 2
batch_size = 8
learning_rate = 0.01

[privacy]
mode = "dp-sgd"
epsilon = 8.0
delta = 1e-5
clip_norm = 1.0

[[institutions]]
name = "north"
data = "rows/north.jsonl"
epsilon = 4.0

[[institutions]]
name = "south"
data = "datasets:clinic/south"
"""

VARIANTS = """
[outcome]
checks = [{ figure = "off.final.accuracy", at_least = 1.0, of = "private.final.accuracy" }]
[variants.private]
[variants.off]
"privacy.mode" = "off"
"data.evaluation" = "other.jsonl"
training.local_steps = 9
institutions.south.data = "south.jsonl"
"""
