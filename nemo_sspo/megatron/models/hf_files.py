"""Hugging Face model directories on disk: the tensors, and the files beside them.

Only safetensors is read and written. PyTorch's own weight files are pickles, which run code when they are loaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nemo_sspo.artifacts.sources.models import SIDE_FILES
from nemo_sspo.artifacts.sources.weight_files import weight_files
from nemo_sspo.artifacts.sources.weight_headers import INDEX
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.finite import first_not_finite

SHARD_BYTES = 5 * 1024**3
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


def write_tensors(tensors: Mapping[str, Tensor], directory: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write ``model.safetensors``, or shards of at most `shard_bytes` with their index, and the dtype in config.json.

    All tensors must have one dtype, float32 or bfloat16.
    """
    directory.mkdir(parents=True, exist_ok=True)
    split = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    for file, names in split.filename_to_tensors.items():
        _save({name: tensors[name] for name in names}, directory / file)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (directory / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")
    (dtype,) = {tensor.dtype for tensor in tensors.values()}
    _record_dtype(directory / "config.json", dtype)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Write one file, with the permissions of any new file: safetensors leaves its own readable by the owner alone."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)


def _record_dtype(config_path: Path, dtype: torch.dtype) -> None:
    config = json.loads(config_path.read_text(encoding="utf-8"))
    # transformers 4 wrote ``torch_dtype``, 5 writes ``dtype``; both read both, so the key in place is kept.
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    config[key] = _DTYPE_NAMES[dtype]
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
