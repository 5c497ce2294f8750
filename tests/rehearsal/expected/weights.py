"""The trained parameters of a rank's chunk, and what the optimizer says of their gradients.

A reduce-scatter of all gradients and an all-gather of this rank's share of the weights over dp_cp, for each chunk;
where stages share one embedding, for that one by itself if it is in the rank's first chunk. Its gradients the first and
the last stage sum before, as tp sums the norms' under sequence parallelism, which are of the rank's own tokens.
"""

from __future__ import annotations

import math

from nemo_sspo.megatron.models.layout import padded_vocab_size
from tests.rehearsal.case import Case
from tests.rehearsal.expected.batch import Batch
from tests.rehearsal.expected.place import Place, chunks_of, head_channels, layers_of
from tests.rehearsal.expected.said import BF16, FP32, Said

_START = 64
"""Megatron's buffers begin each parameter at a multiple of it."""


def optimizer(said: Said, case: Case, batch: Batch) -> None:
    place, chunks = Place.of(case), chunks_of(case)
    for chunk in range(chunks):
        body, vocabulary = _parameters(case, place.is_first and chunk == 0, place.is_last and chunk == chunks - 1)
        if chunk == 0 and vocabulary and _shares_embedding(case):
            _shared_over_replicas(said, case, body)
            _shared_over_replicas(said, case, vocabulary)
        else:
            _shared_over_replicas(said, case, body + vocabulary)
    is_end = place.is_first or place.is_last
    if _shares_embedding(case) and is_end and not case.train.peft:
        said.add("allreduce", "embedding", 1, _vocabulary(case) * FP32)
    if case.parallel.sequence and not case.train.peft:
        norms = layers_of(case) * sum(_norms(case)) + place.is_last * case.model["hidden_size"]
        said.add("allreduce", "tp", 1, norms * FP32)
    # The norm of all gradients, each of which one rank alone has.
    said.add("allreduce", "INTRA_DISTRIBUTED_OPTIMIZER_INSTANCE_GROUP", 1, FP32)


def _shared_over_replicas(said: Said, case: Case, parameters: list[int]) -> None:
    shares = case.parallel.data * case.parallel.context
    begun = sum(math.ceil(size / _START) * _START for size in parameters)
    multiple = math.lcm(shares, 128)
    count = math.ceil(begun / multiple) * multiple
    said.add("reduce_scatter_tensor_coalesced", "dp_cp", 1, count * FP32)
    said.add("allgather_into_tensor_coalesced", "dp_cp", 1, count // shares * BF16)


def _parameters(case: Case, is_first: bool, is_last: bool) -> tuple[list[int], list[int]]:
    """Sizes of a chunk's trained parameters: of its layers, and of embedding and head."""
    layers = layers_of(case) // chunks_of(case)
    if case.train.peft:
        return layers * _adapters(case), []
    ends = is_first + is_last - (is_first and is_last and _is_tied(case))
    norm = is_last * [case.model["hidden_size"]]
    return layers * (_matrices(case) + _norms(case)) + norm, ends * [_vocabulary(case)]


def _is_tied(case: Case) -> bool:
    """Whether the head's matrix is the embedding's, which Gemma 2 does not have to say."""
    return case.model.get("tie_word_embeddings", case.model["model_type"] == "gemma2")


def _shares_embedding(case: Case) -> bool:
    return _is_tied(case) and case.parallel.pipeline > 1


def _vocabulary(case: Case) -> int:
    return padded_vocab_size(case.model["vocab_size"]) * case.model["hidden_size"] // case.parallel.tensor


def _shapes(case: Case) -> list[tuple[int, int, bool]]:
    """(outputs, inputs, whether it is row-parallel) of a layer's matrices, whole."""
    model, hidden = case.model, case.model["hidden_size"]
    queries = model["num_attention_heads"] * head_channels(case)
    keys = model["num_key_value_heads"] * head_channels(case)
    feed_forward = model["intermediate_size"]
    return [
        (queries + 2 * keys, hidden, False),
        (hidden, queries, True),
        (2 * feed_forward, hidden, False),
        (hidden, feed_forward, True),
    ]


def _matrices(case: Case) -> list[int]:
    return [outputs * inputs // case.parallel.tensor for outputs, inputs, _ in _shapes(case)]


def _norms(case: Case) -> list[int]:
    """Of a layer: before attention and MLP; in Gemma 2 also behind them, in Qwen3 also of a head's query and key."""
    hidden = case.model["hidden_size"]
    return {
        "gemma2": 4 * [hidden],
        "qwen3": 2 * [hidden] + 2 * [head_channels(case)],
    }.get(case.model["model_type"], 2 * [hidden])


def _adapters(case: Case) -> list[int]:
    """A and B of each matrix: cut are A's rank or inputs, and B's outputs."""
    rank, tensor = case.train.lora_rank, case.parallel.tensor
    return [size * rank // tensor for outputs, inputs, _ in _shapes(case) for size in (inputs, outputs)]
