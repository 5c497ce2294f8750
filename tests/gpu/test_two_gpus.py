"""Tensor parallelism over NCCL: two processes, started as training starts them."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("megatron.core")

import torch

if torch.cuda.device_count() < 2:
    pytest.skip("needs two CUDA devices", allow_module_level=True)


def test_heads_are_exact_over_two_gpus() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run([*torchrun, "-m", "tests.gpu.two_ranks"], capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr[-4000:]
