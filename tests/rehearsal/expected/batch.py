"""A step's microbatches: their tokens, and the response tokens that a rank scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from nemo_sspo.megatron.batches.microbatch import RowShape
from nemo_sspo.megatron.models.precision import token_multiple
from tests.rehearsal.case import Case
from tests.rehearsal.expected.place import Place


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
    def of(cls, case: Case) -> Batch:
        parallel, train, pairs = case.parallel, case.train, case.pairs
        shape = RowShape.for_layout(
            tensor=parallel.tensor,
            context=parallel.context,
            sequence_parallel=parallel.sequence,
            token_multiple=token_multiple(case.precision),
        )
        sequence = _rounded_up(pairs.prompt + pairs.response, shape.sequence_multiple)
        shared = pairs.prompt + 1 + 2 * pairs.response  # the prompt's last token stands before each response
        of_pair = shared if train.share_prompt else 2 * sequence
        of_microbatch = train.pack_tokens // of_pair if train.packing else train.micro_batch_size
        if not train.packing:
            rows, row = 2 * of_microbatch, _rounded_up(sequence, shape.row_multiple)
        else:
            rows, row = 1, _rounded_up(of_pair * of_microbatch, shape.row_multiple)
        of_group = parallel.data * of_microbatch * (parallel.pipeline if parallel.virtual_pipeline else 1)
        if pairs.count % of_group:
            raise ValueError(f"{case.key}: {pairs.count} pairs do not fill microbatches of {of_microbatch} evenly")
        # What the ranks of context parallelism cut: the row where prompts are shared, else each sequence.
        cut = row if train.share_prompt or not train.packing else sequence
        scored = (
            _in_parts_of(Place.of(case).context, parallel.context, cut, first, pairs.response)
            for first in _first_scored(case, of_microbatch)
        )
        return cls(
            microbatches=pairs.count // parallel.data // of_microbatch,
            tokens=rows * row // parallel.context,
            scored=tuple(scored),
        )


def _first_scored(case: Case, pairs: int) -> Iterator[int]:
    """The position, in what is cut, that predicts the first token of each response."""
    prompt, response = case.pairs.prompt, case.pairs.response
    for pair in range(pairs):
        if case.train.share_prompt:
            begin = pair * (prompt + 1 + 2 * response)
            yield begin + prompt - 1
            yield begin + prompt + response
        else:
            yield from (prompt - 1, prompt - 1)


def _in_parts_of(rank: int, ranks: int, length: int, first: int, count: int) -> int:
    """Of `count` positions, those in the two of 2 x CP parts a rank has: as far from the front as from the end."""
    part = length // (2 * ranks)
    starts = (rank * part, (2 * ranks - 1 - rank) * part)
    return sum(max(0, min(first + count, start + part) - max(first, start)) for start in starts)


def _rounded_up(length: int, multiple: int) -> int:
    return ceil(length / multiple) * multiple
