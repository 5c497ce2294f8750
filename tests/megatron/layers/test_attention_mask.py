"""Who sees whom, token by token and in blocks of them, against loops over the definition."""

from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nemo_sspo.megatron.batches.microbatch import zigzag_indices
from nemo_sspo.megatron.layers.attention_mask import BLOCK, PackedRow, padded_length, padded_mask
from nemo_sspo.megatron.layers.prompt_sharing import PARTS
from tests.megatron.largest_tensor import LargestTensor
from tests.megatron.layers.rows import shared_row

CPU = torch.device("cpu")
lengths = st.lists(st.integers(1, 200), min_size=PARTS, max_size=3 * PARTS).filter(lambda made: len(made) % PARTS == 0)
windows = st.none() | st.integers(0, 300)


def by_definition(lengths_of_parts: list[int], rest: int, window: int | None) -> Tensor:
    """[S, S]: parts in threes, the first of which the other two see; what is left over sees itself."""
    token = [(part, place) for part, length in enumerate([*lengths_of_parts, rest]) for place in range(length)]
    seen = torch.zeros(len(token), len(token), dtype=torch.bool)
    for q, (query_part, query_place) in enumerate(token):
        prompt = query_part // PARTS * PARTS
        for k, (key_part, key_place) in enumerate(token[: q + 1]):
            if key_part == query_part:
                distance = query_place - key_place
            elif key_part == prompt:
                distance = query_place + lengths_of_parts[prompt] - key_place
            else:
                continue
            seen[q, k] = window is None or distance <= window
    return seen


@settings(max_examples=20)
@given(parts=lengths.map(lambda made: [-(-length // 8) for length in made]), rest=st.integers(0, 9), window=windows)
def test_shared_prompts_by_their_definition(parts: list[int], rest: int, window: int | None) -> None:
    found = shared_row(parts, rest).attention_mask(sum(parts) + rest, window, 0, 1).dense()
    assert torch.equal(found, by_definition(parts, rest, window))


@settings(max_examples=20)
@given(sequences=st.lists(st.integers(1, 30), min_size=1, max_size=5), window=windows)
def test_packed_sequences_see_themselves(sequences: list[int], window: int | None) -> None:
    bounds = torch.tensor([0, *sequences]).cumsum(0).int()
    found = PackedRow(qkv_format="thd", cu_seqlens_q=bounds).attention_mask(sum(sequences), window, 0, 1).dense()
    blocks = [padded_mask(length, window, 0, 1, CPU).dense() for length in sequences]
    assert torch.equal(found, torch.block_diag(*blocks).bool())
    causal = torch.ones_like(blocks[0]).tril()
    assert torch.equal(blocks[0], causal if window is None else causal.triu(-window))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("window", [None, 20])
def test_a_context_parallel_rank_sees_its_share_of_the_row(size: int, window: int | None) -> None:
    parts, rest = [17, 30, 9, 1, 25, 4], 10
    length = sum(parts) + rest
    row = shared_row(parts, rest)
    whole = row.attention_mask(length, window, 0, 1).dense()
    held = [zigzag_indices(torch.tensor([0, length]), rank, size) for rank in range(size)]
    for rank in range(size):
        found = shared_row(parts, rest).attention_mask(length, window, rank, size).dense()
        assert torch.equal(found, whole[held[rank]][:, torch.cat(held)])


@settings(max_examples=20)
@given(parts=lengths, rest=st.integers(0, 150), window=windows)
def test_blocks_are_left_out_cut_or_whole_as_their_tokens_are(parts: list[int], rest: int, window: int | None) -> None:
    length = sum(parts) + rest
    mask = shared_row(parts, rest).attention_mask(length, window, 0, 1)
    blocks = mask.block_mask
    tokens = torch.zeros(blocks.shape[-2:], dtype=torch.bool)
    tokens[:length, :length] = mask.dense()
    of_block = tokens.unflatten(0, (-1, BLOCK)).unflatten(-1, (-1, BLOCK)).transpose(1, 2)
    count = of_block.sum(dim=(2, 3))
    cut = as_matrix(blocks.kv_num_blocks, blocks.kv_indices)
    whole = as_matrix(blocks.full_kv_num_blocks, blocks.full_kv_indices)
    assert torch.equal(whole, count == BLOCK * BLOCK)
    assert torch.equal(cut, (count > 0) & ~whole)
    # The gradient of keys and values walks the same blocks by columns.
    assert torch.equal(as_matrix(blocks.q_num_blocks, blocks.q_indices), cut.T)
    assert torch.equal(as_matrix(blocks.full_q_num_blocks, blocks.full_q_indices), whole.T)
    query, key = (torch.arange(size) for size in tokens.shape)
    nothing = torch.zeros((), dtype=torch.int64)
    assert torch.equal(blocks.mask_mod(nothing, nothing, query[:, None], key[None]), tokens)


def as_matrix(number: Tensor, indices: Tensor) -> Tensor:
    matrix = torch.zeros(indices.shape[-2:], dtype=torch.bool)
    for row, count in enumerate(number[0, 0].tolist()):
        matrix[row, indices[0, 0, row, :count].long()] = True
    return matrix


def test_a_mask_costs_numbers_per_token_and_per_pair_of_blocks() -> None:
    length = 8192
    prompt, response = 160, 596
    row = shared_row([prompt, response, response] * 6, length - 6 * (prompt + 2 * response))
    with LargestTensor() as largest:
        mask = row.attention_mask(length, 4096, 0, 1)
        blocks = mask.block_mask
    # Not even a bit for each pair of tokens at any time, and nothing of that kind afterwards.
    assert largest.elements <= length * length // 8
    kept = [getattr(mask, name) for name in mask.__dataclass_fields__]
    assert sum(x.numel() * x.element_size() for x in kept) == 6 * 4 * length
    tensors = [x for x in blocks.as_tuple() if isinstance(x, Tensor)]
    count = length // BLOCK
    assert sum(x.numel() * x.element_size() for x in tensors) == 4 * 4 * (count**2 + count)


def test_a_mask_is_made_once_a_microbatch_and_window() -> None:
    row = shared_row([3, 4, 5])
    assert row.attention_mask(12, None, 0, 1) is row.attention_mask(12, None, 0, 1)
    assert row.attention_mask(12, None, 0, 1).block_mask is row.attention_mask(12, None, 0, 1).block_mask
    assert row.attention_mask(12, 2, 0, 1) is not row.attention_mask(12, None, 0, 1)


def test_there_are_few_padded_lengths() -> None:
    found = [padded_length(length) for length in range(1, 16385)]
    assert all(padded % BLOCK == 0 and padded >= length for length, padded in enumerate(found, start=1))
    assert all(padded < 1.25 * length for length, padded in enumerate(found, start=1) if length > 4 * BLOCK)
    assert sorted({padded for padded in found if padded > 8192}) == [10240, 12288, 14336, 16384]
    assert len(set(found)) == 4 + 4 * 5  # up to 4 blocks each, then four an octave
