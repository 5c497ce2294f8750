"""Hugging Face model directories on disk: the tensors, and the files beside them.

Only safetensors is read and written. PyTorch's own weight files are pickles, which run code when they are loaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nemo_sspo.artifacts.sources.models import SIDE_FILES
from nemo_sspo.artifacts.sources.weight_files import weight_files
from nemo_sspo.artifacts.sources.weight_headers import INDEX
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.finite import first_not_finite
from nemo_sspo.megatron.models.safetensors_file import write_safetensors

FILE_BYTES = 5 * 1024**3
"""Of a file of weights at most, as Hugging Face's libraries shard them."""
_DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class SafetensorsDirectory(Mapping[str, Tensor]):
    """The tensors of a Hugging Face directory, each read from disk when it is asked for.

    Raises UserError when a weight file is missing or cannot be read, and when a tensor that is asked for holds NaN or
    Inf.
    """

    def __init__(self, directory: Path) -> None:
        self._where: dict[str, Path] = {}
        for path in weight_files(directory):
            try:
                with safe_open(path, framework="pt") as file:
                    self._where.update(dict.fromkeys(file.keys(), path))
            except SafetensorError as error:
                raise UserError(f"{path}: not a readable safetensors file ({error})") from None

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._where[name], framework="pt") as file:
            tensor = file.get_tensor(name)
        if broken := first_not_finite([(name, tensor)]):
            raise UserError(f"{self._where[name]}: {broken} is not finite (NaN or Inf); take weights that are whole")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def copy_side_files(source: Path, target: Path) -> None:
    """Copy config, generation config, tokenizer and chat template from one model directory to another, and no more."""
    for pattern in SIDE_FILES:
        for path in filter(Path.is_file, source.glob(pattern)):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


class WeightFiles:
    """The files that a policy's weights are written to: ``model.safetensors``, or shards of at most `file_bytes`.

    Each is written by itself, in any process; `finish` comes last.
    """

    def __init__(self, directory: Path, described: Mapping[str, Tensor], *, file_bytes: int) -> None:
        """`described`: of each tensor one on the meta device. All have one dtype, float32 or bfloat16."""
        self._directory = directory
        self._described = described
        self._split = split_state_dict_into_shards_factory(
            dict(described),
            get_storage_size=lambda tensor: tensor.nbytes,
            filename_pattern="model{suffix}.safetensors",
            max_shard_size=file_bytes,
        )

    @property
    def names(self) -> list[str]:
        """Of the files."""
        return list(self._split.filename_to_tensors)

    def write(self, file: str, stream: Callable[[Sequence[str]], Iterator[Tensor]]) -> None:
        """Write a file. `stream` gives the tensors of the names that it is called with, in their order, on the host."""
        described = {name: self._described[name] for name in self._split.filename_to_tensors[file]}
        write_safetensors(self._directory / file, described, stream)

    def finish(self) -> None:
        """Write the index of the shards, where there are several, and the dtype into config.json."""
        if self._split.is_sharded:
            index = {"metadata": self._split.metadata, "weight_map": self._split.tensor_to_filename}
            (self._directory / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")
        (dtype,) = {tensor.dtype for tensor in self._described.values()}
        _record_dtype(self._directory / "config.json", dtype)


def _record_dtype(config_path: Path, dtype: torch.dtype) -> None:
    config = json.loads(config_path.read_text(encoding="utf-8"))
    # transformers 4 wrote ``torch_dtype``, 5 writes ``dtype``; both read both, so the key in place is kept.
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    config[key] = _DTYPE_NAMES[dtype]
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
