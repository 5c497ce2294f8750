"""Only the wanted tokens, in little memory: the numbers are those of transformers' DeBERTa-v2."""

import copy
import itertools

import pytest
import torch

pytest.importorskip("transformers")

from transformers import DebertaV2Config, DebertaV2Model

from nemo_sspo.oracle import deberta_attention
from nemo_sspo.oracle.deberta_attention import WantedStates

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
    monkeypatch.setattr(deberta_attention, "_SCORES_AT_ONCE", at_once)
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
    """No tensor of scores is larger than a head's, however many rows and heads there are."""
    sizes = []
    softmax = torch.softmax

    def watched(scores: torch.Tensor, dim: int) -> torch.Tensor:
        sizes.append(tuple(scores.shape))
        return softmax(scores, dim)

    monkeypatch.setattr(torch, "softmax", watched)
    monkeypatch.setattr(deberta_attention, "_SCORES_AT_ONCE", 2 * 70 * 70)
    ids, mask = batch()
    WantedStates(make_model())(ids, mask, WANTED)
    first, last = sizes[: 2 * 2 * 3], sizes[2 * 2 * 3 :]
    assert set(first) == {(2, 70, 70), (1, 70, 70)}  # three heads in twos, two layers, three rows
    assert set(last) == {(3, 3, 70)}  # the last layer attends from three tokens


def test_every_pair_has_the_value_of_its_distance() -> None:
    by_distance = torch.tensor([30, 20, 10, 0, -10, -20, -30])  # of distances 3, 2, ..., -3
    found = deberta_attention._by_pair(by_distance)
    for i, j in itertools.product(range(4), range(4)):
        assert found[i, j] == 10 * (i - j)
