from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import pyarrow as pa
import torch

from nemo_sspo.config.stages import Parallel
from nemo_sspo.megatron.binding import Binding
from tests.megatron.hugging_face import hugging_face_logps
from tests.megatron.policies import POLICIES, skip_what_it_does_not_train
from tests.megatron.worlds import reference, write_policy


@pytest.mark.parametrize(
    "parallel",
    [
        Parallel(),
        Parallel(tensor=2, pipeline=2),
        Parallel(pipeline=2, virtual_pipeline=2),
        Parallel(tensor=2, sequence=True, data=2),
    ],
    ids=["one rank", "TP2 PP2", "PP2 VPP2", "TP2 SP DP2"],
)
def test_reference_is_hugging_faces_log_softmax(
    binding: Binding, small_llama: Path, imported: Path, pairs: pa.Table, parallel: Parallel
) -> None:
    found_P2 = reference(binding, pairs, imported, parallel)
    assert found_P2.dtype == torch.float32
    torch.testing.assert_close(found_P2, hugging_face_logps(small_llama, pairs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", POLICIES)
def test_every_familys_reference_is_hugging_faces(
    trainer: str, binding: Binding, pairs: pa.Table, tmp_path: Path, name: str
) -> None:
    skip_what_it_does_not_train(trainer, name)
    model_type, changes = POLICIES[name]
    policy = write_policy(tmp_path / "policy", model_type, **changes)
    binding.import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    found_P2 = reference(binding, pairs, tmp_path, Parallel())
    torch.testing.assert_close(found_P2, hugging_face_logps(policy, pairs), rtol=1e-5, atol=1e-5)
