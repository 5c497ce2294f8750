"""Gemma 2 through reference, training, adapters and export, against Hugging Face."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import pyarrow as pa
import torch
from megatron.core import dist_checkpointing

from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.checkpoints.weights import WEIGHTS
from tests.megatron.hugging_face import hugging_face_logps
from tests.megatron.layers.adapters import adapted_logps
from tests.megatron.policies import GEMMA2
from tests.megatron.worlds import (
    exported,
    job,
    make_reference,
    reference,
    train,
    write_policy,
)


@pytest.fixture(scope="module")
def gemma(binding: Binding, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Gemma 2 as Hugging Face saves it, and imported: `policy/`, `nemo/` and `hf/`."""
    directory = tmp_path_factory.mktemp("gemma2")
    write_policy(directory / "policy", "gemma2", **GEMMA2)
    binding.import_policy(directory / "policy", directory / "nemo", directory / "hf", torch.float32)
    return directory


@pytest.fixture(scope="module")
def supervised_gemma(binding: Binding, pairs: pa.Table, gemma: Path) -> PairTable:
    return PairTable(pairs, make_reference(reference(binding, pairs, gemma, Parallel())))


@pytest.mark.parametrize(
    "parallel",
    [Parallel(), Parallel(tensor=2, pipeline=2, sequence=True), Parallel(tensor=2, context=2)],
    ids=["one rank", "TP2 PP2 SP", "TP2 CP2"],
)
def test_reference_is_hugging_faces_log_softmax(
    binding: Binding, gemma: Path, pairs: pa.Table, parallel: Parallel
) -> None:
    found_P2, expected_P2 = reference(binding, pairs, gemma, parallel), hugging_face_logps(gemma / "policy", pairs)
    torch.testing.assert_close(found_P2, expected_P2, rtol=1e-5, atol=1e-5)


def test_layouts_train_alike_and_export_megatrons_log_probs(
    binding: Binding, supervised_gemma: PairTable, pairs: pa.Table, gemma: Path, tmp_path: Path
) -> None:
    alone = train(binding, job(supervised_gemma, gemma, tmp_path / "alone", Parallel()))
    parallel = Parallel(tensor=2, pipeline=2, virtual_pipeline=2, sequence=True, distributed_optimizer=False)
    found = train(binding, job(supervised_gemma, gemma, tmp_path / "parallel", parallel, packing=True, pack_tokens=64))
    for ours, theirs in zip(found, alone, strict=True):
        for name in ("loss", "pair_cosine", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), (ours["step"], name)

    (tmp_path / "parallel" / "hf").symlink_to(gemma / "hf")
    binding.export_policy(tmp_path / "parallel" / "nemo", gemma / "hf", tmp_path / "exported", torch.float32)
    megatron_P2 = reference(binding, pairs, tmp_path / "parallel", Parallel(tensor=2))
    torch.testing.assert_close(hugging_face_logps(tmp_path / "exported", pairs), megatron_P2, rtol=1e-5, atol=1e-5)
    assert (megatron_P2 - reference(binding, pairs, gemma, Parallel())).abs().max() > 0.1  # it has learnt something


def test_adapters_add_before_the_norm_behind_their_matrix(
    binding: Binding, gemma: Path, pairs: pa.Table, supervised_gemma: PairTable, tmp_path: Path
) -> None:
    """Added behind it, the merged weights would be another model's."""
    parallel = Parallel(tensor=2, sequence=True)
    adapted_P2 = adapted_logps(binding, supervised_gemma, gemma, parallel, tmp_path / "nemo")
    merged_P2 = hugging_face_logps(exported(binding, tmp_path / "nemo", gemma, tmp_path), pairs)
    torch.testing.assert_close(merged_P2, adapted_P2, rtol=1e-5, atol=1e-5)
    assert (merged_P2 - hugging_face_logps(gemma / "policy", pairs)).abs().max() > 1.0


def test_checkpoint_keys_are_nemos(gemma: Path) -> None:
    keys = set(dist_checkpointing.load_tensors_metadata(str(gemma / "nemo" / WEIGHTS)))
    for name in ("self_attention.linear_proj", "mlp.linear_fc2"):
        assert f"module.decoder.layers.{name}.post_layernorm.weight" in keys
    assert not [key for key in keys if "_bda" in key]


def test_another_activation_is_refused(binding: Binding, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", "gemma2", hidden_activation="relu")
    with pytest.raises(UserError, match="hidden_activation 'relu'"):
        binding.import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)
