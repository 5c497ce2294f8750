"""The configs that NeMo builds its models from, and what those models compute."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("nemo.collections.llm")

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nemo_sspo.config.precisions import Fp32Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.checkpoints.weights import one_rank
from nemo_sspo.megatron.models.flops import ModelFlops
from nemo_sspo.megatron.nemo.model_config import host_config, training_config
from tests.megatron.policies import GEMMA2, POLICIES
from tests.megatron.worlds import VOCAB, write_policy


@pytest.mark.parametrize("name", ["llama", "mistral_window", "qwen3_window"])
def test_what_a_config_leaves_out_of_windows_is_hugging_faces(tmp_path: Path, name: str) -> None:
    """A key that is missing has the family's default, and one that the family does not read has no effect."""
    model_type, changes = POLICIES[name]
    policy = write_policy(tmp_path, model_type, **changes)
    config = json.loads((policy / "config.json").read_text())
    for key in ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"):
        config.pop(key, None)
    (policy / "config.json").write_text(json.dumps(config | ({"sliding_window": 5} if name == "llama" else {})))
    theirs = AutoConfig.from_pretrained(policy)
    window = host_config(policy, torch.float32).window_size
    assert window == ((4095, 0) if model_type == "mistral" else None)
    assert (theirs.sliding_window if model_type != "llama" else None) == (4096 if window else None)


def test_rope_theta_of_transformers_5_is_read(tmp_path: Path) -> None:
    policy = write_policy(tmp_path, "llama")
    config = json.loads((policy / "config.json").read_text())
    del config["rope_theta"], config["rope_scaling"]
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 7e5}
    (policy / "config.json").write_text(json.dumps(config))
    assert host_config(policy, torch.float32).rotary_base == 7e5


def test_embedding_is_scaled_as_hugging_faces_in_bf16(tmp_path: Path) -> None:
    """To the bit: sqrt(72) = 8.485 is 8.5 in bf16, as the model was trained."""
    policy = write_policy(tmp_path, "gemma2", hidden_size=72, torch_dtype=torch.bfloat16)
    tokens_BS = torch.arange(VOCAB)[None]
    hf = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.bfloat16)
    with torch.no_grad(), one_rank():
        expected_BSH = hf(tokens_BS, output_hidden_states=True).hidden_states[0]
        embedding = host_config(policy, torch.bfloat16).configure_model(tokenizer=None).embedding
        embedding.word_embeddings.weight[:VOCAB] = hf.model.embed_tokens.weight
        found_SBH = embedding(input_ids=tokens_BS, position_ids=torch.arange(VOCAB)[None])
    assert torch.equal(found_SBH.transpose(0, 1), expected_BSH)


def test_what_a_published_config_leaves_out_is_gemmas(tmp_path: Path) -> None:
    """google/gemma-2-2b-it names neither the tied embeddings nor which layers have a window."""
    write_policy(tmp_path, "gemma2", head_dim=256, query_pre_attn_scalar=144, final_logit_softcapping=None)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key in ("tie_word_embeddings", "layer_types", "head_dim", "sliding_window", "attn_logit_softcapping"):
        del config[key]
    path.write_text(json.dumps(config))
    built = host_config(tmp_path, torch.float32)
    assert built.share_embeddings_and_output_weights
    assert built.window_attn_skip_freq == [1, 0, 1, 0]
    assert (built.kv_channels, built.window_size, built.softmax_scale) == (256, (4095, 0), 1 / 12)
    assert (built.attn_logit_softcapping, built.final_logit_softcapping) == (50.0, None)  # null is no cap


def test_flops_count_the_window_in_every_second_layer(tmp_path: Path) -> None:
    policy = write_policy(tmp_path, "gemma2", **GEMMA2)
    flops = ModelFlops.of(host_config(policy, torch.float32), VOCAB)
    assert (flops.windowed_layers, flops.layers, flops.window) == (2, 4, GEMMA2["sliding_window"])


@pytest.mark.parametrize("shared", [False, True])
def test_shared_prompts_ask_for_layers_that_take_them(imported: Path, shared: bool) -> None:
    made = training_config(imported / "hf", Parallel(), Fp32Precision(), Train(packing=True, share_prompt=shared))
    assert made.transformer_layer_spec.keywords == {"shares_prompts": shared, "layers": "auto"}
