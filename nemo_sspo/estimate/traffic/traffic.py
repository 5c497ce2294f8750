"""What a rank must say in an optimizer step: collectives, counted and sized from layout, model shape and batch.

Legend, here and in the modules beside: T tokens of a microbatch's rows that this rank's context-parallel part has,
H hidden; TP, PP, VPP, CP, DP the layout. Activations are bf16, gradients are summed in fp32. Bytes are what the rank
hands over: the whole tensor of an all-reduce and of a reduce-scatter, its own part of an all-gather.

Layers, embedding and head are in `layers.py`, the optimizer in `optimizer.py`. Here:

Stages, pp: T / TP x H forward to the next stage, as much backward to the one before, for each of the rank's VPP chunks.
Interleaved, two stages take the world's group for one direction, so that both can be under way.

Head, tp: of each tile it takes the largest logit of a token, then the sum and the target logit: one, then two numbers
in fp32.

Pairs, on the last stage: pooled states are summed, and how many tokens they are of, over the groups that hold different
tokens; so are the responses' log-probs over cp. The metrics of a step are summed over dp, and shared with the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.rank import TrainingRank
from nemo_sspo.estimate.traffic.layers import layers
from nemo_sspo.estimate.traffic.optimizer import optimizer
from nemo_sspo.estimate.traffic.said import BF16, FP32, FP64, INT64, Said
from nemo_sspo.megatron.loss.metric_names import MEANS, METRICS

_GPU_TILE = 4096
"""Response tokens of the head's tile where the training names none."""


@dataclass(frozen=True)
class Expected:
    """As in a ledger's `Step`, by "operation group"."""

    microbatches: int
    calls: dict[str, int]
    bytes_sent: dict[str, int]


def expected_traffic(rank: TrainingRank) -> Expected:
    """Of each of the steps, without checkpoints.

    Raises UserError for what the derivation does not speak of: LoRA over tensor-parallel ranks without sequence
    parallelism.
    """
    said = Said()
    batch = Batch.of(rank)
    for part in (layers, _pipeline, optimizer, _pairs, _every_rank):
        part(said, rank, batch)
    return Expected(batch.microbatches, dict(said.calls), dict(said.bytes))


def _pipeline(said: Said, rank: TrainingRank, batch: Batch) -> None:
    parallel = rank.parallel
    if parallel.pipeline == 1:
        return
    chunks = rank.chunks
    size = batch.tokens * rank.model.hidden_size * BF16 // (parallel.tensor if parallel.sequence else 1)
    # There is nothing before the first chunk of the first stage, and nothing behind the last one of the last.
    boundaries = 2 * chunks - rank.is_first - rank.is_last
    send = receive = "pp"
    if parallel.virtual_pipeline and parallel.pipeline == 2:
        send, receive = ("pp", "world") if rank.stage == 0 else ("world", "pp")
    said.add("send", send, batch.microbatches * boundaries, size)
    said.add("recv", receive, batch.microbatches * boundaries, size)
    if rank.trainer == "core":
        return
    if rank.number == 0:  # Lightning's loss, from the last stage
        said.add("recv", "world", 1, FP32)
    elif rank.is_last and rank.is_in_pipeline_of_0:
        said.add("send", "world", 1, FP32)


def _pairs(said: Said, rank: TrainingRank, batch: Batch) -> None:
    parallel, hidden = rank.parallel, rank.model.hidden_size
    if not rank.is_last:
        return
    tiles, groups = _tiles(rank, batch)
    said.add_uneven(
        "allreduce", "tp", 2 * batch.microbatches * tiles, 3 * batch.microbatches * sum(batch.scored) * FP32
    )
    if parallel.context > 1:
        if rank.one_pass:  # how many tokens each response has at most, and the sums, group by group
            said.add("allreduce", "cp", batch.microbatches, batch.responses * INT64)
            said.add_uneven("allreduce", "cp", batch.microbatches * groups, batch.microbatches * batch.responses * FP32)
        else:
            said.add("allreduce", "cp", batch.microbatches, batch.responses * FP32)
    for group, is_shared in (("tp", parallel.sequence), ("cp", parallel.context > 1)):
        if is_shared:
            said.add("allreduce", group, batch.microbatches, batch.responses * hidden * FP32)  # pooled states
            said.add("allreduce", group, batch.microbatches, batch.responses * FP32)  # of so many tokens
            said.add("allreduce", group, 1, 2 * FP32)  # squared norms of the gradients of both terms
    # Over dp: means and the number of pairs; the squared norms; how many responses the largest share has.
    said.add("allreduce", "dp", 1, (len(MEANS) + 1) * FP32)
    said.add("allreduce", "dp", 1, 2 * FP32)
    said.add("allreduce", "dp", 1, INT64)
    said.add("allgather", "dp", 1, batch.microbatches * batch.responses * hidden * FP32)  # unit states


def _tiles(rank: TrainingRank, batch: Batch) -> tuple[int, int]:
    """How often the head of a microbatch fills a tile, and for how many groups of whole responses."""
    tile = rank.train.head_chunk_tokens or _GPU_TILE
    if not rank.one_pass:  # computes logits again, and cuts tokens as they come
        return max(1, ceil(sum(batch.scored) / tile)), 0
    groups: list[list[int]] = []
    room = 0
    # On a cluster the largest of the context-parallel ranks' counts decides; a rehearsed rank hears its own.
    for scored in batch.scored:
        if not groups or scored > room:
            groups.append([])
            room = tile
        groups[-1].append(scored)
        room -= scored
    return sum(max(1, ceil(sum(group) / tile)) for group in groups), len(groups)


def _every_rank(said: Said, rank: TrainingRank, batch: Batch) -> None:
    said.add("broadcast", "pp", 1, len(METRICS) * FP64)
    said.add("allreduce", "world", 1, 2 * INT64)  # the most memory, and whether all is sound
    said.add("allreduce", "world", 1, INT64)  # whether a rank was told to stop
