"""The reference policy's log-probs of every pair, by the forward pass, layout and precision that training has."""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from nemo_sspo.megatron.batches.batch_plan import by_length
from nemo_sspo.megatron.batches.fit import require_fit
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan, PreparedMicrobatch
from nemo_sspo.megatron.batches.row_shape import token_multiple
from nemo_sspo.megatron.checkpoints.weights import load_weights
from nemo_sspo.megatron.core.policy import in_precision, policy_chunks, policy_head
from nemo_sspo.megatron.core.schedule import Schedule
from nemo_sspo.megatron.jobs import ReferenceJob
from nemo_sspo.megatron.loss.logp_table import LogpTable
from nemo_sspo.megatron.loss.loss import HeadLayout
from nemo_sspo.megatron.loss.step import RowLogps, row_logps
from nemo_sspo.megatron.models.finite import StepPairs
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.groups import connect


@torch.no_grad()
def reference_rank(job: ReferenceJob) -> Tensor:
    """Summed log-probs [pairs, 2] (chosen, rejected), fp32, on every rank. Every rank of the layout calls it."""
    # There is no backward pass, so there is nothing to recompute for.
    train = job.train.model_copy(update={"recompute": "none"})
    require_fit(job.pairs, job.hf_dir)
    batches = by_length(job.pairs.row_tokens(), global_batch_size=train.global_batch_size)
    plan = MicrobatchPlan(job.pairs, batches, train, job.parallel, token_multiple(job.precision))
    with cpu_runtime():
        groups = connect(job.parallel)
        chunks = policy_chunks(job.hf_dir, job.parallel, job.precision, train, groups)
        load_weights(chunks, job.weights)
        # Without a gradient every loss is separable: the tiles are those of a training with such a loss.
        head = policy_head(chunks[0].config, groups, job.hf_dir, train, separable=True)
        schedule = Schedule(
            [in_precision(chunk.eval()) for chunk in chunks], plan, groups, StepPairs(job.pairs.pair_ids)
        )
        table = LogpTable(job.pairs.pair_ids)
        for step in range(len(batches)):
            table.add(schedule.run(step, partial(_logps, head), forward_only=True), groups)
            if dist.get_rank() == 0:
                job.progress.update(step + 1, len(batches), unit="batches")
        return table.gather()


def _logps(
    head: HeadLayout, hidden_SBH: Tensor, weight_VH: Tensor, microbatch: PreparedMicrobatch
) -> tuple[Tensor, RowLogps]:
    """No loss, and the log-probs."""
    return hidden_SBH.new_zeros((), dtype=torch.float32), row_logps(hidden_SBH, weight_VH, microbatch, head)
