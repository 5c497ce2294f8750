"""A model with adapters: settings, and its log-probs beside its merged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.config.precisions import Fp32Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.batches.batch_plan import by_length
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.layers.adapter import Adapters
from nemo_sspo.megatron.loss.logp_table import LogpTable
from nemo_sspo.megatron.models.finite import StepPairs
from nemo_sspo.megatron.nemo.cpu import nemo_cpu_runtime
from nemo_sspo.megatron.nemo.data import PairDataModule
from nemo_sspo.megatron.nemo.live import NemoTraining
from nemo_sspo.megatron.nemo.model import SSPOModel
from nemo_sspo.megatron.nemo.model_config import training_config
from nemo_sspo.megatron.nemo.recipe import trainer
from nemo_sspo.megatron.nemo.reference import CollectLogps
from tests.megatron.worlds import VOCAB

RANK = 4
LORA: dict[str, Any] = {"peft": "lora", "lora_rank": RANK, "lora_alpha": 10.0}


class _LargeAdapters(pl.Callback):
    """Gives B numbers that matter, and saves the merged model after the log-probs were computed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.manual_seed(trainer.global_rank)
        with torch.no_grad():
            for name, parameter in NemoTraining(trainer, StepPairs()).named_parameters():
                if name.endswith("adapter.linear_out.weight"):
                    parameter.normal_(std=0.1)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        NemoTraining(trainer, StepPairs()).save_weights(self._directory)


def adapted_logps(pairs: PairTable, imported: Path, parallel: Parallel, output: Path) -> torch.Tensor:
    """Log-probs [N, 2] of a model with adapters, on this rank; its merged weights go to `output`."""
    settings = Train(global_batch_size=8, micro_batch_size=2, lora_rank=RANK)
    batches = by_length(pairs.row_tokens(), global_batch_size=8)
    with nemo_cpu_runtime():
        config = training_config(imported / "hf", parallel, Fp32Precision(), settings)
        model = SSPOModel(config, imported / "nemo", VOCAB, 64, adapters=Adapters(RANK, alpha=10.0, seed=1))
        table = LogpTable(pairs.pair_ids)
        collect = CollectLogps(table, len(batches), Progress(None))
        test = trainer(parallel, Fp32Precision(), max_steps=None, callbacks=[_LargeAdapters(output), collect])
        plan = MicrobatchPlan(pairs, batches, settings, parallel)
        test.test(model, datamodule=PairDataModule(plan), verbose=False)
        return table.gather()
