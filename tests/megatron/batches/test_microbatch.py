from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.microbatch import (
    Microbatch,
    PreferencePair,
    context_parallel_slice,
    packed_microbatch,
    padded_microbatch,
    zigzag_indices,
)
from nemo_sspo.megatron.batches.row_shape import RowShape
from tests.megatron.batches.made_pairs import pair, pairs

Build = Callable[..., Microbatch]
BUILDERS = pytest.mark.parametrize("build", [padded_microbatch, packed_microbatch])
layouts = st.builds(
    RowShape.for_layout,
    tensor=st.sampled_from([1, 2, 3]),
    context=st.sampled_from([1, 2, 3]),
    sequence_parallel=st.booleans(),
)


def responses_of(all_pairs: list[PreferencePair]) -> list[list[int]]:
    return [list(response) for one in all_pairs for response in (one.chosen_ids, one.rejected_ids)]


def selected(values: torch.Tensor, index: torch.Tensor, response: int) -> list[int]:
    return values[index == response].tolist()


@BUILDERS
@given(all_pairs=pairs, shape=layouts)
@settings(max_examples=40)
def test_masks_select_exactly_the_responses(build: Build, all_pairs: list[PreferencePair], shape: RowShape) -> None:
    m = build(all_pairs, [1.0] * len(all_pairs), shape)
    for number, response in enumerate(responses_of(all_pairs)):  # chosen_0, rejected_0, chosen_1, ...
        assert selected(m.labels_BS, m.response_index_BS, number) == response
        assert selected(m.tokens_BS, m.token_response_index_BS, number) == response
        assert selected(m.tokens_BS, m.last_token_index_BS, number) == response[-1:]
    assert m.num_responses == 2 * len(all_pairs)
    for index in (m.response_index_BS, m.token_response_index_BS, m.last_token_index_BS):
        assert set(index.unique().tolist()) <= {-1, *range(m.num_responses)}


@BUILDERS
@given(all_pairs=pairs, shape=layouts)
@settings(max_examples=40)
def test_a_label_is_the_next_token_of_the_same_sequence(
    build: Build, all_pairs: list[PreferencePair], shape: RowShape
) -> None:
    m = build(all_pairs, [1.0] * len(all_pairs), shape)
    rows, positions = (m.response_index_BS >= 0).nonzero().unbind(dim=1)
    assert torch.equal(m.labels_BS[rows, positions], m.tokens_BS[rows, positions + 1])
    assert torch.equal(m.position_ids_BS[rows, positions] + 1, m.position_ids_BS[rows, positions + 1])


@given(all_pairs=pairs, shape=layouts)
@settings(max_examples=40)
def test_packed_sequences_hold_a_prompt_and_its_response_from_position_0(
    all_pairs: list[PreferencePair], shape: RowShape
) -> None:
    m = packed_microbatch(all_pairs, [1.0] * len(all_pairs), shape)
    bounds = m.cu_seqlens.tolist()
    assert bounds[-1] == m.tokens_BS.shape[1]
    assert bounds[-1] % shape.row_multiple == 0
    assert m.max_seqlen == max(end - start for start, end in pairwise(bounds))
    prompts = [list(one.prompt_ids) for one in all_pairs for _ in range(2)]
    for number, (prompt, response) in enumerate(zip(prompts, responses_of(all_pairs), strict=True)):
        start, end = bounds[number], bounds[number + 1]
        assert m.tokens_BS[0, start:end].tolist()[: len(prompt + response)] == prompt + response
        assert m.position_ids_BS[0, start:end].tolist() == list(range(end - start))
        assert (end - start) % shape.sequence_multiple == 0
    lengths = [len(prompt + response) for prompt, response in zip(prompts, responses_of(all_pairs), strict=True)]
    assert bounds[len(prompts)] == sum(-(-length // shape.sequence_multiple) for length in lengths) * (
        shape.sequence_multiple  # no sequence is padded to more than its multiple
    )


@BUILDERS
@given(all_pairs=pairs, context=st.sampled_from([1, 2, 3]))
@settings(max_examples=40)
def test_context_parallel_ranks_share_a_row_without_rest(
    build: Build, all_pairs: list[PreferencePair], context: int
) -> None:
    shape = RowShape.for_layout(tensor=1, context=context, sequence_parallel=False)
    whole = build(all_pairs, [1.0] * len(all_pairs), shape)
    slices = [context_parallel_slice(whole, rank, context) for rank in range(context)]
    assert len({part.tokens_BS.shape for part in slices}) == 1
    for part in slices:
        assert part.lengths_P2.flatten().tolist() == [len(response) for response in responses_of(all_pairs)]
    for response in range(whole.num_responses):
        found = sorted(
            (position, token)
            for part in slices
            for position, token in zip(
                selected(part.position_ids_BS, part.response_index_BS, response),
                selected(part.labels_BS, part.response_index_BS, response),
                strict=True,
            )
        )
        assert [token for _, token in found] == responses_of(all_pairs)[response]


def test_zigzag_pairs_the_first_chunk_with_the_last_in_every_sequence() -> None:
    bounds = torch.tensor([0, 8, 12])
    assert zigzag_indices(bounds, 0, 2).tolist() == [0, 1, 6, 7, 8, 11]
    assert zigzag_indices(bounds, 1, 2).tolist() == [2, 3, 4, 5, 9, 10]
    assert zigzag_indices(bounds, 0, 1).tolist() == list(range(12))
    with pytest.raises(ValueError, match="cannot be cut"):
        zigzag_indices(torch.tensor([0, 6]), 0, 2)


@BUILDERS
def test_supervision_stays_with_its_pair(build: Build) -> None:
    m = build([pair(), pair(ref_chosen=-1.0, target_pair=0.5)], [0.5, 0.0], RowShape())
    assert m.ref_logps_P2.tolist() == [[-3.0, -4.0], [-1.0, -4.0]]
    torch.testing.assert_close(m.targets_P3, torch.tensor([[0.9, 0.2, 0.8], [0.9, 0.2, 0.5]]))
    assert m.weight_P.tolist() == [0.5, 0.0]
    assert m.lengths_P2.tolist() == [[len(pair().chosen_ids), len(pair().rejected_ids)]] * 2


@BUILDERS
def test_fixed_length_is_met_or_refused(build: Build) -> None:
    assert build([pair()], [1.0], RowShape(length=16)).tokens_BS.shape[1] == 16
    with pytest.raises(UserError, match="fixed at 4"):
        build([pair()], [1.0], RowShape(length=4))


def test_what_a_layout_asks_of_lengths() -> None:
    def multiples(**layout: int | bool) -> tuple[int, int]:
        shape = RowShape.for_layout(**layout)
        return shape.sequence_multiple, shape.row_multiple

    assert multiples(tensor=4, context=1, sequence_parallel=False) == (1, 1)
    assert multiples(tensor=4, context=1, sequence_parallel=True) == (1, 4)
    assert multiples(tensor=3, context=2, sequence_parallel=True) == (4, 12)
    assert multiples(tensor=4, context=1, sequence_parallel=False, token_multiple=16) == (1, 16)
    assert multiples(tensor=2, context=2, sequence_parallel=True, token_multiple=16) == (4, 64)
    with pytest.raises(UserError, match="multiple of 12"):
        RowShape.for_layout(tensor=3, context=2, sequence_parallel=True, length=16)


@pytest.mark.parametrize("field", ["prompt_ids", "chosen_ids", "rejected_ids"])
def test_an_empty_part_of_a_pair_is_refused_by_name(field: str) -> None:
    with pytest.raises(UserError, match=f"pair p: {field} is empty"):
        pair(**{field: []})
