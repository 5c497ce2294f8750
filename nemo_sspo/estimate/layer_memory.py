"""Bytes that a layer of one microbatch keeps from its forward to its backward pass, and what backward makes beside.

Transformer Engine's layers, as rehearsed: where sequence parallelism cuts the norms' tokens, these are a rank's part.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.rank import TrainingRank
from nemo_sspo.estimate.traffic.said import BF16, FP8, FP32
from nemo_sspo.megatron.batches.row_shape import rounded_up
from nemo_sspo.megatron.models.feed_forward import Mixture

_FLEX_BLOCK = 256
"""Flex-attention's queries and keys are padded to a multiple of it (`layers/flex_attention.py`)."""
_CACHED = 4
"""Cosines and sines of queries and of keys, where rotary positions are no fused kernel."""
_SCORES, _CHOICES = 10, 24
"""Bytes that a router keeps of a token for each expert, and for each that the token takes."""
_UNSORTED = 4
"""Copies of the gradients of a mixture's outputs, on their way back to the experts."""


@dataclass(frozen=True)
class LayerMemory:
    """In bytes, of a layer and a microbatch."""

    state: int
    """Hidden states of this rank's part of the tokens."""
    feed_forward: int
    """The activation function's output, of gate or up alone."""
    kept: int
    """Without recomputation of the whole layer."""
    grown: int
    """What the peak of its backward pass has beside."""

    @classmethod
    def of(cls, rank: TrainingRank, batch: Batch) -> LayerMemory:
        """Of a dense layer."""
        feed_forward = batch.tokens * (rank.model.intermediate_size // rank.parallel.tensor) * BF16
        kept = _attention_and_norms(rank, batch) + _feed_forward(rank, feed_forward)
        # The gradients of gate and up, and of the function's output, which itself has gone by then.
        grown = 2 * feed_forward + feed_forward - _of_down(rank, feed_forward)
        return cls(_state(rank, batch), feed_forward, kept, grown)

    @classmethod
    def of_mixture(cls, rank: TrainingRank, batch: Batch, mixture: Mixture) -> LayerMemory:
        """Whose experts are taken by equally many tokens."""
        tokens, parallel = _part(rank, batch.tokens), rank.parallel
        taken = mixture.experts_per_token * tokens * parallel.expert_tensor
        feed_forward = taken * (mixture.intermediate_size // parallel.expert_tensor) * BF16
        states = taken * rank.model.hidden_size * BF16
        router = tokens * (_SCORES * mixture.experts + _CHOICES * mixture.experts_per_token)
        kept = _attention_and_norms(rank, batch) + router + states + _feed_forward(rank, feed_forward)
        grown = 2 * feed_forward
        if mixture.experts > parallel.expert:  # a rank of several sorts what comes to them, and the gradients back
            grown = max(grown + states, _UNSORTED * states)
        return cls(_state(rank, batch), feed_forward, kept, grown)


def _state(rank: TrainingRank, batch: Batch) -> int:
    return _part(rank, batch.tokens) * rank.model.hidden_size * BF16


def _attention_and_norms(rank: TrainingRank, batch: Batch) -> int:
    """With the residuals."""
    state = _state(rank, batch)
    kept = _norms(rank, batch, state) + _attention(rank, batch.tokens)
    kept += 2 * state * (2 if rank.model.family.model_type == "gemma2" else 1)  # residuals, and norms behind
    if rank.model.family.qk_norm:
        channels = rank.queries + rank.keys
        kept += batch.tokens * (channels * BF16 + channels // rank.model.head_dim * FP32)
    if rank.is_frozen:
        kept += 4 * batch.tokens * rank.train.lora_rank * BF16
    return kept


def _part(rank: TrainingRank, tokens: int) -> int:
    return tokens // rank.parallel.tensor if rank.parallel.sequence else tokens


def _norms(rank: TrainingRank, batch: Batch, state: int) -> int:
    """Outputs of the two norms, which the products behind them read, and a number for each of their tokens."""
    read = state * FP8 // BF16 if rank.fp8 and not rank.is_frozen else state
    statistics = _part(rank, batch.tokens) * FP32
    gathered = state * rank.parallel.tensor if rank.is_frozen and rank.parallel.sequence else 0
    return 2 * (read + statistics + gathered)


def _attention(rank: TrainingRank, tokens: int) -> int:
    """Queries, keys, values, output and the logarithm of each query's sum."""
    heads = rank.queries // rank.model.head_dim
    query, key, sums = tokens * rank.queries * BF16, tokens * rank.keys * BF16, tokens * heads * FP32
    if rank.takes_flex_attention:
        whole = rounded_up(tokens * rank.parallel.context, _FLEX_BLOCK)
        padded = rounded_up(tokens, _FLEX_BLOCK)
        return padded * 2 * (rank.queries * BF16 + heads * FP32) + 2 * whole * rank.keys * BF16 + query
    if rank.train.recompute == "selective":  # values are a view of all three then
        kept = query + key + query + 2 * key + query
    else:
        kept = query + 2 * key + query + sums
    if not rank.is_fused:
        kept += _CACHED * tokens * rank.model.head_dim * BF16
    return kept


def _feed_forward(rank: TrainingRank, feed_forward: int) -> int:
    """Gate and up, what the activation function keeps where it is no fused kernel, and what goes into down."""
    unfused = 0 if rank.is_fused else 2 * feed_forward
    return 2 * feed_forward + unfused + _of_down(rank, feed_forward)


def _of_down(rank: TrainingRank, feed_forward: int) -> int:
    return feed_forward * FP8 // BF16 if rank.fp8 and not rank.is_frozen else feed_forward
