"""Loss of one microbatch from its hidden states, normalized to the mean over the pairs of the global batch.

Every pair carries the weight 1 / (pairs of the global batch), or 0 if it only fills a microbatch up. A microbatch's
loss is the *weighted sum* over its pairs, so the sum over all microbatches of all data-parallel ranks is the mean over
the pairs of the global batch, whatever the microbatch size, packing or an uneven last batch.

Megatron then changes what the loss function returns: a (loss, metrics) 2-tuple is multiplied by CP and divided by the
number of microbatches of the rank (pipeline_parallel/schedules.py), and data parallelism averages gradients over
DP x CP ranks. `schedule_loss` undoes the two surplus divisions; x CP and the average over CP cancel, because
each CP rank's gradients are its own tokens' part (see `head/recompute.py`): the gradient is exactly that of the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.distributed as dist
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.distributed import ProcessGroup

from nemo_sspo.megatron.batches.microbatch import Microbatch
from nemo_sspo.megatron.head.one_pass import DlossDlogp, one_pass_logps
from nemo_sspo.megatron.head.recompute import response_logps
from nemo_sspo.megatron.layers.gemma2 import final_softcap
from nemo_sspo.megatron.loss.metrics import PREFERENCE, REPULSION, PairMetrics, measure_gradient
from nemo_sspo.megatron.loss.pooling import pool_responses
from nemo_sspo.megatron.runtime.groups import Groups
from nemo_sspo.objective.pair_batch import PairBatch
from nemo_sspo.objective.repulsion import cosine, unit
from nemo_sspo.objective.separable import dloss_dlogp


@dataclass(frozen=True)
class PreferenceObjective:
    """What is optimized: pure functions of `nemo_sspo.objective` with their parameters bound."""

    loss: Callable[[PairBatch], Tensor]
    """Returns the loss of every pair of the microbatch, [B]."""
    repulsion: Callable[[Tensor, Tensor], Tensor]
    """(u_chosen_BH, u_rejected_BH), unit vectors -> repulsion of every pair, [B]."""
    pooling: Literal["last", "mean"]
    """Which states stand for a response: its last token's, or the mean over its tokens."""
    separable: bool = False
    """The loss is a sum of a function of d_chosen and one of d_rejected; see `objective/separable.py`."""


@dataclass(frozen=True)
class HeadLayout:
    """Where hidden states and output weight lie, and how the head walks over them."""

    vocab_size: int
    """Tokens of the vocabulary, without the rows that pad it."""
    chunk_tokens: int
    """Response tokens whose logits exist at once."""
    sequence_parallel: bool
    tp_group: ProcessGroup
    cp_group: ProcessGroup | None
    one_pass: bool = False
    """Compute gradients while the logits exist (`head/one_pass.py`): for separable losses only."""
    softcap: float | None = None
    """Bound of the logits (see `head/tile.py`)."""

    @classmethod
    def of(
        cls, config: TransformerConfig, groups: Groups, *, vocab_size: int, chunk_tokens: int, one_pass: bool
    ) -> HeadLayout:
        """The head of a model of this config in these groups."""
        return cls(
            vocab_size=vocab_size,
            chunk_tokens=chunk_tokens,
            sequence_parallel=config.sequence_parallel,
            tp_group=groups.tp,
            cp_group=groups.cp if dist.get_world_size(groups.cp) > 1 else None,
            one_pass=one_pass,
            softcap=final_softcap(config),
        )

    @property
    def sequence_groups(self) -> tuple[ProcessGroup, ...]:
        """Groups whose ranks hold different tokens of the same sequences."""
        groups = (self.tp_group if self.sequence_parallel else None, self.cp_group)
        return tuple(group for group in groups if group is not None)


def microbatch_logps(
    hidden_SBH: Tensor,
    weight_VH: Tensor,
    microbatch: Microbatch,
    layout: HeadLayout,
    loss_gradient: DlossDlogp | None = None,
) -> Tensor:
    """Summed log-probs of the microbatch's responses, [P, 2] fp32 (chosen, rejected); the reference too.

    A one-pass head needs `loss_gradient` to give them a gradient.
    """
    head = partial(one_pass_logps, dloss_dlogp=loss_gradient) if layout.one_pass else response_logps
    logps_R = head(
        hidden_SBH,
        weight_VH,
        microbatch.labels_BS,
        microbatch.response_index_BS,
        microbatch.num_responses,
        vocab_size=layout.vocab_size,
        chunk_tokens=layout.chunk_tokens,
        tp_group=layout.tp_group,
        cp_group=layout.cp_group,
        sequence_parallel=layout.sequence_parallel,
        softcap=layout.softcap,
    )
    return logps_R.view(-1, 2)


def preference_loss(
    hidden_SBH: Tensor,
    weight_VH: Tensor,
    microbatch: Microbatch,
    objective: PreferenceObjective,
    layout: HeadLayout,
    *,
    repulsion_weight: float,
) -> tuple[Tensor, PairMetrics]:
    """Weighted sum over the microbatch's pairs of preference loss + repulsion_weight * repulsion.

    Returns:
        loss: scalar fp32 with gradient, equal on all ranks of TP x CP. Give the schedule `schedule_loss(loss, ...)`.
        metrics: what `sum_metrics` makes the step's metrics of, once backward has run.
    """
    gradient_squares = torch.zeros(2, device=hidden_SBH.device)
    for_logps_SBH = measure_gradient(hidden_SBH, gradient_squares, PREFERENCE)
    for_pooling_SBH = measure_gradient(hidden_SBH, gradient_squares, REPULSION)

    loss_gradient = partial(_dloss_dlogp, microbatch, objective) if layout.one_pass else None
    logps_P2 = microbatch_logps(for_logps_SBH, weight_VH, microbatch, layout, loss_gradient)
    pairs = microbatch.pair_batch(logps_P2)
    preference_P = objective.loss(pairs)
    unit_RH = unit(_pooled_states(for_pooling_SBH, microbatch, objective, layout))
    u_chosen_PH, u_rejected_PH = unit_RH[0::2], unit_RH[1::2]
    repulsion_P = objective.repulsion(u_chosen_PH, u_rejected_PH)
    loss_P = preference_P + repulsion_weight * repulsion_P

    with torch.no_grad():
        d_chosen_P, d_rejected_P = pairs.d_chosen_B, pairs.d_rejected_B
        margin_P = d_chosen_P - d_rejected_P
        cosine_P = cosine(u_chosen_PH, u_rejected_PH)
        is_real_P = microbatch.weight_P > 0
        values = (
            loss_P, preference_P, repulsion_P, d_chosen_P, d_rejected_P, margin_P, (margin_P > 0).float(), cosine_P,
        )  # fmt: skip
        sums = torch.cat([torch.stack(values) @ microbatch.weight_P, is_real_P.sum().float()[None]])
        inputs_P7 = torch.cat([logps_P2, microbatch.ref_logps_P2, microbatch.targets_P3], dim=1)
        sound_P = inputs_P7.isfinite().all(dim=1) & torch.stack(values).isfinite().all(dim=0)
        states_RH = unit_RH * is_real_P.repeat_interleave(2)[:, None]
    metrics = PairMetrics(sums, gradient_squares, states_RH, layout.sequence_groups, sound_P)
    return (microbatch.weight_P * loss_P).sum(), metrics


def _dloss_dlogp(microbatch: Microbatch, objective: PreferenceObjective, logps: Tensor, indices: Tensor) -> Tensor:
    """Gradient of the microbatch's loss for single responses' log-probs, given theirs alone."""
    pair, side = indices // 2, indices % 2
    pairs = microbatch.pair_batch(microbatch.ref_logps_P2).rows(pair)
    return pairs.weight_B * dloss_dlogp(objective.loss, logps, side == 0, pairs)


def _pooled_states(
    hidden_SBH: Tensor, microbatch: Microbatch, objective: PreferenceObjective, layout: HeadLayout
) -> Tensor:
    is_last = objective.pooling == "last"
    return pool_responses(
        hidden_SBH,
        microbatch.last_token_index_BS if is_last else microbatch.token_response_index_BS,
        microbatch.num_responses,
        tp_group=layout.tp_group,
        cp_group=layout.cp_group,
        sequence_parallel=layout.sequence_parallel,
    )


def schedule_loss(loss: Tensor, *, num_microbatches: int, data_parallel_size: int) -> Tensor:
    """What the loss function must return to Megatron's schedule as the first of a 2-tuple; see the module's text.

    `num_microbatches` is this rank's number per step, `data_parallel_size` counts replicas without context parallelism.
    """
    return loss * (num_microbatches * data_parallel_size)
