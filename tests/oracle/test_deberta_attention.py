"""Only the wanted tokens, in little memory: the numbers are those of transformers' DeBERTa-v2."""

import copy

import pytest
import torch

pytest.importorskip("transformers")

from torch.utils.flop_counter import FlopCounterMode
from transformers import DebertaV2Config, DebertaV2Model
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

from nemo_sspo.oracle.pairrm import deberta_attention
from nemo_sspo.oracle.pairrm.deberta_attention import WantedStates

LENGTHS = (70, 3, 41)
WANTED = torch.tensor([[1, 30, 69], [0, 1, 2], [1, 7, 40]])


def make_model(**changes: object) -> DebertaV2Model:
    """In double precision. transformers rounds the scale sqrt(terms x head size) to float32: it is whole here."""
    settings = dict(
        vocab_size=50,
        hidden_size=36,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=64,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        initializer_range=0.4,
    )
    torch.manual_seed(0)
    return DebertaV2Model(DebertaV2Config(**settings | changes)).eval().double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    return torch.randint(1, 50, mask.shape) * mask, mask


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"position_buckets": -1, "max_relative_positions": 12},
        {"share_att_key": False},
        {"pos_att_type": ["c2p"], "hidden_size": 24},
        {"pos_att_type": ["p2c"], "share_att_key": False, "hidden_size": 24},
        {"conv_kernel_size": 3},
        {"relative_attention": False, "pos_att_type": [], "position_biased_input": True, "max_position_embeddings": 80},
    ],
)
@pytest.mark.parametrize("at_once", [1, 10**9])
@torch.inference_mode()
def test_states_are_those_of_transformers(monkeypatch: pytest.MonkeyPatch, changes: dict, at_once: int) -> None:
    monkeypatch.setattr(deberta_attention, "SCORES_AT_ONCE", at_once)
    monkeypatch.setattr(deberta_attention, "PRODUCTS_AT_ONCE", at_once)
    model = make_model(**changes)
    ids, mask = batch()
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = states[torch.arange(len(ids))[:, None], WANTED]
    found = WantedStates(copy.deepcopy(model))(ids, mask, WANTED)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@torch.inference_mode()
def test_padding_and_neighbours_change_nothing() -> None:
    states = WantedStates(make_model())
    ids, mask = batch()
    together = states(ids, mask, WANTED)
    for row, length in enumerate(LENGTHS):
        alone = states(ids[row : row + 1, :length], mask[row : row + 1, :length], WANTED[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-10, atol=1e-10)


@torch.inference_mode()
def test_scores_stay_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows, heads and queries there are, a block of scores is no larger than was asked for."""
    sizes = []
    softmax = torch.softmax

    def watched(scores: torch.Tensor, dim: int) -> torch.Tensor:
        sizes.append(tuple(scores.shape))
        return softmax(scores, dim)

    monkeypatch.setattr(torch, "softmax", watched)
    monkeypatch.setattr(deberta_attention, "SCORES_AT_ONCE", 2 * 30 * 70)
    monkeypatch.setattr(deberta_attention, "PRODUCTS_AT_ONCE", 2 * 70 * 16)  # two rows by the 16 places of the table
    WantedStates(make_model())(*batch(), WANTED)
    whole, wanted = sizes[: 2 * 3 * (3 + 2)], sizes[2 * 3 * (3 + 2) :]
    # Two layers of three heads: two rows, 30 of 70 queries at a time; then the third row, 60 at a time.
    assert whole == [(2, 30, 70), (2, 30, 70), (2, 10, 70), (1, 60, 70), (1, 10, 70)] * 6
    assert wanted == [(2, 3, 70), (1, 3, 70)] * 3  # the last layer attends from three tokens


@pytest.mark.parametrize("changes", [{}, {"position_buckets": -1, "max_relative_positions": 12}])
def test_places_of_keys_from_the_end_are_those_of_their_distances(changes: dict) -> None:
    model = make_model(**changes)
    span, length = (8 if not changes else 12), 70
    truth = build_relative_position(
        torch.zeros(1, length, 1), torch.zeros(1, length, 1), model.config.position_buckets, 64 if not changes else 12
    )[0]
    found = WantedStates(model)._places(length, torch.device("cpu")).unfold(0, length, 1)
    torch.testing.assert_close(found.flip(1), (truth + span).clamp(0, 2 * span - 1))


@torch.inference_mode()
def test_short_rows_reach_few_places_of_the_table() -> None:
    """The FLOPs of content x table, counted: 2S - 1 places of 64, from both sides, in every layer but the last."""
    model = make_model(position_buckets=32, num_hidden_layers=2)
    ids, length = torch.arange(1, 11)[None], 10
    states = WantedStates(model)
    with FlopCounterMode(display=False) as counter:
        states(ids, torch.ones_like(ids), torch.tensor([[1, 2, 3]]))
    hidden, inner, near = 36, 32, 2 * length - 1
    keys, content = 2 * length * 2 * hidden * hidden, 2 * length * near * hidden

    def rest(tokens: int) -> int:
        """Queries, output and inner layer; context; queries x table. torch counts no baddbmm_, the scores."""
        return 2 * tokens * (hidden * (2 * hidden + 2 * inner) + length * hidden + near * hidden)

    assert counter.get_total_flops() == 2 * (keys + content) + rest(length) + rest(3)
