"""Transformer Engine's layers ask a checkpoint for what the conversion writes, name by name and shape by shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nemo_sspo.config.stages import Parallel, Train
from tests.rehearsal.case import Case
from tests.rehearsal.cases import TINY_MODELS, TINY_PAIRS
from tests.rehearsal.checkpoint_keys import keys_of_conversion, keys_of_transformer_engine

_LLAMA = TINY_MODELS["llama"]
# A vocabulary that is padded: 700 rows become 768.
MODELS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA | {"vocab_size": 700},
    "llama, tied": _LLAMA | {"tie_word_embeddings": True},
    "mistral": _LLAMA | {"model_type": "mistral"},
    "mistral, windowed": _LLAMA | {"model_type": "mistral", "sliding_window": 16},
    "qwen2": _LLAMA | {"model_type": "qwen2"},
    "qwen3": TINY_MODELS["qwen3"],
    "gemma2": TINY_MODELS["gemma2"],
    "gemma2, attention not capped": TINY_MODELS["gemma2"] | {"attn_logit_softcapping": None},
}


def case_of(model: str, *, tensor: int = 1, share_prompt: bool = False) -> Case:
    train = Train(packing=share_prompt, share_prompt=share_prompt)
    return Case(model, MODELS[model], Parallel(tensor=tensor, sequence=tensor > 1), train, TINY_PAIRS)


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("model", MODELS)
def test_every_key_is_known_to_the_conversion_and_every_converted_one_is_asked_for(
    model: str, tensor: int, tmp_path: Path
) -> None:
    case = case_of(model, tensor=tensor)
    assert keys_of_transformer_engine(case, tmp_path) == keys_of_conversion(case, tmp_path)


@pytest.mark.parametrize("model", ["llama", "qwen3"])
def test_shared_prompts_have_the_same_keys(model: str, tmp_path: Path) -> None:
    case = case_of(model, tensor=2, share_prompt=True)
    assert keys_of_transformer_engine(case, tmp_path) == keys_of_conversion(case, tmp_path)


def test_a_key_that_the_conversion_does_not_know_is_told(tmp_path: Path) -> None:
    case = case_of("llama")
    found = keys_of_transformer_engine(case, tmp_path, {"add_bias_linear": True})
    unknown = found.keys() - keys_of_conversion(case, tmp_path).keys()
    assert "decoder.layers.mlp.linear_fc2.bias" in unknown


def test_a_key_that_no_layer_asks_for_is_told(tmp_path: Path) -> None:
    case = case_of("qwen3")
    found = keys_of_transformer_engine(case, tmp_path, {"qk_layernorm": False})
    lost = keys_of_conversion(case, tmp_path).keys() - found.keys()
    assert "decoder.layers.self_attention.q_layernorm.weight" in lost
