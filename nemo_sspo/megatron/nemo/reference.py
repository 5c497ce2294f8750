"""The reference policy's log-probs of every pair, by the forward pass, layout and precision that training has.

Computed once, before an optimizer exists and with dropout off, and stored: training never holds a second model.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from nemo.lightning.megatron_parallel import MegatronStep
from torch import Tensor

from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.megatron.batches.batch_plan import by_length
from nemo_sspo.megatron.batches.fit import require_fit
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan
from nemo_sspo.megatron.batches.row_shape import token_multiple
from nemo_sspo.megatron.head.choice import choose_head, head_tile
from nemo_sspo.megatron.jobs import ReferenceJob
from nemo_sspo.megatron.loss.logp_table import LogpTable
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.nemo.cpu import nemo_cpu_runtime
from nemo_sspo.megatron.nemo.data import PairDataModule
from nemo_sspo.megatron.nemo.model import SSPOModel
from nemo_sspo.megatron.nemo.model_config import training_config
from nemo_sspo.megatron.nemo.recipe import trainer
from nemo_sspo.megatron.nemo.strategy import groups_of


class CollectLogps(pl.Callback):
    """NeMo's hook after a step's schedule -> the table of log-probs."""

    def __init__(self, table: LogpTable, steps: int, progress: Progress) -> None:
        self._table = table
        self._steps = steps
        self._step = 0
        self._progress = progress

    def on_megatron_step_end(self, step: MegatronStep, reduced: Any) -> None:
        self._step += 1
        if dist.get_rank() == 0:
            self._progress.update(self._step, self._steps, unit="batches")
        if isinstance(reduced, dict):  # on the last stage
            self._table.add(reduced["logps"], groups_of(step.trainer))


def reference_rank(job: ReferenceJob) -> Tensor:
    """Summed log-probs [pairs, 2] (chosen, rejected), fp32, on every rank. Every rank of the layout calls it."""
    # There is no backward pass, so there is nothing to recompute for.
    train = job.train.model_copy(update={"recompute": "none"})
    require_fit(job.pairs, job.hf_dir)
    batches = by_length(job.pairs.row_tokens(), global_batch_size=train.global_batch_size)
    plan = MicrobatchPlan(job.pairs, batches, train, job.parallel, token_multiple(job.precision))
    with nemo_cpu_runtime():
        config = training_config(job.hf_dir, job.parallel, job.precision, train)
        model = SSPOModel(
            config,
            job.weights,
            read_hf_config(job.hf_dir).require("vocab_size"),
            head_tile(train),
            # Without a gradient every loss is separable: the tiles are those of a training with such a loss.
            choose_head(train, separable=True),
        )
        table = LogpTable(job.pairs.pair_ids)
        collect = CollectLogps(table, len(batches), job.progress)
        test = trainer(job.parallel, job.precision, max_steps=None, callbacks=[collect])
        test.test(model, datamodule=PairDataModule(plan), verbose=False)
        return table.gather()
