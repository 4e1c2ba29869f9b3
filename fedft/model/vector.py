"""An adapter as one flat vector in a fixed order, and the layout that says what is where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

from fedft.errors import LayoutMismatch
from fedft.types import AdapterVector, Digest, Role

LAYOUT_LABEL = "fedft/v1/adapter-layout"


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the adapter: ``name`` is "<module path>.<role>" or "head.<parameter>"."""

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def module(self) -> str:
        """The adapted module's path: what a LoRA pair's A and B have in common."""
        return self.name.rsplit(".", 1)[0]


@dataclass(frozen=True)
class AdapterLayout:
    """Order, shapes and roles of an adapter's tensors, and the scale s of ΔW = s·B·A.

    Guarantee: two layouts have the same digest exactly when base model, tensors, order, roles and scale are the same.
    """

    base_digest: Digest
    tensors: tuple[TensorSpec, ...]
    scaling: float

    @cached_property
    def digest(self) -> Digest:
        body: list[object] = [LAYOUT_LABEL, self.base_digest, repr(self.scaling)]
        body += [[spec.name, list(spec.shape), spec.role] for spec in self.tensors]
        return Digest(hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest())

    @cached_property
    def size(self) -> int:
        """d: the number of values in the vector."""
        return sum(spec.size for spec in self.tensors)

    def only(self, roles: Iterable[Role]) -> AdapterLayout:
        """The layout of the tensors with these roles: what one round trains and sends."""
        wanted = frozenset(roles)
        return AdapterLayout(self.base_digest, tuple(t for t in self.tensors if t.role in wanted), self.scaling)

    def slices(self) -> Iterator[tuple[TensorSpec, slice]]:
        start = 0
        for spec in self.tensors:
            yield spec, slice(start, start + spec.size)
            start += spec.size

    def unflatten(self, vector: AdapterVector) -> dict[str, npt.NDArray[np.float32]]:
        """Views into ``vector`` by tensor name. Raises LayoutMismatch when the vector has another size or dtype."""
        self.require(vector)
        return {spec.name: vector[where].reshape(spec.shape) for spec, where in self.slices()}

    def flatten(self, tensors: Mapping[str, npt.NDArray[np.floating]]) -> AdapterVector:
        """One float32 vector (d,) from tensors by name. Raises LayoutMismatch on a missing, extra or misshapen one."""
        if set(tensors) != {spec.name for spec in self.tensors}:
            raise LayoutMismatch(
                f"expected the {len(self.tensors)} tensors of layout {self.digest[:12]}, found {len(tensors)} "
                "with other names: use an adapter made for this base model and configuration"
            )
        vector = np.empty(self.size, dtype=np.float32)
        for spec, where in self.slices():
            tensor = tensors[spec.name]
            if tensor.shape != spec.shape:
                raise LayoutMismatch(
                    f"expected shape {spec.shape} for {spec.name}, found {tensor.shape}: "
                    "use an adapter made for this base model and configuration"
                )
            vector[where] = tensor.reshape(-1)
        return vector

    def require(self, vector: AdapterVector) -> None:
        """Raise LayoutMismatch unless ``vector`` is float32 of shape (d,)."""
        if vector.dtype != np.float32 or vector.shape != (self.size,):
            raise LayoutMismatch(
                f"expected float32 of shape ({self.size},) for layout {self.digest[:12]}, "
                f"found {vector.dtype} of shape {vector.shape}: use an adapter made for this configuration"
            )

    def part(self, vector: AdapterVector, roles: Iterable[Role]) -> AdapterVector:
        """Copy of the values with these roles, in layout order."""
        self.require(vector)
        wanted = frozenset(roles)
        pieces = [vector[where] for spec, where in self.slices() if spec.role in wanted]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.float32)

    def with_part(self, vector: AdapterVector, roles: Iterable[Role], part: AdapterVector) -> AdapterVector:
        """Copy of ``vector`` with the values of these roles replaced by ``part``."""
        self.only(roles).require(part)
        result, start, wanted = vector.copy(), 0, frozenset(roles)
        for spec, where in self.slices():
            if spec.role in wanted:
                result[where] = part[start : start + spec.size]
                start += spec.size
        return result

    def lora_pairs(self) -> Iterator[tuple[str, TensorSpec, TensorSpec]]:
        """(module path, A of shape (r, d_in), B of shape (d_out, r)) for every adapted module, in order."""
        by_module: dict[str, dict[Role, TensorSpec]] = {}
        for spec in self.tensors:
            if spec.role != "head":
                by_module.setdefault(spec.module, {})[spec.role] = spec
        for module, factors in by_module.items():
            yield module, factors["lora_A"], factors["lora_B"]

    def as_json(self) -> dict[str, object]:
        return {
            "label": LAYOUT_LABEL,
            "base_digest": self.base_digest,
            "scaling": self.scaling,
            "tensors": [{"name": t.name, "shape": list(t.shape), "role": t.role} for t in self.tensors],
        }


def vector_digest(vector: AdapterVector) -> Digest:
    """SHA-256 of the little-endian float32 bytes."""
    return Digest(hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).hexdigest())
