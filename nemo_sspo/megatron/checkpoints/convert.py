"""Hugging Face directory -> distributed checkpoint, and back. Exact: the same dtype gives the same bits.

Runs on the host, whatever the training layout, in several processes that each hold a few tensors at a time
(`models/host_memory.py`). The model is described with Megatron's local layer spec also where Transformer Engine is
there, because checkpoints of both specs have the same keys.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.checkpoints.streamed import Place, StoredWeights, places_of, write_weights
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.hf_files import FILE_BYTES, SafetensorsDirectory, WeightFiles, copy_side_files
from nemo_sspo.megatron.models.shape import Shape, import_problems
from nemo_sspo.megatron.models.weight_map import Conversion, conversions
from nemo_sspo.megatron.runtime.processes import in_processes

Build = Callable[[Path, torch.dtype], GPTModel]
"""(Hugging Face directory, dtype) -> its policy with `host_fields` of `layers/config_fields.py`, on torch's device."""


def import_policy(
    policy_dir: Path, weights: Path, hf_dir: Path, dtype: torch.dtype, build: Build, *, file_bytes: int = FILE_BYTES
) -> int:
    """Write `policy_dir`'s weights in `dtype` as a checkpoint to `weights`, and its other files to `hf_dir`.

    Returns the number of parameters (padding of the vocabulary not counted). Raises UserError for an unsupported
    family and for missing, surplus, malformed, ambiguous or quantized weights.
    """
    config = read_hf_config(policy_dir)
    for problem in import_problems(f"policy={policy_dir}", policy_dir, config):
        raise UserError(problem)
    tensors, model = SafetensorsDirectory(policy_dir), _Model.of(config, policy_dir, dtype, build)

    def read(name: str) -> Tensor:
        conversion = model.conversions[name]
        return conversion.join(*(tensors[theirs] for theirs in conversion.theirs)).to(dtype)

    with _whole_or_gone(weights):
        write_weights(model.places, read, weights, file_bytes=file_bytes)
    copy_side_files(policy_dir, hf_dir)
    return model.parameters


def export_policy(
    weights: Path, config_dir: Path, hf_dir: Path, dtype: torch.dtype, build: Build, *, file_bytes: int = FILE_BYTES
) -> int:
    """Write the checkpoint in `weights` as a Hugging Face directory in `dtype`; `config_dir` gives the other files.

    Returns the number of parameters. Raises UserError when the checkpoint lacks a tensor of the model.
    """
    model = _Model.of(read_hf_config(config_dir), config_dir, dtype, build)
    stream = partial(model.stream, StoredWeights(model.places, weights))
    with _whole_or_gone(hf_dir):
        copy_side_files(config_dir, hf_dir)
        files = WeightFiles(hf_dir, model.hugging_face, file_bytes=file_bytes)
        in_processes(partial(files.write, stream=stream), files.names)
        files.finish()
    return model.parameters


@dataclass(frozen=True)
class _Model:
    """A whole policy, of which no value is known: what lies where, and what becomes what."""

    places: dict[str, Place]
    """By Megatron's names, in the order of its layers."""
    conversions: dict[str, Conversion]
    """By the same names."""
    hugging_face: dict[str, Tensor]
    """On the meta device, by Hugging Face's names."""

    @classmethod
    def of(cls, config: HFConfig, hf_dir: Path, dtype: torch.dtype, build: Build) -> _Model:
        converted = {conversion.ours: conversion for conversion in conversions(Shape.of(config))}
        places = places_of(lambda: build(hf_dir, dtype))
        if different := sorted(converted.keys() ^ places.keys()):
            raise RuntimeError(f"{different[0]!r} is a tensor of the model or of its conversion, and not of both")
        described = {
            theirs: part
            for ours, conversion in converted.items()
            for theirs, part in zip(conversion.theirs, conversion.split(places[ours].data), strict=True)
        }
        return cls(places, converted, described)

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.hugging_face.values())

    def stream(self, weights: StoredWeights, names: Sequence[str]) -> Iterator[Tensor]:
        """Hugging Face's tensors of these names, of a checkpoint. Of what was read, what is not wanted is not kept."""
        sources = {theirs: conversion for conversion in self.conversions.values() for theirs in conversion.theirs}
        parts: dict[str, Tensor] = {}
        for name in names:
            if name not in parts:
                source = sources[name]
                split = zip(source.theirs, source.split(weights.read(source.ours)), strict=True)
                parts |= {theirs: part for theirs, part in split if theirs in names}
            yield parts.pop(name)


@contextmanager
def _whole_or_gone(directory: Path) -> Iterator[None]:
    """Remove a new directory whose conversion has failed."""
    was_there = directory.exists()
    try:
        yield
    except BaseException:
        if not was_there:
            shutil.rmtree(directory, ignore_errors=True)
        raise
