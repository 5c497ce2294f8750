"""Which microbatches every replica runs at every step, and of which shape. No NeMo, no process group.

    padded   a microbatch is `micro_batch_size` pairs, two rows each, all rows of a step of one length
    packed   a microbatch is one row of whole pairs, at most `pack_tokens` long, all rows of a step of one length

A step has one row length because pipeline stages exchange tensors of a shape agreed on beforehand. Packed, its pairs
are spread over as many rows as every replica runs equally many of, evenly filled: no replica waits for another, and
the fullest row, which sets the length, is hardly fuller than the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.batch_plan import GlobalBatch, completed, level_packs
from nemo_sspo.megatron.batches.microbatch import (
    Microbatch,
    PreferencePair,
    RowShape,
    packed_microbatch,
    padded_microbatch,
    shared_prompt_microbatch,
)
from nemo_sspo.megatron.batches.pairs import PairTable


@dataclass(frozen=True)
class PreparedMicrobatch:
    """A microbatch and the rows of the pairs table in it; the filler pairs that complete it stand after those."""

    tensors: Microbatch
    rows: tuple[int, ...]
    step: int
    """Optimizer step, counted from 0."""
    num_microbatches: int
    """Microbatches that this replica runs in that step."""


@dataclass(frozen=True)
class MicrobatchPlan:
    """Everything that decides the shapes and the content of the microbatches of a pass."""

    pairs: PairTable
    batches: Sequence[GlobalBatch]
    train: Train
    parallel: Parallel
    token_multiple: int = 1
    """Tokens of a row that a rank holds are a multiple of this; see `nemo/precision.py`."""

    @property
    def rows_per_microbatch(self) -> int:
        """Batch dimension of a microbatch: a padded pair is two rows."""
        return 1 if self.train.packing else 2 * self.train.micro_batch_size

    def rows_of(self, step: int, replica: int) -> list[tuple[int, ...]]:
        """Table rows of each microbatch that `replica` runs at `step`; some may have none."""
        if self.train.packing:
            return self._packs_of_step[step][replica :: self.parallel.data]
        share = self.batches[step].share(replica, self.parallel.data)
        size = self.train.micro_batch_size
        return completed([share[start : start + size] for start in range(0, len(share), size)], self._group)

    def row_length(self, step: int) -> int:
        """Length of every row of a step, on all replicas."""
        if not self.train.packing:
            return self._layout.row_length(max(self._row_tokens[row] for row in self.batches[step].pairs))
        packs = self._packs_of_step[step]
        fullest = max(sum(self._pair_tokens[row] for row in rows or (self._filler,)) for rows in packs)
        return self._layout.row_length(fullest)

    def build(self, step: int, rows: tuple[int, ...], num_microbatches: int, length: int) -> PreparedMicrobatch:
        """The tensors of one microbatch; pairs of weight zero complete a padded one, and stand in for an empty one."""
        full = 1 if self.train.packing else self.train.micro_batch_size
        fillers = max(0, full - len(rows))
        pairs = [self.pairs[row] for row in (*rows, *[self._filler] * fillers)]
        weights = [1.0 / len(self.batches[step].pairs)] * len(rows) + [0.0] * fillers
        return PreparedMicrobatch(self._make(pairs, weights, self._row_shape(length)), rows, step, num_microbatches)

    @property
    def _make(self) -> Callable[[Sequence[PreferencePair], Sequence[float], RowShape], Microbatch]:
        if not self.train.packing:
            return padded_microbatch
        return shared_prompt_microbatch if self.train.share_prompt else packed_microbatch

    def _row_shape(self, length: int | None = None) -> RowShape:
        parallel = self.parallel
        return RowShape.for_layout(
            tensor=parallel.tensor,
            context=parallel.context,
            sequence_parallel=parallel.sequence,
            token_multiple=self.token_multiple,
            length=length,
        )

    @property
    def _group(self) -> int:
        """The interleaved schedule runs whole groups of `pipeline` microbatches."""
        return self.parallel.pipeline if self.parallel.virtual_pipeline else 1

    @cached_property
    def _packs_of_step(self) -> list[list[tuple[int, ...]]]:
        """Of all replicas: each takes every `data`-th."""
        multiple_of = self.parallel.data * self._group
        budget = self.train.pack_tokens
        return [level_packs(batch.pairs, self._pair_tokens, budget, multiple_of) for batch in self.batches]

    @cached_property
    def _layout(self) -> RowShape:
        return self._row_shape()

    @cached_property
    def _row_tokens(self) -> list[int]:
        return self.pairs.row_tokens()

    @cached_property
    def _filler(self) -> int:
        return min(range(len(self.pairs)), key=self._row_tokens.__getitem__)

    @cached_property
    def _pair_tokens(self) -> list[int]:
        """Tokens that each pair takes of a packed row. Raises UserError for a pair that exceeds `pack_tokens`."""
        if self.train.share_prompt:
            tokens = self.pairs.shared_prompt_tokens()
        else:
            tokens = self.pairs.packed_tokens(self._layout.sequence_multiple)
        longest = max(range(len(tokens)), key=tokens.__getitem__)
        if tokens[longest] > self.train.pack_tokens:
            raise UserError(
                f"train.pack_tokens={self.train.pack_tokens}: pair {self.pairs.pair_ids[longest]} alone has "
                f"{tokens[longest]} tokens; raise it, or drop longer pairs with pairs.max_tokens"
            )
        return tokens
