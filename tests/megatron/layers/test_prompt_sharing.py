"""Shared prompts: rows, masks and positions. Whole models are compared in tests/distributed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("megatron.core")

import torch
from hypothesis import given, settings
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.microbatch import (
    Microbatch,
    PreferencePair,
    RowShape,
    packed_microbatch,
    shared_prompt_microbatch,
)
from nemo_sspo.megatron.layers import spec as layers
from nemo_sspo.megatron.layers.attention_mask import PackedRow
from nemo_sspo.megatron.layers.prompt_sharing import rotary_by_position
from nemo_sspo.megatron.loss.hidden_states import model_inputs
from tests.megatron.batches.made_pairs import pair, pairs
from tests.megatron.layers.one_layer import attention, config, in_one_rank

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="gloo groups: for machines without CUDA")


def shared(made: list[PreferencePair], length: int | None = None) -> Microbatch:
    return shared_prompt_microbatch(made, [1.0] * len(made), RowShape(length=length))


def test_row_by_hand() -> None:
    """Prompt 5 6, chosen 7 8 2, rejected 9 2: the prompt's last token begins both responses' parts."""
    row = shared([pair()], length=10)
    assert row.tokens_BS.tolist() == [[5, 6, 7, 8, 2, 6, 9, 2, 0, 0]]
    assert row.position_ids_BS.tolist() == [[0, 1, 2, 3, 4, 1, 2, 3, 0, 1]]
    assert row.response_index_BS.tolist() == [[-1, 0, 0, 0, -1, 1, 1, -1, -1, -1]]
    assert [row.labels_BS[0, s].item() for s in (1, 2, 3, 5, 6)] == [7, 8, 2, 9, 2]
    assert row.token_response_index_BS.tolist() == [[-1, -1, 0, 0, 0, -1, 1, 1, -1, -1]]
    assert row.last_token_index_BS.tolist() == [[-1, -1, -1, -1, 0, -1, -1, 1, -1, -1]]
    assert row.part_bounds.tolist() == [0, 1, 5, 8]
    assert (row.cu_seqlens.tolist(), row.max_seqlen) == ([0, 10], 10)
    part, position = described(row).places(10)
    assert part.tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 3, 3]
    assert torch.equal(position, row.position_ids_BS[0].int())
    assert sees(row).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
    ]


def described(row: Microbatch) -> PackedRow:
    return model_inputs(row)["packed_seq_params"]


def sees(row: Microbatch) -> Tensor:
    return described(row).attention_mask(row.max_seqlen, None, 0, 1).dense()


def seen(row: Microbatch, is_seen: Tensor, query: int) -> list[tuple[int, int]]:
    """(token, distance) of all keys that a query sees, the farthest first."""
    position = row.position_ids_BS[0]
    keys = is_seen[query].nonzero().flatten()
    return sorted(((int(row.tokens_BS[0, k]), int(position[query] - position[k])) for k in keys), key=lambda k: -k[1])


@settings(max_examples=40)
@given(made=pairs)
def test_every_scored_token_sees_what_it_sees_in_a_row_of_its_own(made: list[PreferencePair]) -> None:
    row = shared(made)
    is_seen = sees(row)
    for number, one in enumerate(made):
        for side, response in enumerate((one.chosen_ids, one.rejected_ids)):
            text = [*one.prompt_ids, *response]
            queries = (row.response_index_BS[0] == 2 * number + side).nonzero().flatten().tolist()
            assert row.labels_BS[0, queries].tolist() == list(response)
            for nth, query in enumerate(queries):
                before = text[: len(one.prompt_ids) + nth]
                assert seen(row, is_seen, query) == [(t, len(before) - 1 - i) for i, t in enumerate(before)]


@settings(max_examples=40)
@given(made=pairs)
def test_a_row_is_shorter_by_the_prompts_but_a_token(made: list[PreferencePair]) -> None:
    packed = packed_microbatch(made, [1.0] * len(made), RowShape())
    saved = sum(len(one.prompt_ids) - 1 for one in made)
    assert shared(made).tokens_BS.shape[1] == packed.tokens_BS.shape[1] - saved


@pytest.mark.parametrize("window", [None, (2, 0)])
def test_attention_by_position_is_that_of_rows_of_their_own(window: tuple[int, int] | None) -> None:
    """With a window, which counts positions: the rejected response's prompt is no further away than the chosen's."""
    one = pair(prompt_ids=[5, 6, 3], chosen_ids=[7, 8, 4, 2], rejected_ids=[9, 2])
    row = shared([one], length=12)
    whole = [torch.arange(7), torch.tensor([0, 1, 7, 8, 9])]  # places in the row of prompt + chosen, prompt + rejected

    def both() -> list[tuple[Tensor, Tensor]]:
        local = attention(layers.LocalCoreAttention, **({} if window is None else {"window_size": window}))
        draw = torch.Generator().manual_seed(2)
        q, k, v = (torch.randn(12, heads, 8, generator=draw) for heads in (4, 2, 2))
        together = local(q, k, v, packed_seq_params=described(row))
        return [(together[places], local(*(x[places, None] for x in (q, k, v)))[:, 0]) for places in whole]

    for found, expected in in_one_rank(both):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_other_positions_than_rotary_ones_are_refused() -> None:
    with (
        pytest.raises(UserError, match=r"train\.share_prompt=false"),
        rotary_by_position(SimpleNamespace(rotary_pos_emb=object()), torch.arange(3)),
    ):
        pass


def test_the_rotary_embedding_is_its_own_again_afterwards() -> None:
    from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding

    def found() -> tuple[Tensor, Tensor, Tensor]:
        gpt = SimpleNamespace(rotary_pos_emb=RotaryEmbedding(config().kv_channels, 1.0, use_cpu_initialization=True))
        order = torch.tensor([0, 1, 2, 1, 2])
        before = gpt.rotary_pos_emb(5)
        with rotary_by_position(gpt, order):
            within = gpt.rotary_pos_emb(5, packed_seq=False)
        assert torch.equal(within, before[order])
        return before, within, gpt.rotary_pos_emb(5)

    before, within, after = in_one_rank(found)
    assert torch.equal(before, after)
    assert not torch.equal(before, within)
