"""What a rank must say in an optimizer step: collectives, counted and sized from layout, model shape and batch.

Legend: T tokens of a microbatch's rows that this rank's context-parallel part has, H hidden, L layers of this rank,
M microbatches, R responses of a microbatch, N response tokens of it on this rank; TP, PP, VPP, CP, DP the layout.
Activations are bf16, gradients are summed in fp32. Bytes are what the rank hands over: the whole tensor of an
all-reduce and of a reduce-scatter, its own part of an all-gather.

Layers, tp. A layer has two pairs of products: a column-parallel one (query-key-value; gate and up), then a row-parallel
one (projection; down). Without sequence parallelism each pair sums T x H once forward, behind the row-parallel product,
and once backward, behind the column-parallel one. With it, norms see T / TP tokens, and each sum becomes a
reduce-scatter of T x H and an all-gather of T / TP x H. Transformer Engine keeps only the part of the column-parallel
input, and gathers it again for the weight's gradient:

    forward    all-gather before column, reduce-scatter behind row
    backward   all-gather of the gradient before row; all-gather of the input, reduce-scatter behind column

Full recomputation runs forward twice; selective repeats attention alone, which is no matter of tp.

Embedding, tp: its rows are shared, so the first stage sums forward, with sequence parallelism by reduce-scatter, and
gathers the gradient backward. Head, tp: copies forward and sums backward, or gathers forward and reduce-scatters
backward; of each tile it takes the largest logit of a token, then the sum and the target logit: one, then two numbers
in fp32.

Attention, cp: keys and values of T tokens go round the ring, CP - 1 times forward and CP - 1 times again backward, with
their gradients beside them from the second time on, which need one more time to come home.

Stages, pp: T / TP x H forward to the next stage, as much backward to the one before, for each of the rank's VPP chunks.
Interleaved, two stages take the world's group for one direction, so that both can be under way.

Optimizer, dp_cp: a reduce-scatter of all gradients and an all-gather of this rank's share of the weights, for each
chunk. The norms' gradients under sequence parallelism are of the rank's own tokens, and are summed over tp before.

Pairs, on the last stage: pooled states are summed, and how many tokens they are of, over the groups that hold different
tokens; so are the responses' log-probs over cp. The metrics of a step are summed over dp, and shared with the pipeline.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from nemo_sspo.megatron.batches.microbatch import RowShape
from nemo_sspo.megatron.loss.metrics import MEANS, METRICS
from tests.rehearsal.case import Case

BF16, FP32, INT64, FP64 = 2, 4, 8, 8
_GPU_TILE = 4096
"""Response tokens of the head's tile where the training names none."""


@dataclass(frozen=True)
class Expected:
    """As in a ledger's `Step`, by "operation group"."""

    microbatches: int
    calls: dict[str, int]
    bytes_sent: dict[str, int]


def expected_traffic(case: Case) -> Expected:
    """Of each of the steps, without checkpoints.

    Raises ValueError for what the derivation above does not speak of.
    """
    _require_covered(case)
    said = _Said()
    batch = _Batch.of(case)
    for part in (_layers, _pipeline, _optimizer, _pairs, _every_rank):
        part(said, case, batch)
    return Expected(batch.microbatches, dict(said.calls), dict(said.bytes))


def _require_covered(case: Case) -> None:
    train, model = case.train, case.model
    if model["model_type"] not in ("llama", "mistral") or model.get("sliding_window"):
        raise ValueError(f"{case.key}: layers of a Llama alone")
    if model.get("tie_word_embeddings") and case.parallel.pipeline > 1:
        raise ValueError(f"{case.key}: stages that share the embedding sum its gradient")
    if train.peft or train.share_prompt or case.precision.kind != "bf16" or case.checkpoint:
        raise ValueError(f"{case.key}: all weights in bf16, without shared prompts and checkpoints")
    if not case.parallel.distributed_optimizer:
        raise ValueError(f"{case.key}: the distributed optimizer alone")


class _Said:
    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def add(self, operation: str, group: str, count: int, size: int) -> None:
        """`count` calls of `size` bytes each."""
        self.add_uneven(operation, group, count, count * size)

    def add_uneven(self, operation: str, group: str, count: int, total: int) -> None:
        """`count` calls, of `total` bytes together."""
        if count:
            self.calls[f"{operation} {group}"] += count
            self.bytes[f"{operation} {group}"] += total


@dataclass(frozen=True)
class _Place:
    """Of a rank in its layout: tensor-parallel ranks are neighbours, then context, data, and pipeline outermost."""

    context: int
    stage: int
    is_first: bool
    is_last: bool
    is_in_pipeline_of_0: bool

    @classmethod
    def of(cls, case: Case) -> _Place:
        parallel = case.parallel
        ranks_of_stage = parallel.world_size // parallel.pipeline
        stage = case.rank // ranks_of_stage
        return cls(
            context=case.rank // parallel.tensor % parallel.context,
            stage=stage,
            is_first=stage == 0,
            is_last=stage == parallel.pipeline - 1,
            is_in_pipeline_of_0=case.rank % ranks_of_stage == 0,
        )


@dataclass(frozen=True)
class _Batch:
    microbatches: int
    tokens: int
    responses: int
    response_tokens: int
    """Of one response, on this rank."""
    most_response_tokens: int
    """Of one response, on the context-parallel rank that has most."""

    @classmethod
    def of(cls, case: Case) -> _Batch:
        parallel, train, pairs = case.parallel, case.train, case.pairs
        shape = RowShape.for_layout(
            tensor=parallel.tensor, context=parallel.context, sequence_parallel=parallel.sequence
        )
        sequence = _rounded_up(pairs.prompt + pairs.response, shape.sequence_multiple)
        if train.packing:
            of_microbatch = train.pack_tokens // (2 * sequence)
            row = _rounded_up(2 * sequence * of_microbatch, shape.row_multiple)
            rows = 1
        else:
            of_microbatch = train.micro_batch_size
            row = sequence = _rounded_up(sequence, shape.row_multiple)
            rows = 2 * of_microbatch
        of_group = parallel.data * of_microbatch * (parallel.pipeline if parallel.virtual_pipeline else 1)
        if pairs.count % of_group:
            raise ValueError(f"{case.key}: {pairs.count} pairs do not fill microbatches of {of_microbatch} evenly")
        counts = [
            _response_tokens(pairs.prompt, pairs.response, sequence, rank, parallel.context)
            for rank in range(parallel.context)
        ]
        return cls(
            microbatches=pairs.count // parallel.data // of_microbatch,
            tokens=rows * row // parallel.context,
            responses=2 * of_microbatch,
            response_tokens=counts[_Place.of(case).context],
            most_response_tokens=max(counts),
        )


def _response_tokens(prompt: int, response: int, sequence: int, rank: int, ranks: int) -> int:
    """Positions that predict a response's tokens, in the two of 2 x CP parts of a sequence that a rank has: the one of
    its number from the front, and from the back."""
    if ranks == 1:
        return response
    part = sequence // (2 * ranks)
    first, end = prompt - 1, prompt + response - 1
    starts = (rank * part, (2 * ranks - 1 - rank) * part)
    return sum(max(0, min(end, start + part) - max(first, start)) for start in starts)


def _rounded_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _layers_of(case: Case) -> int:
    return case.model["num_hidden_layers"] // case.parallel.pipeline


def _head_channels(case: Case) -> int:
    model = case.model
    return model.get("head_dim") or model["hidden_size"] // model["num_attention_heads"]


def _layers(said: _Said, case: Case, batch: _Batch) -> None:
    parallel, place, layers = case.parallel, _Place.of(case), _layers_of(case)
    forwards = 2 if case.train.recompute == "full" else 1
    every = batch.microbatches * layers
    whole = batch.tokens * case.model["hidden_size"] * BF16
    if parallel.sequence:
        gathers, scatters = 2 * forwards + 4, 2 * forwards + 2
        said.add("allgather_base", "tp", every * gathers, whole // parallel.tensor)
        said.add("reduce_scatter_base", "tp", every * scatters, whole)
        ends = batch.microbatches * (place.is_first + place.is_last)  # embedding and head
        said.add("allgather_base", "tp", ends, whole // parallel.tensor)
        said.add("reduce_scatter_base", "tp", ends, whole)
    elif parallel.tensor > 1:
        said.add("allreduce", "tp", every * (2 * forwards + 2), whole)
        said.add("allreduce", "tp", batch.microbatches * (place.is_first + place.is_last), whole)
    ring = parallel.context - 1
    attentions = 1 if case.train.recompute == "none" else 2
    keys_and_values = 2 * case.model["num_key_value_heads"] // parallel.tensor * _head_channels(case)
    of_ring = batch.tokens * keys_and_values * BF16
    # Backward, the first turn has keys and values, the last one their gradients, those between have both.
    backward = parallel.context if ring else 0
    for operation in ("send", "recv"):
        said.add(operation, "cp", every * attentions * ring, of_ring)
        said.add_uneven(operation, "cp", every * backward, every * 2 * ring * of_ring)


def _pipeline(said: _Said, case: Case, batch: _Batch) -> None:
    parallel, place = case.parallel, _Place.of(case)
    if parallel.pipeline == 1:
        return
    chunks = parallel.virtual_pipeline or 1
    size = batch.tokens * case.model["hidden_size"] * BF16 // (parallel.tensor if parallel.sequence else 1)
    # There is nothing before the first chunk of the first stage, and nothing behind the last one of the last.
    boundaries = 2 * chunks - place.is_first - place.is_last
    send = receive = "pp"
    if parallel.virtual_pipeline and parallel.pipeline == 2:
        send, receive = ("pp", "world") if place.stage == 0 else ("world", "pp")
    said.add("send", send, batch.microbatches * boundaries, size)
    said.add("recv", receive, batch.microbatches * boundaries, size)
    if case.rank == 0:  # the loss, from the last stage
        said.add("recv", "world", 1, FP32)
    elif place.is_last and place.is_in_pipeline_of_0:
        said.add("send", "world", 1, FP32)


def _optimizer(said: _Said, case: Case, batch: _Batch) -> None:
    parallel, place, hidden = case.parallel, _Place.of(case), case.model["hidden_size"]
    chunks = parallel.virtual_pipeline or 1
    shares = parallel.data * parallel.context
    for chunk in range(chunks):
        is_first, is_last = place.is_first and chunk == 0, place.is_last and chunk == chunks - 1
        count = _rounded_up(_weights(case, is_first=is_first, is_last=is_last), math.lcm(shares, 128))
        said.add("reduce_scatter_tensor_coalesced", "dp_cp", 1, count * FP32)
        said.add("allgather_into_tensor_coalesced", "dp_cp", 1, count // shares * BF16)
    if parallel.sequence:
        said.add("allreduce", "tp", 1, (2 * _layers_of(case) + place.is_last) * hidden * FP32)
    # The norm of all gradients, each of which one rank alone has.
    said.add("allreduce", "INTRA_DISTRIBUTED_OPTIMIZER_INSTANCE_GROUP", 1, FP32)


def _weights(case: Case, *, is_first: bool, is_last: bool) -> int:
    """Of a chunk on this rank."""
    from nemo_sspo.megatron.models.layout import padded_vocab_size

    model, tensor, hidden = case.model, case.parallel.tensor, case.model["hidden_size"]
    channels = _head_channels(case)
    heads, groups = model["num_attention_heads"], model["num_key_value_heads"]
    attention = hidden * (heads + 2 * groups) * channels + heads * channels * hidden
    feed_forward = 3 * hidden * model["intermediate_size"]
    layer = (attention + feed_forward) // tensor + 2 * hidden
    vocabulary = padded_vocab_size(model["vocab_size"]) * hidden // tensor
    matrices = is_first + is_last - bool(model.get("tie_word_embeddings"))
    layers = _layers_of(case) // (case.parallel.virtual_pipeline or 1)
    return layers * layer + matrices * vocabulary + (hidden if is_last else 0)


def _pairs(said: _Said, case: Case, batch: _Batch) -> None:
    parallel, hidden = case.parallel, case.model["hidden_size"]
    if not _Place.of(case).is_last:
        return
    tiles, groups = _tiles(case, batch)
    scored = batch.microbatches * batch.responses * batch.response_tokens
    said.add_uneven("allreduce", "tp", 2 * batch.microbatches * tiles, 3 * scored * FP32)
    if parallel.context > 1:
        if case.loss == "sppo":  # how many tokens each response has at most, and the sums, group by group
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


def _tiles(case: Case, batch: _Batch) -> tuple[int, int]:
    """How often the head of a microbatch fills a tile, and for how many groups of whole responses."""
    tile = case.train.head_chunk_tokens or _GPU_TILE
    if case.loss != "sppo":  # computes logits again, and cuts tokens as they come
        return -(-batch.responses * batch.response_tokens // tile), 0
    groups = -(-batch.responses // max(1, tile // batch.most_response_tokens))
    return groups * max(1, -(-batch.response_tokens // tile)), groups


def _every_rank(said: _Said, case: Case, batch: _Batch) -> None:
    said.add("broadcast", "pp", 1, len(METRICS) * FP64)
    said.add("allreduce", "world", 1, 2 * INT64)  # the most memory, and whether all is sound
    said.add("allreduce", "world", 1, INT64)  # whether a rank was told to stop
