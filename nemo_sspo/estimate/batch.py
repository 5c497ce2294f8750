"""A step's microbatches: their tokens, and the response tokens that a rank scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nemo_sspo.estimate.rank import StepPairs, TrainingRank
from nemo_sspo.megatron.batches.row_shape import RowShape, rounded_up, token_multiple


@dataclass(frozen=True)
class Batch:
    microbatches: int
    tokens: int
    """Of a microbatch's rows, on this rank."""
    scored: tuple[int, ...]
    """Tokens of each response of a microbatch that this rank scores."""

    @property
    def responses(self) -> int:
        """Of a microbatch."""
        return len(self.scored)

    @classmethod
    def of(cls, rank: TrainingRank) -> Batch:
        """As `megatron/batches/microbatch_plan.py` makes them: evenly filled, and as long as the fullest one."""
        parallel, train, pairs = rank.parallel, rank.train, rank.pairs
        shape = RowShape.for_layout(
            tensor=parallel.tensor,
            context=parallel.context,
            sequence_parallel=parallel.sequence,
            token_multiple=token_multiple(rank.precision),
        )
        sequence = rounded_up(pairs.prompt + pairs.response, shape.sequence_multiple)
        of_pair = shared_tokens(pairs) if train.share_prompt else 2 * sequence
        group = parallel.pipeline if parallel.virtual_pipeline else 1
        if train.packing:
            packs = rounded_up(-(-pairs.count // max(1, train.pack_tokens // of_pair)), parallel.data * group)
            microbatches, of_microbatch = packs // parallel.data, -(-pairs.count // packs)
            rows, row = 1, rounded_up(of_pair * of_microbatch, shape.row_multiple)
        else:
            of_microbatch = train.micro_batch_size
            share = -(-pairs.count // parallel.data)
            microbatches = rounded_up(-(-share // of_microbatch), group)
            rows, row = 2 * of_microbatch, rounded_up(sequence, shape.row_multiple)
        # What the ranks of context parallelism cut: the row where prompts are shared, else each sequence.
        cut = row if train.share_prompt or not train.packing else sequence
        scored = (
            _in_parts_of(rank.context_rank, parallel.context, cut, first, pairs.response)
            for first in _first_scored(rank, of_microbatch)
        )
        return cls(microbatches, rows * row // parallel.context, tuple(scored))


def pair_tokens(rank: TrainingRank) -> int:
    """That a pair has, without padding."""
    pairs = rank.pairs
    return shared_tokens(pairs) if rank.train.share_prompt else 2 * (pairs.prompt + pairs.response)


def shared_tokens(pairs: StepPairs) -> int:
    """Of a pair whose prompt stands once: the prompt's last token stands before each response."""
    return pairs.prompt + 1 + 2 * pairs.response


def _first_scored(rank: TrainingRank, pairs: int) -> Iterator[int]:
    """The position, in what is cut, that predicts the first token of each response."""
    prompt, response = rank.pairs.prompt, rank.pairs.response
    for pair in range(pairs):
        if rank.train.share_prompt:
            begin = pair * shared_tokens(rank.pairs)
            yield begin + prompt - 1
            yield begin + prompt + response
        else:
            yield from (prompt - 1, prompt - 1)


def _in_parts_of(rank: int, ranks: int, length: int, first: int, count: int) -> int:
    """Of `count` positions, those in the two of 2 x CP parts a rank has: as far from the front as from the end."""
    part = length // (2 * ranks)
    starts = (rank * part, (2 * ranks - 1 - rank) * part)
    return sum(max(0, min(first + count, start + part) - max(first, start)) for start in starts)
