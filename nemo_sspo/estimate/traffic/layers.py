"""What the layers say, over tp and cp, with the embedding and the head at their ends.

Tensor parallelism. A layer has two pairs of products: a column-parallel one (query-key-value; gate and up), then a
row-parallel one (projection; down). Without sequence parallelism each pair sums T x H once forward, behind the
row-parallel product, and once backward, behind the column-parallel one. With it, norms see T / TP tokens, and each sum
becomes a reduce-scatter of T x H and an all-gather of T / TP x H. Transformer Engine keeps only the part of the
column-parallel input, and gathers it again for the weight's gradient:

    forward    all-gather before column, reduce-scatter behind row
    backward   all-gather of the gradient before row; all-gather of the input, reduce-scatter behind column

Full recomputation runs forward twice; selective repeats attention alone, which is no matter of tp.

FP8 by tensor: what is gathered has one byte an element, under a scale that all ranks take from the largest value of
any, one number in fp32 for each product's input, and for each gradient before row. FP8 by block: bytes and scales
travel together, one scale in fp32 for 128 elements along the rows or along the columns, as the product reads them:
inputs in one order at a time, gradients in both, for the input's gradient and the weight's. Scattered sums are bf16.

LoRA: the matrices are frozen, so no input is gathered again, and the first layer of all sums no gradient of its input,
unless it is recomputed. Transformer Engine hands its norm's output to the adapter, which gathers it in bf16; FP8 by
tensor then scales it twice, as the rank's part and whole. r is the adapter's rank. Behind A of a column-parallel matrix
T x r / TP is gathered, behind that of a row-parallel one T x r is summed; B of the latter gathers T x H / TP. Backward
both sum T x r, and the gradient of the row-parallel one's output is gathered.

Embedding, tp: its rows are shared, so the first stage sums forward, with sequence parallelism by reduce-scatter, and
gathers the gradient backward, if it is trained. Head, tp: copies forward and sums backward, or gathers forward and
reduce-scatters backward.

Mixtures of experts: the ranks tell each other how many tokens go to each expert. A token's state goes to the experts
that it takes, with the weight that the router gives each, and its output comes back; so do their gradients. Sequence
parallelism is set, so that a rank has T / TP tokens, and there is no second pair of products. Where tensor-parallel
ranks have a part of each expert, they gather states and weights, and scatter the sums of outputs, in fp32.

Context parallelism: keys and values of T tokens go round the ring, CP - 1 times forward and CP - 1 times again
backward, with their gradients beside them from the second time on, which need one more time to come home.
Flex-attention (shared prompts, capped logits) has no ring: it gathers keys, and values, and reduce-scatters their
gradients.
"""

from __future__ import annotations

from nemo_sspo.errors import UserError
from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.rank import TrainingRank
from nemo_sspo.estimate.traffic.said import BF16, EXPERT_CUTS, EXPERT_PARTS, EXPERTS, FP8, FP32, INT64, Said
from nemo_sspo.megatron.models.feed_forward import Mixture

_BLOCK = 128


def layers(said: Said, rank: TrainingRank, batch: Batch) -> None:
    if rank.parallel.sequence:
        _with_sequence_parallelism(said, rank, batch)
    elif rank.parallel.tensor > 1:
        _without_sequence_parallelism(said, rank, batch)
    if rank.model.mixture is not None:
        _experts(said, rank, batch, rank.model.mixture)
    if rank.parallel.context > 1:
        (_gathered_keys if rank.takes_flex_attention else _ring)(said, rank, batch)


def _experts(said: Said, rank: TrainingRank, batch: Batch, mixture: Mixture) -> None:
    parallel, forwards, every = rank.parallel, _forwards(rank), batch.microbatches * rank.mixed_layers
    taken = batch.tokens // parallel.tensor * mixture.experts_per_token
    state, weight = taken * rank.model.hidden_size, taken * FP32
    if parallel.expert * parallel.expert_tensor > 1:
        said.add("allgather_base", EXPERT_PARTS, every * forwards, mixture.experts * INT64)
    if parallel.expert > 1:
        both_ways = every * (forwards + 1) * (2 * state * BF16 + weight)
        said.add_uneven("alltoall_base", EXPERTS, 3 * every * (forwards + 1), both_ways)
    if parallel.expert_tensor > 1:
        there, back = state * BF16 + weight, state * FP32
        gathered, scattered = forwards * there + back, there + forwards * back
        said.add_uneven("allgather", EXPERT_CUTS, every * (2 * forwards + 1), every * gathered)
        said.add_uneven("reduce_scatter", EXPERT_CUTS, every * (forwards + 2), every * scattered * parallel.tensor)


def _forwards(rank: TrainingRank) -> int:
    return 2 if rank.train.recompute == "full" else 1


def _without_sequence_parallelism(said: Said, rank: TrainingRank, batch: Batch) -> None:
    if rank.is_frozen:
        raise UserError("train.peft=lora is estimated with parallel.sequence=true alone; set it, or parallel.tensor=1")
    whole = batch.tokens * rank.model.hidden_size * BF16
    said.add("allreduce", "tp", batch.microbatches * rank.layers * (2 * _forwards(rank) + 2), whole)
    said.add("allreduce", "tp", batch.microbatches * (rank.is_first + rank.is_last), whole)


def _with_sequence_parallelism(said: Said, rank: TrainingRank, batch: Batch) -> None:
    tensor, is_frozen = rank.parallel.tensor, rank.is_frozen
    # Pairs of products: two of a dense layer, attention's alone where experts have the other.
    forwards, pairs = _forwards(rank), batch.microbatches * (2 * rank.layers - rank.mixed_layers)
    part = batch.tokens * rank.model.hidden_size // tensor
    whole = part * tensor * BF16
    if is_frozen:
        said.add("allgather_base", "tp", pairs * forwards, part * BF16)
        _adapters(said, rank, batch)
    else:
        _gather(said, rank, pairs * (forwards + 1), part, orders=1)
    _gather(said, rank, pairs, part, orders=1 if is_frozen else 2)
    if rank.fp8 == "tensorwise":
        scales_of_inputs = 2 if is_frozen else 1
        said.add("allreduce", "tp", pairs * (forwards * scales_of_inputs + 1), FP32)
    said.add("reduce_scatter_base", "tp", pairs * (forwards + 1), whole)
    if is_frozen and rank.is_first and rank.train.recompute != "full":
        said.add("reduce_scatter_base", "tp", -batch.microbatches, whole)
    # Embedding and head.
    said.add("allgather_base", "tp", batch.microbatches * (rank.is_first * (not is_frozen) + rank.is_last), part * BF16)
    said.add("reduce_scatter_base", "tp", batch.microbatches * (rank.is_first + rank.is_last), whole)


def _gather(said: Said, rank: TrainingRank, count: int, elements: int, *, orders: int) -> None:
    """Of what a layer's product reads, in one order of it or in both."""
    if rank.fp8 == "blockwise":
        said.add("allgather_into_tensor_coalesced", "tp", count, orders * elements * (FP8 * _BLOCK + FP32) // _BLOCK)
    else:
        said.add("allgather_base", "tp", count, elements * (FP8 if rank.fp8 else BF16))


def _adapters(said: Said, rank: TrainingRank, batch: Batch) -> None:
    forwards, every = _forwards(rank), batch.microbatches * rank.layers
    narrow = batch.tokens * rank.train.lora_rank * BF16
    wide = batch.tokens * rank.model.hidden_size * BF16 // rank.parallel.tensor
    said.add("allgather_base", "tp", every * 2 * forwards, narrow // rank.parallel.tensor)
    said.add("allgather_base", "tp", every * (2 * forwards + 2), wide)
    said.add("allreduce", "tp", every * (2 * forwards + 4), narrow)


def _attentions(rank: TrainingRank) -> int:
    """How often attention runs forward."""
    return 1 if rank.train.recompute == "none" else 2


def _keys(rank: TrainingRank, batch: Batch) -> int:
    """Bytes of the keys of one layer's tokens, or of the values."""
    return batch.tokens * rank.keys * BF16


def _ring(said: Said, rank: TrainingRank, batch: Batch) -> None:
    every, turns = batch.microbatches * rank.layers, rank.parallel.context - 1
    of_ring = 2 * _keys(rank, batch)
    for operation in ("send", "recv"):
        said.add(operation, "cp", every * _attentions(rank) * turns, of_ring)
        # Backward, the first turn has keys and values, the last one their gradients, those between have both.
        said.add_uneven(operation, "cp", every * (turns + 1), every * 2 * turns * of_ring)


def _gathered_keys(said: Said, rank: TrainingRank, batch: Batch) -> None:
    every, keys = batch.microbatches * rank.layers, _keys(rank, batch)
    said.add("allgather_base", "cp", every * 2 * _attentions(rank), keys)
    said.add("reduce_scatter_base", "cp", every * 2, keys * rank.parallel.context)
