"""The reference policy's log-probs of every pair, by the forward pass, layout and precision that training has.

Computed once, before an optimizer exists and with dropout off, and stored: training never holds a second model.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.megatron.batches.batch_plan import by_length
from nemo_sspo.megatron.batches.fit import require_fit
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan
from nemo_sspo.megatron.head.choice import choose_head, head_tile
from nemo_sspo.megatron.jobs import ReferenceJob
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.precision import token_multiple
from nemo_sspo.megatron.nemo.cpu import nemo_cpu_runtime
from nemo_sspo.megatron.nemo.data import PairDataModule
from nemo_sspo.megatron.nemo.model import SSPOModel
from nemo_sspo.megatron.nemo.model_config import training_config
from nemo_sspo.megatron.nemo.recipe import trainer


class LogpsTable(pl.Callback):
    """Gathers the log-probs that the last stage's ranks computed into one table on every rank."""

    def __init__(self, pairs: int, steps: int, progress: Progress) -> None:
        self.logps_N2 = torch.zeros(pairs, 2)
        self._done = torch.zeros(pairs, dtype=torch.int64)
        self._steps = steps
        self._step = 0
        self._progress = progress

    def on_megatron_step_end(self, reduced: Any) -> None:
        """NeMo's hook after a step's schedule."""
        self._step += 1
        if dist.get_rank() == 0:
            self._progress.update(self._step, self._steps, unit="batches")
        # All ranks of TP x CP have equal values: one of them reports.
        speaks = parallel_state.get_tensor_model_parallel_rank() + parallel_state.get_context_parallel_rank() == 0
        if isinstance(reduced, dict) and speaks:
            for rows, logps_P2 in reduced["logps"]:
                self.logps_N2[list(rows)] = logps_P2
                self._done[list(rows)] += 1

    def gather(self) -> Tensor:
        """[pairs, 2] on every rank. Every pair must have been computed exactly once."""
        device = torch.cuda.current_device()
        logps_N2, done_N = self.logps_N2.to(device), self._done.to(device)
        dist.all_reduce(logps_N2)
        dist.all_reduce(done_N)
        if not bool((done_N == 1).all()):
            raise RuntimeError(f"{int((done_N != 1).sum())} pairs were not computed exactly once")
        return logps_N2.cpu()


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
        collect = LogpsTable(len(job.pairs), len(batches), job.progress)
        test = trainer(job.parallel, job.precision, max_steps=None, callbacks=[collect])
        test.test(model, datamodule=PairDataModule(plan), verbose=False)
        logps_N2 = collect.gather()
        if broken := (~logps_N2.isfinite().all(dim=1)).nonzero().flatten().tolist():
            raise FloatingPointError(
                f"reference_logps, rank {dist.get_rank()}: the log-probs of pair {job.pairs.pair_ids[broken[0]]} "
                f"({len(broken)} in all) are not finite"
            )
        return logps_N2
