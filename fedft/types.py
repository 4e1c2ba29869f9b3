"""The glossary: names for what is passed between rooms."""

from __future__ import annotations

from typing import Literal, NewType

import numpy as np
import numpy.typing as npt

InstitutionId = NewType("InstitutionId", str)
"""An institution's name in the federation file: letters, digits, '-' and '_', at most 64."""

RoundNumber = NewType("RoundNumber", int)
"""Rounds are counted from 1; 0 is the state before the first."""

AdapterVector = npt.NDArray[np.float32]
"""All values of an adapter, flat, shape (d,), in the order of its AdapterLayout."""

Digest = NewType("Digest", str)
"""A SHA-256 in lower-case hexadecimal, 64 characters."""

Role = Literal["lora_A", "lora_B", "head"]
"""What a tensor of the adapter is: a LoRA factor, or part of the task's head."""

ALL_ROLES: tuple[Role, ...] = ("lora_A", "lora_B", "head")
