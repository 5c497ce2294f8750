"""Bytes that a rank's fake tensors would take on its GPU: what lives, of which kind, and the most at once."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Kind = Literal["weights", "gradients", "optimizer", "activations", "head", "other"]
KINDS: tuple[Kind, ...] = ("weights", "gradients", "optimizer", "activations", "head", "other")

_BLOCK = 512
"""torch's allocator hands out multiples of it."""


@dataclass
class _Block:
    size: int
    kind: Kind


@dataclass(frozen=True)
class Largest:
    """The largest tensor that a step made."""

    bytes: int
    shape: tuple[int, ...]
    dtype: str


class Memory:
    """Storages of CUDA tensors, from their first tensor to their end. A view is no storage of its own."""

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._kinds: list[Kind] = ["other"]
        self._fused = 0
        self.live: Counter[Kind] = Counter()
        self.peak: Counter[Kind] = Counter()
        self.largest = Largest(0, (), "")

    @property
    def live_bytes(self) -> int:
        return self.live.total()

    @property
    def peak_bytes(self) -> int:
        return self.peak.total()

    @contextmanager
    def of_kind(self, kind: Kind) -> Iterator[None]:
        """What is made inside the block is of this kind."""
        self._kinds.append(kind)
        try:
            yield
        finally:
            self._kinds.pop()

    @contextmanager
    def fused(self) -> Iterator[None]:
        """One kernel: what is made and gone inside the block has never been in memory."""
        self._fused += 1
        try:
            yield
        finally:
            self._fused -= 1
            self._note_peak()

    def start(self, kind: Kind) -> None:
        """What is made from now on is of this kind, where no block says otherwise."""
        self._kinds[0] = kind

    def settle(self) -> None:
        """What still lives of activations and head is something that stays: a workspace."""
        for block in self._blocks.values():
            if block.kind in ("activations", "head"):
                self.live[block.kind] -= block.size
                block.kind = "other"
                self.live["other"] += block.size

    def start_step(self) -> None:
        """Forget the peak and the largest tensor so far."""
        self.peak = Counter(self.live)
        self.largest = Largest(0, (), "")

    def note(self, tensor: Tensor) -> None:
        """A tensor that exists now."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._blocks or not storage.nbytes():
            return
        block = _Block(-(-storage.nbytes() // _BLOCK) * _BLOCK, self._kinds[-1])
        self._blocks[key] = block
        self.live[block.kind] += block.size
        weakref.finalize(storage, self._free, key)
        if not self._fused:
            self._note_peak()
            if block.size > self.largest.bytes:
                self.largest = Largest(block.size, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def _free(self, key: int) -> None:
        block = self._blocks.pop(key)
        self.live[block.kind] -= block.size

    def _note_peak(self) -> None:
        if not self._fused and self.live_bytes > self.peak_bytes:
            self.peak = Counter(self.live)

    def become(self, kind: Kind, tensors: list[Tensor]) -> None:
        """Their storages are of this kind from now on, whatever they were made as."""
        for tensor in tensors:
            block = self._blocks.get(tensor.untyped_storage()._cdata)
            if block is not None:
                self.live[block.kind] -= block.size
                block.kind = kind
                self.live[kind] += block.size


def is_on_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def tensors_of(value: object) -> list[Tensor]:
    """Every tensor in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors_of(item)]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_of(item)]
    return []
