"""What the streamed conversion is compared with: the whole model in one process, by Megatron's own save and load."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from nemo_sspo.config.precisions import Fp32Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.checkpoints.weights import load_weights, one_rank, save_weights
from nemo_sspo.megatron.core.policy import host_policy, policy_chunks
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory
from nemo_sspo.megatron.models.shape import Shape
from nemo_sspo.megatron.models.weight_map import conversions
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from nemo_sspo.megatron.runtime.groups import connect
from tests.megatron.worlds import SECONDS


def save_whole(policy: Path, checkpoint: Path, dtype: torch.dtype) -> None:
    """Import a policy."""
    tensors = SafetensorsDirectory(policy)
    state = {
        conversion.ours: conversion.join(*(tensors[name] for name in conversion.theirs)).to(dtype)
        for conversion in conversions(Shape.of(read_hf_config(policy)))
    }
    with one_rank():
        model = host_policy(policy, dtype)
        assert not model.load_state_dict(state, strict=False).missing_keys
        save_weights([model], checkpoint)
        del model


def export_whole(checkpoint: Path, config_dir: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """The Hugging Face tensors of a checkpoint."""
    with one_rank():
        model = host_policy(config_dir, dtype)
        load_weights([model], checkpoint)
        state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        del model
    return {
        theirs: part.contiguous()
        for conversion in conversions(Shape.of(read_hf_config(config_dir)))
        for theirs, part in zip(conversion.theirs, conversion.split(state[conversion.ours]), strict=True)
    }


def save_again(checkpoint: Path, config_dir: Path, parallel: Parallel, saved: Path) -> None:
    """Load a checkpoint into the ranks of a layout, and have them save what they hold."""

    def on_rank() -> None:
        with cpu_runtime():
            groups = connect(parallel)
            chunks = policy_chunks(config_dir, parallel, Fp32Precision(), Train(), groups)
            load_weights(chunks, checkpoint)
            save_weights(chunks, saved)

    run_forked(on_rank, parallel.world_size, timeout=SECONDS)
