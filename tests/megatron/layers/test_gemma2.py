"""Gemma 2 through reference, training, adapters and export, against Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("nemo.collections.llm")

import pyarrow as pa
import torch
from megatron.core import dist_checkpointing
from transformers import AutoModelForCausalLM

from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.checkpoints.weights import WEIGHTS, one_rank
from nemo_sspo.megatron.models.flops import ModelFlops
from nemo_sspo.megatron.nemo.convert import export_policy, import_policy
from nemo_sspo.megatron.nemo.model_config import host_config
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from tests.megatron.hugging_face import hugging_face_logps
from tests.megatron.layers.adapters import adapted_logps
from tests.megatron.worlds import (
    GEMMA2,
    SECONDS,
    VOCAB,
    exported,
    job,
    make_reference,
    reference,
    train,
    write_policy,
)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Gemma 2 as Hugging Face saves it, and imported: `policy/`, `nemo/` and `hf/`."""
    directory = tmp_path_factory.mktemp("gemma2")
    write_policy(directory / "policy", "gemma2", **GEMMA2)
    import_policy(directory / "policy", directory / "nemo", directory / "hf", torch.float32)
    return directory


@pytest.fixture(scope="module")
def supervised_gemma(pairs: pa.Table, gemma: Path) -> PairTable:
    return PairTable(pairs, make_reference(reference(pairs, gemma, Parallel())))


@pytest.mark.parametrize(
    "parallel",
    [Parallel(), Parallel(tensor=2, pipeline=2, sequence=True), Parallel(tensor=2, context=2)],
    ids=["one rank", "TP2 PP2 SP", "TP2 CP2"],
)
def test_reference_is_hugging_faces_log_softmax(gemma: Path, pairs: pa.Table, parallel: Parallel) -> None:
    found_P2, expected_P2 = reference(pairs, gemma, parallel), hugging_face_logps(gemma / "policy", pairs)
    torch.testing.assert_close(found_P2, expected_P2, rtol=1e-5, atol=1e-5)


def test_layouts_train_alike_and_export_megatrons_log_probs(
    supervised_gemma: PairTable, pairs: pa.Table, gemma: Path, tmp_path: Path
) -> None:
    alone = train(job(supervised_gemma, gemma, tmp_path / "alone", Parallel()))
    parallel = Parallel(tensor=2, pipeline=2, virtual_pipeline=2, sequence=True, distributed_optimizer=False)
    found = train(job(supervised_gemma, gemma, tmp_path / "parallel", parallel, packing=True, pack_tokens=64))
    for ours, theirs in zip(found, alone, strict=True):
        for name in ("loss", "pair_cosine", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), (ours["step"], name)

    (tmp_path / "parallel" / "hf").symlink_to(gemma / "hf")
    export_policy(tmp_path / "parallel" / "nemo", gemma / "hf", tmp_path / "exported", torch.float32)
    megatron_P2 = reference(pairs, tmp_path / "parallel", Parallel(tensor=2))
    torch.testing.assert_close(hugging_face_logps(tmp_path / "exported", pairs), megatron_P2, rtol=1e-5, atol=1e-5)
    assert (megatron_P2 - reference(pairs, gemma, Parallel())).abs().max() > 0.1  # it has learnt something


def test_adapters_add_before_the_norm_behind_their_matrix(gemma: Path, pairs: pa.Table, tmp_path: Path) -> None:
    """Added behind it, the merged weights would be another model's."""

    def on_rank() -> torch.Tensor:
        return adapted_logps(PairTable(pairs, None), gemma, Parallel(tensor=2, sequence=True), tmp_path / "nemo")

    adapted_P2 = run_forked(on_rank, 2, timeout=SECONDS)[0]
    merged_P2 = hugging_face_logps(exported(tmp_path / "nemo", gemma, tmp_path), pairs)
    torch.testing.assert_close(merged_P2, adapted_P2, rtol=1e-5, atol=1e-5)
    assert (merged_P2 - hugging_face_logps(gemma / "policy", pairs)).abs().max() > 1.0


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


def test_checkpoint_keys_are_nemos(gemma: Path) -> None:
    keys = set(dist_checkpointing.load_tensors_metadata(str(gemma / "nemo" / WEIGHTS)))
    for name in ("self_attention.linear_proj", "mlp.linear_fc2"):
        assert f"module.decoder.layers.{name}.post_layernorm.weight" in keys
    assert not [key for key in keys if "_bda" in key]


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


def test_flops_count_the_window_in_every_second_layer(gemma: Path) -> None:
    flops = ModelFlops.of(host_config(gemma / "policy", torch.float32), VOCAB)
    assert (flops.windowed_layers, flops.layers, flops.window) == (2, 4, GEMMA2["sliding_window"])


def test_another_activation_is_refused(tmp_path: Path) -> None:
    policy = write_policy(tmp_path, "gemma2", hidden_activation="relu")
    with pytest.raises(UserError, match="hidden_activation 'relu'"):
        host_config(policy, torch.float32)
