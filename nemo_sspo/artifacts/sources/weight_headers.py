"""Which weight files a model's index names, and the tensors that their headers name. No tensor is read."""

import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from nemo_sspo.artifacts.text_files import read_text
from nemo_sspo.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_HEADER_BYTES = 64 * 2**20
_DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_MOST_DIMENSIONS = 16
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d{1,9})\.")
_DEPTHS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
_OWN_DEPTHS = ("is_encoder_decoder", "num_nextn_predict_layers")
"""Settings of models whose layers are not counted by one number."""
_QUANTIZED = re.compile(r"[FIU][48]_?")
"""Types of numbers that stand for weights only together with scales."""
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


class TensorHeader(NamedTuple):
    """A tensor as its file describes it."""

    dtype: str
    shape: tuple[int, ...]


def tensor_headers(file: Path) -> dict[str, TensorHeader]:
    """Names, types and shapes of a safetensors file.

    Raises:
        UserError: it is no such file, or cut short.
    """
    return read_header(file)[0]


def read_header(file: Path) -> tuple[dict[str, TensorHeader], int]:
    """The tensors of a safetensors file, and how many bytes it must have: eight of header length, a JSON header, then
    the tensors.

    Raises:
        UserError: it is no such file, or its header is cut short.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, _MAX_HEADER_BYTES)))
        described = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        tensors = {name: _tensor(tensor["dtype"], tensor["shape"]) for name, tensor in described.items()}
        end = max(_size(tensor["data_offsets"][1]) for tensor in described.values())
        sizes = sum(prod(tensor.shape) * _DTYPE_BYTES.get(tensor.dtype, 1) for tensor in tensors.values())
    except (ValueError, struct.error, AttributeError, IndexError, KeyError, TypeError, RecursionError):
        raise UserError(f"{file}: not a safetensors file, or cut short; fetch it again") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    return tensors, 8 + length + max(end, sizes)


def _tensor(dtype: Any, shape: Any) -> TensorHeader:
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(dtype, shape)
    return TensorHeader(dtype, tuple(map(_size, shape)))


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(value)
    return value


def model_headers(files: Sequence[Path]) -> dict[str, TensorHeader]:
    """Names, types and shapes of all files of a model."""
    return {name: tensor for file in files for name, tensor in tensor_headers(file).items()}


def weight_problems(tensors: Mapping[str, TensorHeader], config: Mapping[str, Any], named: str) -> Iterator[str]:
    """What keeps a model from being the one that its weights were saved from; `named` is where `config` was read."""
    if adapters := [name for name in tensors if ".lora_" in name or ".modules_to_save." in name]:
        yield f"its weights hold an adapter that is not merged ({adapters[0]}); merge it into the model and save that"
        return
    if quantized := [name for name, tensor in tensors.items() if _QUANTIZED.match(tensor.dtype)]:
        dtype = tensors[quantized[0]].dtype
        yield f"its weights are quantized ({quantized[0]} is {dtype}); give a model in bf16, fp16 or fp32"
    depth = next((config[key] for key in _DEPTHS if isinstance(config.get(key), int)), None)
    layers = {int(match[1]) for match in map(_LAYER.search, tensors) if match}
    if depth is None or not layers or any(config.get(key) for key in _OWN_DEPTHS):
        return
    if max(layers) >= depth:
        yield f"its weights hold layer {max(layers)}, {named} has {depth} layers; one of the two is another model's"
    elif (absent := next(layer for layer in count() if layer not in layers)) < depth:
        yield f"its weights lack layer {absent}, {named} has {depth} layers; the checkpoint is incomplete"


def unmerged_adapter(directory: Path) -> str | None:
    """The file by which a directory asks for an adapter over another model, if it has one."""
    return next((name for name in _ADAPTER_FILES if (directory / name).is_file()), None)


def files_of_transformers(directory: Path) -> list[Path]:
    """The safetensors files that transformers reads of a directory: the single one, else those that the index names.

    Raises:
        UserError: the index is no index.
    """
    if (single := directory / SINGLE).is_file():
        return [single]
    index = directory / INDEX
    return [directory / name for name in indexed_files(index)] if index.is_file() else []


def indexed_files(index: Path) -> list[str]:
    """Names of the files that an index of weights names, sorted.

    Raises:
        UserError: it is no index.
    """
    try:
        return sorted(set(map(str, json.loads(read_text(index))["weight_map"].values())))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{index}: not an index of weights; fetch it again") from None
