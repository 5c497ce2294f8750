"""Which tokens attend to which: every token of a row has a part and a position, and all masks are made from these.

    padded   a row is one part
    packed   sequence s is part 3 s
    shared   pair p is three: its prompt 3 p, its responses 3 p + 1 and 3 p + 2; see `prompt_sharing.py`

A query sees the keys of its own part, and of its pair's prompt, that are no later than itself and no further back than
the window. Masks compare positions, never places in the row: so it does not matter which tokens a context-parallel rank
holds, nor in which order they were gathered. Only `dense` has size S x T.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from nemo_sspo.megatron.batches.microbatch import zigzag_indices
from nemo_sspo.megatron.layers.prompt_sharing import PARTS, shared_places

BLOCK = 128
"""Queries and keys of a block of flex-attention's masks, its default."""
ROWS_AT_ONCE = 8
"""Rows of blocks whose single tokens are compared at once: 32 MiB of booleans for 32,768 keys."""


@dataclass(frozen=True, eq=False)
class AttentionMask:
    """What each query sees: keys of part `part_S` or `root_S` at the positions `first_S` to `last_S`; all int32."""

    part_S: Tensor
    root_S: Tensor
    first_S: Tensor
    last_S: Tensor
    key_part_T: Tensor
    key_position_T: Tensor

    @classmethod
    def of(
        cls, part_T: Tensor, position_T: Tensor, window: int | None, bounds: Tensor, rank: int, size: int
    ) -> AttentionMask:
        """Of one context-parallel rank.

        Args:
            part_T: of the whole row, as `position_T`; int32.
            window: how many positions back a query sees; None sees all.
            bounds: of the sequences that context parallelism cuts.
        """
        queries, keys = (part_T, position_T), (part_T, position_T)
        if size > 1:
            held = [zigzag_indices(bounds.cpu(), other, size).to(part_T.device) for other in range(size)]
            queries = (part_T[held[rank]], position_T[held[rank]])
            keys = (part_T[torch.cat(held)], position_T[torch.cat(held)])
        part_S, position_S = queries
        first_S = torch.zeros_like(position_S) if window is None else (position_S - window).clamp(min=0)
        return cls(part_S, part_S - part_S % PARTS, first_S, position_S, *keys)

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether queries see keys, given by their indices, which broadcast against each other."""
        part, position = self.key_part_T[key], self.key_position_T[key]
        is_kin = (part == self.part_S[query]) | (part == self.root_S[query])
        return is_kin & (position >= self.first_S[query]) & (position <= self.last_S[query])

    def dense(self) -> Tensor:
        """[S, T] bool."""
        query_S, key_T = self._indices()
        return self.sees(query_S[:, None], key_T[None])

    @cached_property
    def block_mask(self) -> BlockMask:
        """For flex-attention, over `padded_length`s of queries and keys; padding neither attends nor is attended to.

        Blocks are compared token by token, a few rows of them at a time: that is exact for any parts and windows, and
        holds no [S, T] in memory.
        """
        mask = self._padded()
        query_S, key_T = mask._indices()
        rows = []
        for some in query_S.split(ROWS_AT_ONCE * BLOCK):
            is_seen = mask.sees(some[:, None], key_T[None]).view(-1, BLOCK, key_T.numel() // BLOCK, BLOCK)
            rows.append((is_seen.any(dim=3).any(dim=1), is_seen.all(dim=3).all(dim=1)))
        any_IJ, all_IJ = (torch.cat(blocks) for blocks in zip(*rows, strict=True))

        def mask_mod(_row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return mask.sees(query, key)

        return BlockMask.from_kv_blocks(
            *_blocks_in_front(any_IJ & ~all_IJ),
            *_blocks_in_front(all_IJ),
            BLOCK_SIZE=BLOCK,
            mask_mod=mask_mod,
            seq_lengths=(query_S.numel(), key_T.numel()),
        )

    def _indices(self) -> tuple[Tensor, Tensor]:
        device = self.part_S.device
        return torch.arange(self.part_S.numel(), device=device), torch.arange(self.key_part_T.numel(), device=device)

    def _padded(self) -> AttentionMask:
        """Queries of an empty range, and keys at a position before the first."""
        queries, keys = ((0, padded_length(x.numel()) - x.numel()) for x in (self.part_S, self.key_part_T))
        return AttentionMask(
            F.pad(self.part_S, queries),
            F.pad(self.root_S, queries),
            F.pad(self.first_S, queries, value=1),
            F.pad(self.last_S, queries),
            F.pad(self.key_part_T, keys),
            F.pad(self.key_position_T, keys, value=-1),
        )


def padded_length(length: int) -> int:
    """The next of few lengths, four an octave, each a multiple of BLOCK: at most a quarter longer beyond 4 blocks.

    Row lengths differ between steps, and flex-attention is compiled for each length. Dynamic lengths are not
    reliable: some versions of torch turn them into constants when they check a mask (pytorch/pytorch#189952). Lengths
    that are not multiples of 128 gave NaN gradients with modified scores (pytorch/pytorch#153799).
    """
    blocks = -(-length // BLOCK)
    step = 1 << max(0, (blocks - 1).bit_length() - 3)
    return -(-blocks // step) * step * BLOCK


def _blocks_in_front(is_chosen_IJ: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each row of blocks has, [1, 1, I], and their indices before all others, [1, 1, I, J]."""
    order_IJ = is_chosen_IJ.int().argsort(dim=-1, descending=True, stable=True)
    return is_chosen_IJ.sum(dim=-1, dtype=torch.int32)[None, None], order_IJ.to(torch.int32)[None, None]


@dataclass(eq=False)
class PackedRow(PackedSeqParams):
    """Megatron's description of a packed row, from which this package's attention also derives its mask.

    Megatron hands the same object to every layer, and again to recomputed layers, so it caches what is derived from
    it: once a microbatch.
    """

    part_bounds: Tensor | None = None
    """As in `Microbatch`."""
    _masks: dict[int | None, AttentionMask] = field(default_factory=dict, init=False, repr=False)

    def attention_mask(self, length: int, window: int | None, rank: int, size: int) -> AttentionMask:
        """Of a context-parallel rank, always the same one, in a row of `length` tokens."""
        if window not in self._masks:
            self._masks[window] = AttentionMask.of(*self.places(length), window, self.cu_seqlens_q, rank, size)
        return self._masks[window]

    def places(self, length: int) -> tuple[Tensor, Tensor]:
        """Part and position of every token of the row, [T] int32 each."""
        if self.part_bounds is not None:
            return shared_places(self.part_bounds, length)
        token_T = torch.arange(length, device=self.cu_seqlens_q.device, dtype=torch.int32)
        sequence_T = torch.bucketize(token_T, self.cu_seqlens_q[1:], right=True)
        return (PARTS * sequence_T).int(), token_T - self.cu_seqlens_q[sequence_T]


@lru_cache(maxsize=8)
def padded_mask(length: int, window: int | None, rank: int, size: int, device: torch.device) -> AttentionMask:
    """Of a row of one sequence; all rows of a padded microbatch share it."""
    position_T = torch.arange(length, device=device, dtype=torch.int32)
    return AttentionMask.of(torch.zeros_like(position_T), position_T, window, torch.tensor([0, length]), rank, size)
