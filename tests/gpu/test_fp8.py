"""FP8 products of Transformer Engine against the same model in bf16."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("megatron.core")

import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)
if torch.cuda.get_device_capability() < (9, 0):
    pytest.skip("FP8 needs a Hopper-class GPU", allow_module_level=True)
pytest.importorskip("transformer_engine.pytorch")

import torch.distributed as dist

from tests.distributed import world
from tests.gpu.step import build, distance, measure

# E4M3 keeps 4 bits and E5M2, which holds gradients, 3. Products rounded so on the host, each tensor scaled by its own
# largest value, differ by 4e-3 (loss) and 0.28 (gradients as one vector) on this model.
LOSS_BOUND, GRADIENT_BOUND = 3e-2, 5e-1
# Delayed scaling knows the largest values of a tensor only after it has seen some.
PASSES = 3


@pytest.mark.parametrize(
    "fp8",
    [
        {"fp8": "hybrid", "fp8_recipe": "delayed", "fp8_amax_history_len": 16, "fp8_amax_compute_algo": "max"},
        {"fp8": "hybrid", "fp8_recipe": "tensorwise"},
    ],
    ids=lambda fp8: fp8["fp8_recipe"],
)
def test_fp8_stays_near_bf16(one_gpu: dist.ProcessGroup, fp8: dict[str, Any]) -> None:
    expected = measure(build(), world.pairs(), micro_batch_size=4)
    model = build(**fp8)
    for _ in range(PASSES):
        found = measure(model, world.pairs(), micro_batch_size=4)
    loss, gradient = distance(found, expected.loss, expected.grads)
    assert 0 < loss < LOSS_BOUND  # exactly 0 would be bf16 once more
    assert 0 < gradient < GRADIENT_BOUND
