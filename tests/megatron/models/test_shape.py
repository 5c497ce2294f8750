"""What the import refuses of a policy, from its config.json and the headers of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.shape import import_problems
from tests.json_edit import edit
from tests.launch.tiny_models import POLICY_TENSORS, write_policy, write_tensors


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policy")


def found(policy: Path) -> list[str]:
    return list(import_problems("policy=p", policy, read_hf_config(policy)))


def test_a_right_policy_has_no_problem(policy: Path) -> None:
    assert found(policy) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope type 'yarn' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope type 'linear' is not supported"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "'llama3' needs 'low_freq_factor'"),
        (
            {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_parameters and rope_scaling disagree",
        ),
        ({"mlp_bias": True}, "mlp_bias is not supported"),
        ({"attention_bias": True}, "attention_bias is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "names no language model"),
        ({"model_type": "qwen2"}, "tensor 'model.layers.0.self_attn.q_proj.bias' is missing"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'; expected true or false"),
        ({"vocab_size": 272}, "embed_tokens.weight is 260 x 8, config.json says vocab_size=272 x hidden_size=8"),
        ({"num_hidden_layers": 8}, "its weights lack layer 4"),
        ({"intermediate_size": 20}, "is 8 x 16, config.json says hidden_size=8 x intermediate_size=20"),
        ({"num_key_value_heads": 4}, "k_proj.weight is 64 x 8, config.json says num_key_value_heads x head_dim=128"),
        ({"head_dim": 64}, "o_proj.weight is 8 x 128, config.json says hidden_size=8 x num_attention_heads x head_dim"),
        ({"num_attention_heads": 5}, "num_attention_heads=5 is not a multiple of num_key_value_heads=2"),
    ],
)
def test_a_config_that_the_weights_do_not_follow(policy: Path, change: dict[str, Any], named: str) -> None:
    edit(policy / "config.json", **change)
    (problem,) = found(policy)
    assert named in problem


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({"model.norm.weight": None}, "tensor 'model.norm.weight' is missing"),
        ({"lm_head.weight": None, "score.weight": [1, 8]}, "tensor 'lm_head.weight' is missing"),
        ({"model.extra.weight": [8]}, "1 tensors have no place in this family, first 'model.extra.weight'"),
        ({"model.layers.1.mlp.down_proj.weight": [16, 8]}, "model.layers.1.mlp.down_proj.weight is 16 x 8"),
        ({"model.layers.3.input_layernorm.weight": [8, 1]}, "input_layernorm.weight is 8 x 1"),
    ],
)
def test_weights_that_do_not_follow_the_config(policy: Path, tensors: dict[str, Any], named: str) -> None:
    changed = {name: shape for name, shape in (POLICY_TENSORS | tensors).items() if shape is not None}
    write_tensors(policy / "model.safetensors", changed)
    assert named in found(policy)[0]


def test_a_tied_head_may_be_stored_and_so_may_rotary_frequencies(policy: Path) -> None:
    edit(policy / "config.json", tie_word_embeddings=True)
    assert found(policy) == []
    write_tensors(policy / "model.safetensors", POLICY_TENSORS | {"model.layers.0.self_attn.rotary_emb.inv_freq": [16]})
    assert found(policy) == []


COUNTS = ("num_attention_heads", "num_key_value_heads", "hidden_size", "num_hidden_layers", "intermediate_size")


@pytest.mark.parametrize("key", [*COUNTS, "vocab_size", "max_position_embeddings", "head_dim"])
@pytest.mark.parametrize(
    "value", [0, -2, "8", [8], 6.5, True, 10**15, {}, int("9" * 4000)], ids=lambda value: str(value)[:9]
)
def test_a_number_that_is_none_is_named(policy: Path, key: str, value: object) -> None:
    edit(policy / "config.json", **{key: value})
    assert any(f"config.json: {key} is " in problem and len(problem) < 300 for problem in found(policy))


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": [1]},
        {"rope_scaling": "x"},
        {"rope_scaling": {"rope_type": ["x"]}},
        {"rope_theta": "x"},
        {"rope_theta": 0},
        {"rope_theta": float("inf")},
        {"rms_norm_eps": float("nan")},
        {"initializer_range": "x"},
        {"model_type": ["llama"]},
        {"architectures": 3},
        {"model_type": "mistral", "sliding_window": "4096"},
        {"model_type": "qwen3", "use_sliding_window": True, "layer_types": 3},
        {"model_type": "qwen3", "use_sliding_window": True, "max_window_layers": "x"},
        {"model_type": "gemma2", "hidden_act": None, "query_pre_attn_scalar": 0},
        {"model_type": "gemma2", "final_logit_softcapping": "x"},
    ],
)
def test_values_of_no_kind_that_a_config_has(policy: Path, change: dict[str, Any]) -> None:
    edit(policy / "config.json", **change)
    key = list(change)[-1]
    assert any(str(policy / "config.json") in problem and key.split("_")[0] in problem for problem in found(policy))
