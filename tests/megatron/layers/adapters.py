"""A model with adapters: settings, and its log-probs beside its merged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nemo_sspo.config.stages import Parallel
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding, LiveTraining, Observer
from tests.megatron.worlds import job, train

RANK = 4
LORA: dict[str, Any] = {"peft": "lora", "lora_rank": RANK, "lora_alpha": 10.0}
_PAIR_BY_PAIR: dict[str, Any] = {"global_batch_size": 1, "micro_batch_size": 1, "train_epochs": 1}
_NO_CHANGE = 1e-30
"""A learning rate by which no weight becomes another one."""


class _LargeAdapters(Observer):
    """Gives B numbers that matter, and saves the merged model."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def on_start(self, training: LiveTraining) -> None:
        torch.manual_seed(dist.get_rank())
        with torch.no_grad():
            for name, parameter in training.named_parameters():
                if name.endswith("adapter.linear_out.weight"):
                    parameter.normal_(std=0.1)
        training.save_weights(self._directory)


def adapted_logps(
    binding: Binding, supervised: PairTable, imported: Path, parallel: Parallel, output: Path
) -> torch.Tensor:
    """Log-probs [N, 2] of a model with large adapters, of which each step tells a pair's; `output`: merged weights."""
    settings = LORA | _PAIR_BY_PAIR | {"learning_rate": _NO_CHANGE}
    steps = job(supervised, imported, output.parent / "steps", parallel, **settings)
    logps_P2 = torch.empty(len(supervised), 2)
    for line, batch in zip(train(binding, steps, _LargeAdapters(output)), steps.batches, strict=True):
        (row,) = batch.pairs
        pair = supervised[row]
        logps_P2[row, 0] = pair.ref_chosen + line["d_chosen"]
        logps_P2[row, 1] = pair.ref_rejected + line["d_rejected"]
    return logps_P2
