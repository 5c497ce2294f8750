"""Hugging Face directory -> distributed checkpoint, and back. Exact: the same dtype gives the same bits.

Runs in one process on the host, whatever the training layout. The model is built with Megatron's local layer spec
also where Transformer Engine is there, because checkpoints of both specs have the same keys.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.checkpoints.weights import load_weights, one_rank, save_weights
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory, copy_side_files, write_tensors
from nemo_sspo.megatron.models.shape import Shape, import_problems
from nemo_sspo.megatron.models.weight_map import to_hugging_face, to_megatron

Build = Callable[[Path, torch.dtype], GPTModel]
"""(Hugging Face directory, dtype) -> its policy on the host, with `host_fields` of `layers/config_fields.py`."""


def import_policy(policy_dir: Path, weights: Path, hf_dir: Path, dtype: torch.dtype, build: Build) -> int:
    """Write `policy_dir`'s weights in `dtype` as a checkpoint to `weights`, and its other files to `hf_dir`.

    Returns the number of parameters (padding of the vocabulary not counted). Raises UserError for an unsupported
    family and for missing, surplus, malformed, ambiguous or quantized weights.
    """
    config = read_hf_config(policy_dir)
    for problem in import_problems(f"policy={policy_dir}", policy_dir, config):
        raise UserError(problem)
    shape = Shape.of(config)
    state = to_megatron(SafetensorsDirectory(policy_dir), shape)
    with one_rank():
        _save(build(policy_dir, dtype), {name: tensor.to(dtype) for name, tensor in state.items()}, weights)
    copy_side_files(policy_dir, hf_dir)
    return sum(tensor.numel() for tensor in to_hugging_face(state, shape, what=str(policy_dir)).values())


def export_policy(weights: Path, config_dir: Path, hf_dir: Path, dtype: torch.dtype, build: Build) -> int:
    """Write the checkpoint in `weights` as a Hugging Face directory in `dtype`; `config_dir` gives the other files.

    Returns the number of parameters. Raises UserError when the checkpoint lacks a tensor of the model.
    """
    config = read_hf_config(config_dir)
    with one_rank():
        state = _load(build(config_dir, dtype), weights)
    tensors = to_hugging_face(state, Shape.of(config), what=str(weights))
    copy_side_files(config_dir, hf_dir)
    write_tensors(tensors, hf_dir)
    return sum(tensor.numel() for tensor in tensors.values())


# The model is gone when these return: it holds process groups, which must not outlive `one_rank`.


def _save(model: GPTModel, state: dict[str, Tensor], weights: Path) -> None:
    # Assigned: copies would be the policy in host memory once more. `to_megatron` has seen to every weight, and extra
    # state is none.
    model.load_state_dict(state, strict=False, assign=True)
    save_weights([model], weights)


def _load(model: GPTModel, weights: Path) -> dict[str, Tensor]:
    load_weights([model], weights)
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
