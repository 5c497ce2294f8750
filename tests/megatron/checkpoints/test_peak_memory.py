"""Import and export take a few times the largest tensor, and not the policy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch
from safetensors.torch import save_file

from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.host_memory import COPIES
from nemo_sspo.megatron.models.shape import Shape

MIB = 2**20
CONFIG = {
    "model_type": "llama",
    "rms_norm_eps": 1e-5,
    "hidden_size": 1024,
    "intermediate_size": 8192,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "vocab_size": 12_000,
    "torch_dtype": "bfloat16",
}
WIDE_VOCABULARY = {"vocab_size": 50_000, "intermediate_size": 1024}


def written(folder: Path, layers: int, **changes: int) -> Path:
    """A policy of which every layer has the same values."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | changes | {"num_hidden_layers": layers}))
    shape = Shape.of(read_hf_config(folder))
    tensors = {}
    values = (torch.arange(60 * MIB, dtype=torch.int32) % 16_000).to(torch.int16).view(torch.bfloat16)
    for name, sizes in shape.hugging_face().items():
        tensors[name] = values[: torch.Size(sizes).numel()].view(sizes).clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def risen(output: Path, *policies: Path) -> dict[str, dict[str, int]]:
    """Bytes by policy, of import and export."""
    command = [sys.executable, "-m", "tests.megatron.checkpoints.peak_memory", str(output), *map(str, policies)]
    # glibc keeps some of what is freed in blocks of 32 MB or less, however large the policy is; it gives it back here.
    variables = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(MIB)}
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=variables).stdout
    return json.loads(told.splitlines()[-1])


def largest(policy: Path) -> int:
    return 2 * max(Shape.of(HFConfig(json.loads((policy / "config.json").read_text()), policy)).sizes())


def test_the_peak_is_of_the_largest_tensor_and_not_of_the_policy(tmp_path: Path) -> None:
    warm_up = written(tmp_path / "warm_up", 1, hidden_size=64, intermediate_size=64, vocab_size=128)
    small, large = written(tmp_path / "small", 2), written(tmp_path / "large", 6)
    wide = written(tmp_path / "wide", 1, **WIDE_VOCABULARY)
    found = risen(tmp_path / "output", warm_up, small, large, wide)
    more = (large / "model.safetensors").stat().st_size - (small / "model.safetensors").stat().st_size
    assert more > 200 * MIB
    for policy in (small, large, wide):
        for what, bytes_ in found[policy.name].items():
            assert largest(policy) / 2 < bytes_ < COPIES * largest(policy) + 16 * MIB, (policy.name, what, found)
    assert all(found["large"][what] - found["small"][what] < more / 10 for what in ("import", "export")), found
