"""A safetensors file that is written a tensor at a time: the library's own writer holds all of a file's tensors.

The bytes are those of the library's: an eight-byte length, a JSON header padded to eight bytes, then the tensors, in
the order of their names where all have one type (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
"""Of the same size: numpy has no bf16."""
_ALIGNMENT = 8


def write_safetensors(
    path: Path, described: Mapping[str, Tensor], stream: Callable[[Sequence[str]], Iterator[Tensor]]
) -> None:
    """Write the tensors that `stream` gives: it is called with all names, and gives their tensors one by one.

    Args:
        described: of each tensor one on the meta device, which has its shape and dtype: float32 or bfloat16, the same
            for all.
        stream: its tensors lie on the host. Raises RuntimeError where one is of another shape or dtype.
    """
    names, header, end = sorted(described), dict[str, Any](__metadata__={"format": "pt"}), 0
    for name in names:
        tensor, start = described[name], end
        end += tensor.nbytes
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        tensors = stream(names)
        for name in names:  # none is held while the next one is read
            file.write(_content(next(tensors), described[name], f"{path}: {name}"))


def _content(tensor: Tensor, described: Tensor, what: str) -> memoryview:
    if (tensor.shape, tensor.dtype) != (described.shape, described.dtype):
        raise RuntimeError(f"{what} is {tensor.dtype} {tuple(tensor.shape)}, not {described}")
    return tensor.contiguous().view(_INTEGERS[tensor.dtype]).numpy().data
