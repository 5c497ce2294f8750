"""The tensors that a DeBERTa-v2 has by its config.json are those that transformers builds."""

from typing import Any

import pytest

from nemo_sspo.oracle.pairrm.deberta_tensors import deberta_tensors, embedding_size

pytest.importorskip("torch")
pytest.importorskip("transformers")

SMALL: dict[str, Any] = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 20,
}
V3 = {
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        V3,
        V3 | {"position_buckets": -1},
        V3 | {"position_buckets": -1, "max_relative_positions": 7},
        V3 | {"share_att_key": False},
        V3 | {"share_att_key": False, "pos_att_type": ["c2p"]},
        {"share_att_key": False, "pos_att_type": ["c2p"]},
        {"type_vocab_size": 2, "embedding_size": 6},
        {"conv_kernel_size": 3, "conv_groups": 2},
        {"attention_head_size": 5},
    ],
)
def test_names_and_shapes_are_those_of_transformers(changes: dict[str, Any]) -> None:
    import torch
    from transformers import DebertaV2Config, DebertaV2Model

    config = SMALL | changes
    with torch.device("meta"):
        model = DebertaV2Model(DebertaV2Config(**config))
    theirs = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    words = theirs.pop("embeddings.word_embeddings.weight")
    assert words == (11, embedding_size(config, "config.json"))
    assert dict(deberta_tensors(config, "config.json")) == theirs


def test_what_a_file_leaves_out_is_as_transformers_has_it() -> None:
    import torch
    from transformers import DebertaV2Config, DebertaV2Model

    with torch.device("meta"):
        theirs = DebertaV2Model(DebertaV2Config()).state_dict()
    ours = dict(deberta_tensors({}, "config.json"))
    assert ours == {name: tuple(tensor.shape) for name, tensor in theirs.items() if "word_embeddings" not in name}
